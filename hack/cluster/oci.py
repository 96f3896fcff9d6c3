"""Images of a few files, written as OCI archives without any tool: a static binary needs no base."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import programs
from hack.cluster.console import Failure, run
from hack.cluster.paths import ARCHIVES, SOURCES

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def architecture() -> str:
    """The machine's name in Go and in OCI images."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise Failure(f"no images are made for {machine}: only for {', '.join(sorted(_ARCHITECTURES))}")
    return _ARCHITECTURES[machine]


@dataclass(frozen=True)
class OneFileImage:
    """An image of one static binary, its entry point, run as a user without a name."""

    name: str
    binary: str  # its path in the image
    source: Callable[[], Path]  # builds or finds the binary
    inputs: Callable[[], str]  # names the binary's content, without building it

    def digest(self) -> str:
        """Name the image's content: its binary, and how this file makes an image of one."""
        return hashlib.sha256(self.inputs().encode() + Path(__file__).read_bytes()).hexdigest()[:12]

    def reference(self) -> str:
        """What every cluster calls it."""
        return f"localhost/rl-kubernetes/{self.name}:{self.digest()}"

    def archive(self) -> Path:
        """Write the OCI archive unless it is there, and return its path."""
        path = ARCHIVES / f"{self.name}-{self.digest()}.tar"
        if not path.exists():
            ARCHIVES.mkdir(parents=True, exist_ok=True)
            write_archive(path, self.reference(), self.binary, self.source())
            for old in set(ARCHIVES.glob(f"{self.name}-????????????.tar")) - {path}:
                old.unlink()
        return path


def write_archive(path: Path, reference: str, inside: str, binary: Path) -> None:
    """Write an OCI image layout with one layer of one file, as a tar that containerd, kind and minikube load."""
    blobs: dict[str, bytes] = {}

    def add(content: bytes, media: str) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        blobs[name] = content
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{name}", "size": len(content)}

    layer = _layer(inside, binary.read_bytes())
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [inside], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    layer_entry = add(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip")
    config_entry = add(json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_entry}
    entry = add(json.dumps({**manifest, "layers": [layer_entry]}).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    files["manifest.json"] = _docker_manifest(reference, str(config_entry["digest"]), str(layer_entry["digest"]))
    files |= {f"blobs/sha256/{name}": content for name, content in blobs.items()}
    fresh = path.with_suffix(".part")
    with tarfile.open(fresh, "w") as archive:
        for name, content in files.items():
            _add_file(archive, name, content, 0o644)
    fresh.rename(path)


def _docker_manifest(reference: str, config: str, layer: str) -> bytes:
    """The index that `docker load` reads; it points at the same blobs."""
    config, layer = (f"blobs/{digest.replace(':', '/')}" for digest in (config, layer))
    return json.dumps([{"Config": config, "RepoTags": [reference], "Layers": [layer]}]).encode()


def _layer(inside: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        # A place to write, for programs that insist on one.
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        layer.addfile(folder)
        _add_file(layer, inside.lstrip("/"), content, 0o755)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


_PAUSE_SOURCE = SOURCES / "images" / "pause.c"


def _compile_pause() -> Path:
    binary = ARCHIVES / "pause"
    run(["gcc", "-Os", "-static", "-Wall", "-Werror", "-o", binary, _PAUSE_SOURCE])
    return binary


PAUSE = OneFileImage("pause", "/pause", _compile_pause, _PAUSE_SOURCE.read_text)
KUBERAY = OneFileImage(
    "kuberay-operator",
    "/manager",
    lambda: programs.ensure(programs.KUBERAY_OPERATOR),
    lambda: programs.digest(programs.KUBERAY_OPERATOR),
)
MINIO = OneFileImage(
    "minio", "/minio", lambda: programs.ensure(programs.MINIO), lambda: programs.digest(programs.MINIO)
)
