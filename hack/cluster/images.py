"""`make images`: the operator's and the trainer's image, named after their content, on the cluster's nodes."""

import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster import base_image
from hack.cluster.builders import Build, Buildah, Builder, choose_builder
from hack.cluster.clusters import Cluster
from hack.cluster.console import say, step
from hack.cluster.paths import CHECKOUT, IMAGES_ENV, SOURCES

TARGETS = {"operator": "OPERATOR_IMAGE", "trainer": "TRAINER_IMAGE"}
# All that the Dockerfile reads: see .dockerignore.
_INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "rltrainer", "operator")
_PASSED = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL",
)  # fmt: skip


def make(cluster: Cluster) -> None:
    """Build what the cluster lacks, bring it there, and write the references into `.build/images.env`."""
    tag, builder = content_tag(), None
    for target in TARGETS:
        image = f"rl-{target}:{tag}"
        if cluster.has(image):
            say(f"{cluster.reference(image)} is up to date")
            continue
        builder = builder or choose_builder()
        with step(f"building {image}"):
            build(builder, target, image)
        with step(f"bringing {image} to the cluster"):
            cluster.publish(builder, image)
    references = {name: cluster.reference(f"rl-{target}:{tag}") for target, name in TARGETS.items()}
    IMAGES_ENV.parent.mkdir(parents=True, exist_ok=True)
    IMAGES_ENV.write_text("".join(f"{name}={reference}\n" for name, reference in references.items()))
    say(IMAGES_ENV.read_text().rstrip())


def content_tag() -> str:
    """The hash of everything that goes into the images."""
    checksum = hashlib.sha256((SOURCES / "base_image.py").read_bytes())
    for path in sorted(path for name in _INPUTS for path in _files(CHECKOUT / name)):
        checksum.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes())
    return checksum.hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]


def build(builder: Builder, target: str, image: str) -> None:
    """Build one target. Without Docker the base is our own, unless BASE_IMAGE names another."""
    arguments = {name: os.environ[name] for name in ("BASE_IMAGE", "UV_VERSION") if os.environ.get(name)}
    if "BASE_IMAGE" not in arguments and isinstance(builder, Buildah):
        arguments["BASE_IMAGE"] = base_image.ensure(builder)
    uv_cache = builder.uv_cache if isinstance(builder, Buildah) else None
    with _secrets(uv_cache) as secrets:
        builder.build(Build(image, target, arguments, secrets))


@contextmanager
def _secrets(uv_cache: str | None) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as name:
        settings = {key: os.environ[key] for key in _PASSED if os.environ.get(key)}
        secrets = {"environment": Path(name) / "environment"}
        if os.environ.get("SSL_CERT_FILE"):
            secrets["certificates"] = Path(os.environ["SSL_CERT_FILE"])
            settings |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), "/run/secrets/certificates")
        if uv_cache:
            settings["UV_CACHE_DIR"] = uv_cache
        lines = "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())
        secrets["environment"].write_text(lines)
        yield secrets
