"""kubectl from Python, for the deployment, the demo and the end-to-end tests: all of it a person could type."""

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"

Manifest = dict[str, Any]
T = TypeVar("T")


class KubectlError(RuntimeError):
    """kubectl failed; the message is kubectl's own."""


def environment() -> dict[str, str]:
    """The environment of kubectl and helm: the cluster of `make cluster`, unless the person named an existing one."""
    env = os.environ | {"PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"}
    if env.get("RL_CLUSTER") != "existing":
        env["KUBECONFIG"] = str(BUILD / "kubeconfig")
    return env


def kubectl(*args: str, stdin: str | None = None, namespace: str | None = None, timeout: float = 120) -> str:
    """Run `kubectl ARGS` and return its output. Raises KubectlError with its message."""
    command = ["kubectl", *(["-n", namespace] if namespace else []), *args]
    process = subprocess.run(
        command, input=stdin, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    if process.returncode:
        raise KubectlError(process.stderr.strip() or f"{' '.join(command)} ended with {process.returncode}")
    return process.stdout


def get(kind: str, name: str, namespace: str | None = None) -> Manifest | None:
    """Return one object, None where there is none."""
    output = kubectl("get", kind, name, "-o", "json", "--ignore-not-found", namespace=namespace)
    return json.loads(output) if output.strip() else None


def items(kind: str, namespace: str | None = None, selector: str = "") -> list[Manifest]:
    """Return all objects of a kind that match the label selector."""
    selected = ["-l", selector] if selector else []
    objects: list[Manifest] = json.loads(kubectl("get", kind, *selected, "-o", "json", namespace=namespace))["items"]
    return objects


def apply(manifest: Manifest | str | Path, namespace: str | None = None) -> str:
    """`kubectl apply` of an object, a YAML text or a file."""
    if isinstance(manifest, Path):
        manifest = manifest.read_text()
    text = manifest if isinstance(manifest, str) else yaml.safe_dump(manifest, sort_keys=False)
    return kubectl("apply", "-f", "-", stdin=text, namespace=namespace)


def wait_until(what: str, probe: Callable[[], T | None], timeout: float, every: float = 0.5) -> T:
    """Return the first true result of `probe`; `timeout` and `every` in seconds. Raises TimeoutError with `what`."""
    deadline = time.monotonic() + timeout
    while True:
        if result := probe():
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        time.sleep(every)


def make_namespace(name: str) -> None:
    """Make a namespace under restricted Pod Security that holds the S3 credentials of the local cluster."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    secret = get("secret", "s3-credentials", "minio")
    if secret is None:
        raise KubectlError("no Secret minio/s3-credentials: this cluster was not made by `make cluster`")
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-credentials"}, "data": secret["data"]}, name)


@contextmanager
def port_forward(target: str, port: int, namespace: str) -> Iterator[int]:
    """Forward a local port to `port` of a Service or Pod in this context, and yield it."""
    command = ["kubectl", "-n", namespace, "port-forward", target, f":{port}", "--address", "127.0.0.1"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "Forwarding from" not in line:
                raise KubectlError(f"no way to {namespace}/{target}:{port}")
            yield int(line.split("->")[0].rsplit(":", 1)[1])
        finally:
            process.terminate()


@contextmanager
def s3_client() -> Iterator[Any]:
    """A boto3 client of the cluster's own S3 server, through a port-forward."""
    import boto3  # noqa: PLC0415 - only this needs it
    from botocore.config import Config  # noqa: PLC0415

    secret = get("secret", "s3-credentials", "minio") or {}
    key, value = (
        base64.b64decode(secret["data"][name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    with port_forward("service/minio", 9000, "minio") as port:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=value,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
        )
        try:
            yield client
        finally:
            client.close()
