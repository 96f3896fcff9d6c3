"""An API server that only answers what it is asked to read, and a kubeconfig that leads to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

EXPERIMENTS = "/apis/rltrainer.io/v1alpha1/namespaces/{}/rlexperiments/{}"


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's objects by path; what is a number there is the code of a refusal."""

    def do_GET(self) -> None:
        found = self.server.objects.get(self.path.partition("?")[0], 404)  # type: ignore[attr-defined]
        code = found if isinstance(found, int) else 200
        body = json.dumps({"kind": "Status", "code": code} if isinstance(found, int) else found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Says nothing."""


@contextmanager
def api_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The objects of a server by their path, which the current context of the kubeconfig, `here`, leads to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    objects: dict[str, Any] = {}
    server.objects = objects  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_at(f"http://127.0.0.1:{server.server_port}", folder, monkeypatch)
    try:
        yield objects
    finally:
        server.shutdown()
        server.server_close()


def point_at(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a kubeconfig whose current context is of the server at `url` and of namespace `team`."""
    context = {"cluster": "c", "user": "u", "namespace": "team"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
