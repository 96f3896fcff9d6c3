"""Checks our manifests against the schemas of Kubernetes, KubeRay and our own CRDs, unknown fields included.

The rendered chart against Kubernetes' own OpenAPI definitions, the rendered RayJobs against KubeRay's CRD, and the
examples against our CRDs. Needs no cluster: the schemas lie in the Go modules that the local cluster is built from.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

from hack.kubectl import ROOT, environment
from rltrainer.api.crd import crds

Schema = dict[str, Any]

CHART = ROOT / "charts" / "rl-operator"
MODULES = ROOT / "hack" / "cluster" / "go"
VALUES: tuple[tuple[str, ...], ...] = (
    (),
    ("scope.namespaced=true",),
    (
        "image.digest=sha256:" + 64 * "0",
        "aggregatedRoles=false",
        "trainer.imagePullSecrets={registry}",
        "trainer.serviceAccount.annotations.role=arn",
        "trainer.serviceAccount.allowed={ml}",
        "labels.team=rl",
        "annotations.about=operator",
        "podLabels.tier=control",
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://proxy:3128",
        "podDisruptionBudget.maxUnavailable=1",
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
    ),
    ("networkPolicies.enabled=false",),
    ("networkPolicies.kuberayNamespace=kuberay", "networkPolicies.ingress[0].ports[0].port=8080"),
    ("storage.uri=s3://bucket/prefix", "storage.endpoint=http://s3:9000", "storage.credentialsSecret=s3-credentials"),
)


def module(folder: str, path: str) -> Path:
    """Return the folder of Go module `path` as pinned by hack/cluster/go/<folder>; download it if missing."""
    subprocess.run(["go", "mod", "download", path], cwd=MODULES / folder, check=True, capture_output=True)
    command = ["go", "list", "-m", "-f", "{{.Dir}}", path]
    process = subprocess.run(command, cwd=MODULES / folder, check=True, capture_output=True, text=True)
    return Path(process.stdout.strip())


def strict(schema: Any) -> Any:
    """Return the schema with unknown fields rejected, and with Kubernetes' extensions in JSON Schema."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    out = {key: strict(value) for key, value in schema.items() if key not in ("format", "description", "default")}
    if "properties" in out and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if out.get(bound) is True:
            out[bound] = out.pop(bound.removeprefix("exclusive").lower())
    return out


def closed(schema: Any) -> Any:
    """Return one of our schemas with only those fields that it names: what else it keeps, a policy refuses."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = "x-kubernetes-preserve-unknown-fields" if "properties" in schema else None
    return {key: closed(value) for key, value in schema.items() if key != dropped}


@cache
def kubernetes() -> tuple[Schema, dict[tuple[str, str], str]]:
    """Return Kubernetes' definitions, and the name of the one for each (apiVersion, kind)."""
    text = (module("kube", "k8s.io/kubernetes") / "api" / "openapi-spec" / "swagger.json").read_text()
    definitions: Schema = json.loads(text)["definitions"]
    kinds = {}
    for name, definition in definitions.items():
        for gvk in definition.get("x-kubernetes-group-version-kind", []):
            api = f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"]
            kinds[api, gvk["kind"]] = name
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    strict_definitions = {name: strict(part) for name, part in definitions.items()}
    strict_definitions[quantity] = {"type": ["string", "number"]}
    strict_definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    # A CRD's own schema is a JSON Schema: its definition refers to itself in ways that a strict reading refuses.
    strict_definitions["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"] = {"type": "object"}
    return strict_definitions, kinds


@cache
def custom() -> dict[tuple[str, str], Schema]:
    """Return the schemas of KubeRay's and our CRDs, by (apiVersion, kind)."""
    kuberay = module("kuberay", "github.com/ray-project/kuberay/ray-operator") / "config" / "crd" / "bases"
    schemas = {}
    theirs = [yaml.safe_load(path.read_text()) for path in kuberay.glob("*.yaml")]
    ours = [crd | {"spec": closed(crd["spec"])} for crd in crds().values()]
    for spec in (crd["spec"] for crd in theirs + ours):
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"] | {"x-kubernetes-preserve-unknown-fields": True}
            schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = strict(schema)
    return schemas


def problems(manifest: Schema) -> Iterator[str]:
    """Yield each violation of the manifest's schema as a line."""
    api, kind = manifest["apiVersion"], manifest["kind"]
    definitions, kinds = kubernetes()
    if (api, kind) in custom():
        schema = custom()[api, kind]
    elif (api, kind) in kinds:
        schema = {"$ref": f"#/definitions/{kinds[api, kind]}", "definitions": definitions}
    else:
        yield f"{kind} of {api} is known to no schema"
        return
    for error in Draft7Validator(schema).iter_errors(manifest):
        yield f"{kind} {manifest['metadata'].get('name', '?')}: {error.json_path}: {error.message[:300]}"


def chart_manifests() -> Iterator[tuple[str, Schema]]:
    """Yield every manifest of the chart under each set of values, with its source."""
    for values in VALUES:
        settings = [argument for value in values for argument in ("--set", value)]
        command = [
            "helm",
            "template",
            "rl-operator",
            str(CHART),
            "--namespace",
            "rl-system",
            "--include-crds",
            *settings,
        ]
        process = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
        for manifest in yaml.safe_load_all(process.stdout):
            if manifest:
                yield f"chart with {' '.join(values) or 'its defaults'}", manifest


def file_manifests() -> Iterator[tuple[str, Schema]]:
    """Yield the examples and the golden manifests of the operator's tests, with their file."""
    folders = (ROOT / "examples", ROOT / "tests" / "unit" / "operator" / "golden")
    for path in sorted(path for folder in folders for path in folder.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            yield str(path.relative_to(ROOT)), manifest


def main() -> int:
    """Check all manifests; return 0 when none violates its schema."""
    checked, errors = 0, []
    for where, manifest in [*chart_manifests(), *file_manifests()]:
        checked += 1
        errors += [f"{where}: {problem}" for problem in problems(manifest)]
    for error in errors:
        print(error, file=sys.stderr)
    print(f"{checked} manifests checked against the schemas of Kubernetes, KubeRay and our own: {len(errors)} problems")
    return 1 if errors or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
