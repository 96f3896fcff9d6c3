"""The environments that the peers live in: exact versions from PyPI, made once for each list of them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rl-kubernetes" / "peers"
LISTS = {"sb3": "sb3", "cleanrl": "sb3", "rllib": "rllib"}
"""The list of packages that each peer needs."""


def python(contender: str) -> str:
    """The interpreter that a contender runs in: this one, or that of its peers' environment, made where it is not."""
    if contender not in LISTS:
        return sys.executable
    requirements = HERE / f"requirements-{LISTS[contender]}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    folder = CACHE / f"{LISTS[contender]}-{key}"
    interpreter = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"installing {requirements.name} into {folder}", flush=True)
        uv = os.environ.get("UV", ".build/uv/bin/uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", interpreter, requirements], check=True)
        (folder / ".complete").touch()
    return str(interpreter)


def version(contender: str) -> str:
    """The peer's version, from its list."""
    package = {"sb3": "stable-baselines3", "cleanrl": "torch", "rllib": "ray"}[contender]
    lines = (HERE / f"requirements-{LISTS[contender]}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
