"""Building images: with Docker where it answers, else with Buildah, which needs no daemon."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import debian
from hack.cluster.console import Failure, run, succeeds
from hack.cluster.paths import CACHE, CHECKOUT, LOGS


@dataclass(frozen=True)
class Build:
    """One target of the Dockerfile. `secrets` are files that the build reads and the image does not keep."""

    image: str
    target: str
    arguments: dict[str, str]
    secrets: dict[str, Path]

    def flags(self) -> list[str | Path]:
        flags: list[str | Path] = ["--target", self.target, "--tag", self.image, "--file", CHECKOUT / "Dockerfile"]
        flags += [word for name, value in self.arguments.items() for word in ("--build-arg", f"{name}={value}")]
        return flags + [word for name, path in self.secrets.items() for word in ("--secret", f"id={name},src={path}")]


class Builder(Protocol):
    """What Docker and Buildah both do, in their own words."""

    def build(self, build: Build) -> None: ...

    def tag(self, image: str, other: str) -> None: ...

    def push(self, image: str, reference: str, *, insecure: bool) -> None: ...

    def save(self, image: str, archive: Path) -> None: ...

    def load(self, archive: Path, image: str) -> None: ...


class Docker:
    """Docker with BuildKit."""

    def build(self, build: Build) -> None:
        run(["docker", "build", *build.flags(), CHECKOUT], env={"DOCKER_BUILDKIT": "1"}, log=_log(build))

    def tag(self, image: str, other: str) -> None:
        run(["docker", "tag", image, other])

    def push(self, image: str, reference: str, *, insecure: bool) -> None:
        self.tag(image, reference)
        run(["docker", "push", reference])

    def save(self, image: str, archive: Path) -> None:
        run(["docker", "save", "--output", archive, image])

    def load(self, archive: Path, image: str) -> None:
        run(["docker", "load", "--input", archive])


class Buildah:
    """Buildah with its images in our cache, and uv's own cache lent to the build: nothing is fetched twice."""

    uv_cache = "/var/cache/uv-of-the-host"

    def __init__(self) -> None:
        debian.require(debian.IMAGES)
        self._cache = Path(os.environ.get("UV_CACHE_DIR") or CACHE.parent / "uv")
        self._cache.mkdir(parents=True, exist_ok=True)

    def _command(self, verb: str) -> list[str | Path]:
        return ["buildah", "--root", CACHE / "buildah", "--runroot", CACHE / "buildah-run", verb]

    def build(self, build: Build) -> None:
        # chroot: the one isolation that needs no right to make namespaces.
        lent = f"{self._cache}:{self.uv_cache}"
        flags = ["--layers", "--isolation", "chroot", "--format", "oci", "--volume", lent]
        run([*self._command("build"), *flags, *build.flags(), CHECKOUT], log=_log(build))
        self._forget_old(f"localhost/{build.image}")

    def _forget_old(self, image: str) -> None:
        """Remove earlier builds, with the layers that this one does not share."""
        repository = image.rpartition(":")[0]
        names = run([*self._command("images"), "--format", "{{.Name}}:{{.Tag}}"]).split()
        old = [name for name in names if name.startswith(f"{repository}:") and name != image]
        if old:
            run([*self._command("rmi"), *old])

    def tag(self, image: str, other: str) -> None:
        run([*self._command("tag"), image, other])

    def push(self, image: str, reference: str, *, insecure: bool) -> None:
        flags = ["--compression-format", "zstd", "--compression-level", "1"]
        if insecure:
            flags.append("--tls-verify=false")
        run([*self._command("push"), *flags, image, f"docker://{reference}"])

    def save(self, image: str, archive: Path) -> None:
        run([*self._command("push"), image, f"docker-archive:{archive}:{image}"])

    def load(self, archive: Path, image: str) -> None:
        image_id = run([*self._command("pull"), f"oci-archive:{archive}"]).strip()
        self.tag(image_id, image)

    def has(self, image: str) -> bool:
        return succeeds([*self._command("inspect"), "--type", "image", image])

    def import_base(self, image: str, rootfs: Path) -> None:
        """Make an image whose one layer is the tar file."""
        container = run([*self._command("from"), "scratch"]).strip()
        try:
            run([*self._command("add"), container, rootfs, "/"])
            run([*self._command("commit"), container, image])
        finally:
            run([*self._command("rm"), container])


def choose_builder() -> Docker | Buildah:
    """Docker where its daemon answers; else Buildah."""
    if succeeds(["docker", "info"]):
        return Docker()
    if os.geteuid() != 0:
        raise Failure("building images needs Docker, or root for Buildah")
    return Buildah()


def _log(build: Build) -> Path:
    return LOGS / f"image-{build.target}.log"
