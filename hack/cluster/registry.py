"""The image registry of the cluster from source: what makes a rebuild move only the layer that changed."""

import json
import urllib.error
import urllib.request

from hack.cluster.console import run, wait_until
from hack.cluster.local_http import send
from hack.cluster.paths import REGISTRY_ROOT, STATE, program
from hack.cluster.processes import LOG, start

PORT = 5000
ADDRESS = f"localhost:{PORT}"
PORTS = {PORT: "the image registry"}
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def up() -> None:
    """Drops the layers that no tag needs any more, and starts."""
    config = STATE / "registry.json"
    config.write_text(json.dumps(_configuration(), indent=2))
    if (REGISTRY_ROOT / "docker").is_dir():
        run([program("registry"), "garbage-collect", "--delete-untagged", config])
    start("registry", [program("registry"), "serve", config])
    wait_until("the image registry answers", answers, 20, f"Its log: {LOG / 'registry.log'}")


def answers() -> bool:
    return _status("GET", "") == 200


def has(repository: str, tag: str) -> bool:
    return _status("HEAD", f"{repository}/manifests/{tag}") == 200


def tags(repository: str) -> list[str]:
    """The repository's tags, the one that was pushed last first."""
    folder = REGISTRY_ROOT / "docker/registry/v2/repositories" / repository / "_manifests/tags"
    pushed = {link.parents[1].name: link.stat().st_mtime for link in folder.glob("*/current/link")}
    return sorted(pushed, key=lambda tag: pushed[tag], reverse=True)


def forget(repository: str, tag: str) -> None:
    """Remove a tag; its layers go when the registry starts the next time."""
    _status("DELETE", f"{repository}/manifests/{tag}")


def _request(method: str, path: str) -> urllib.request.Request:
    return urllib.request.Request(f"http://127.0.0.1:{PORT}/v2/{path}", method=method, headers={"Accept": _MANIFESTS})


def _status(method: str, path: str) -> int:
    try:
        with send(_request(method, path)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _configuration() -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(REGISTRY_ROOT)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{PORT}"},
    }
