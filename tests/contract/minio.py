"""A real S3 server on a free port of this machine, for as long as a test needs it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

USER, PASSWORD = "tester", "tester-password"
BUILT = Path(__file__).parents[2] / ".build" / "bin" / "minio"


@dataclass
class Minio:
    """One server; it can be stopped and started again with its data kept."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    certs: Path | None = None
    """A folder with private.key and public.crt, where it is to speak TLS."""

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certs else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self.port = self.port or free_port()
        program = str(BUILT) if BUILT.exists() else shutil.which("minio")
        assert program, f"no MinIO at {BUILT}: run `make tools`"
        env = {**os.environ, "MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(program, "server", "--quiet", "--address", f"127.0.0.1:{self.port}"),
                    *(("--certs-dir", str(self.certs)) if self.certs else ()),
                    str(self.folder / "data"),
                ],
                env=env,
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                self.client().list_buckets()
                return
            time.sleep(0.1)
        raise AssertionError(f"MinIO does not answer: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """Ends the server at once, as a lost node would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restricted(self, policy: dict[str, Any]) -> dict[str, str]:
        """Credentials that may do what `policy` allows, and nothing else."""
        answer = self.client("sts").assume_role(
            RoleArn="arn:aws:iam::1:role/any", RoleSessionName="test", Policy=json.dumps(policy)
        )
        return dict(answer["Credentials"])

    def client(self, service: str = "s3") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=USER,
            aws_secret_access_key=PASSWORD,
            verify=str(self.certs / "public.crt") if self.certs else None,
        )


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path, certs: Path | None = None) -> Iterator[Minio]:
    server = Minio(folder, certs=certs)
    server.start()
    try:
        yield server
    finally:
        server.stop()
