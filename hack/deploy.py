"""Installs the chart on the cluster of `make cluster`, with the images of `make images` and the cluster's S3 server."""

import subprocess
import sys

from hack.kubectl import BUILD, ROOT, environment, kubectl

NAMESPACE = "rl-system"
RELEASE = "rl-operator"
STORAGE = {
    "storage.uri": "s3://experiments",
    "storage.endpoint": "http://minio.minio.svc.cluster.local:9000",
    "storage.region": "us-east-1",
    "storage.credentialsSecret": "s3-credentials",
}


def images() -> dict[str, str]:
    """The references that `make images` wrote: OPERATOR_IMAGE and TRAINER_IMAGE."""
    lines = (BUILD / "images.env").read_text().split()
    return dict(line.split("=", 1) for line in lines)


def helm_command() -> list[str]:
    """`helm upgrade --install` with everything that the local cluster needs."""
    operator, tag = images()["OPERATOR_IMAGE"].rsplit(":", 1)
    values = {
        "image.repository": operator,
        "image.tag": tag,
        "trainerImage": images()["TRAINER_IMAGE"],
        "networkPolicies.kuberayNamespace": "kuberay-system",
        **STORAGE,
    }
    chart = str(ROOT / "charts" / "rl-operator")
    settings = [argument for key, value in values.items() for argument in ("--set-string", f"{key}={value}")]
    place = ["--namespace", NAMESPACE, "--create-namespace"]
    # A person may have applied crds/ by hand before: the release takes them over.
    return [
        "helm",
        "upgrade",
        "--install",
        RELEASE,
        chart,
        *place,
        *settings,
        "--take-ownership",
        "--wait",
        "--timeout",
        "3m",
    ]


def main() -> int:
    """Install or upgrade, and say where it stands."""
    print(f"Installing the chart as {NAMESPACE}/{RELEASE}", flush=True)
    process = subprocess.run(helm_command(), env=environment(), stdout=subprocess.DEVNULL, check=False)
    if process.returncode:
        print(kubectl("get", "pods", "-o", "wide", namespace=NAMESPACE), file=sys.stderr)
        print("error: the operator did not become ready; its log: "
              f"kubectl -n {NAMESPACE} logs deployment/{RELEASE}", file=sys.stderr)  # fmt: skip
        return 1
    kubectl("wait", "--for=condition=Established", "crd/rlexperiments.rltrainer.io", "crd/rlrollouts.rltrainer.io")
    print(kubectl("get", "deployment", RELEASE, namespace=NAMESPACE), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
