"""kubectl, of our own build, on the context that was chosen and on no other."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.console import Failure, run
from hack.cluster.paths import program


class Kubectl:
    """kubectl with a fixed kubeconfig; with None, the one that the person's environment names."""

    def __init__(self, config: Path | None) -> None:
        self._base = [str(program("kubectl")), *(["--kubeconfig", str(config)] if config else [])]

    def __call__(self, *arguments: str | Path, stdin: str | None = None, timeout: float | None = 120) -> str:
        return run([*self._base, *arguments], stdin=stdin, timeout=timeout)

    def apply(self, manifest: str) -> None:
        """Apply on the server's side: some of the definitions are too long for the annotation of the other way."""
        self(*_APPLY, "-f", "-", stdin=manifest)

    def apply_kustomization(self, folder: Path) -> None:
        self(*_APPLY, "-k", folder)

    def rolled_out(self, namespace: str, deployment: str, seconds: int) -> None:
        """Wait for a Deployment; on failure report what its pods say."""
        try:
            self(
                "-n", namespace, "rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s", timeout=None
            )
        except Failure as error:
            raise Failure(f"{error}\n{self('-n', namespace, 'describe', 'pods')[-3000:]}") from error

    @contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """A local port that leads to `port` of the target while the context lasts."""
        command = [*self._base, "-n", namespace, "port-forward", target, f":{port}", "--address=127.0.0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if "Forwarding from" not in line:
                    raise Failure(f"no way to {namespace}/{target}, port {port}")
                yield int(line.split(" -> ")[0].rpartition(":")[2])
            finally:
                process.terminate()


_APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=rl-cluster")
