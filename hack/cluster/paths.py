"""Where things lie: one cache for each user, one build folder for each checkout."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent

BUILD = Path(os.environ.get("RL_BUILD_DIR") or CHECKOUT / ".build")
KUBECONFIG = BUILD / "kubeconfig"
IMAGES_ENV = BUILD / "images.env"

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl-kubernetes"
PROGRAMS = CACHE / "programs"
ARCHIVES = CACHE / "archives"
LOGS = CACHE / "log"

# What outlives a cluster, so that the next one need not move gigabytes again.
CONTAINERD_ROOT = CACHE / "containerd"
REGISTRY_ROOT = CACHE / "registry"

# What does not.
STATE = CACHE / "cluster"


def program(name: str) -> Path:
    """The newest build of one of our programs, by its stable path."""
    return CACHE / "bin" / name
