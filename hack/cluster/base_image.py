"""The base of our images where no image registry is reached: Debian's own packages, unpacked by debootstrap."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from hack.cluster.builders import Buildah
from hack.cluster.console import run, step
from hack.cluster.paths import CACHE, LOGS

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "wget")
# What no program reads at run time.
_USELESS = (
    "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*", "./usr/share/doc/*", "./usr/share/man/*",
    "./usr/share/locale/*", "./usr/share/info/*", "./proc/*", "./sys/*", "./dev/*",
)  # fmt: skip


def reference() -> str:
    """The name of the base image, after its content."""
    content = hashlib.sha256(repr((SUITE, PACKAGES, _USELESS)).encode()).hexdigest()[:12]
    return f"localhost/rl-kubernetes/base:{SUITE}-{content}"


def ensure(builder: Buildah) -> str:
    """Make the base image unless the cache has it, and return its reference."""
    if not builder.has(reference()):
        with step(f"making the base image from Debian {SUITE}: {' '.join(PACKAGES)}"):
            _make(builder)
    return reference()


def _make(builder: Buildah) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="base-") as name:
        root, archive = Path(name) / "root", Path(name) / "root.tar"
        packages = f"--include={','.join(PACKAGES)}"
        run(["debootstrap", "--variant=minbase", packages, SUITE, root], log=LOGS / "debootstrap.log")
        excluded = [f"--exclude={pattern}" for pattern in _USELESS]
        run(["tar", "--create", "--numeric-owner", "--file", archive, "--directory", root, *excluded, "."])
        shutil.rmtree(root)
        builder.import_base(reference(), archive)
