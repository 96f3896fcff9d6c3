"""What every cluster of ours holds beside Kubernetes: KubeRay, and an S3 server with a bucket."""

import base64
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from string import Template

from hack.cluster import oci, programs, s3
from hack.cluster.console import step
from hack.cluster.kubectl import Kubectl
from hack.cluster.paths import SOURCES

BUCKET = "experiments"
_CREDENTIALS = "s3-credentials"

Load = Callable[[oci.OneFileImage], str]
"""Brings an image to the cluster's nodes and returns the reference under which they find it."""


def manifest(name: str, **values: str) -> str:
    return Template((SOURCES / "manifests" / name).read_text()).substitute(values)


def install(kubectl: Kubectl, load: Load) -> None:
    """Install both, and return when both are ready."""
    with step(f"KubeRay {programs.KUBERAY} and MinIO"):
        _start_minio(kubectl, load(oci.MINIO))
        _start_kuberay(kubectl, load(oci.KUBERAY))
        kubectl.rolled_out("minio", "minio", 120)
        _make_bucket(kubectl)
        kubectl.rolled_out("kuberay-system", "kuberay-operator", 120)


def _start_kuberay(kubectl: Kubectl, image: str) -> None:
    repository, _, tag = image.rpartition(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(programs.folder(programs.KUBERAY_OPERATOR) / "config", folder / "config")
        (folder / "namespace.yaml").write_text(manifest("kuberay-namespace.yaml"))
        (folder / "kustomization.yaml").write_text(manifest("kuberay.yaml", repository=repository, tag=tag))
        kubectl.apply_kustomization(folder)


def _start_minio(kubectl: Kubectl, image: str) -> None:
    kubectl.apply(manifest("minio.yaml", image=image))
    if not kubectl("-n", "minio", "get", "secret", _CREDENTIALS, "--ignore-not-found"):
        data = {"AWS_ACCESS_KEY_ID": "rl-local", "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24)}
        place = {"name": _CREDENTIALS, "namespace": "minio"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": place, "stringData": data}
        kubectl.apply(json.dumps(secret))


def _make_bucket(kubectl: Kubectl) -> None:
    secret = json.loads(kubectl("-n", "minio", "get", "secret", _CREDENTIALS, "-o", "json"))["data"]
    access, key = (base64.b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    with kubectl.port_forward("minio", "service/minio", 9000) as port:
        s3.make_bucket(f"127.0.0.1:{port}", BUCKET, access, key)
