//go:build tools

// Package tools pins KubeRay's operator, a main package of its own, in go.mod and go.sum.
package tools

import _ "github.com/ray-project/kuberay/ray-operator"
