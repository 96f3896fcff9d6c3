"""Where the things of a run are, in storage and on disk. Every key is built here; imports nothing heavy."""

import os
import posixpath
from pathlib import Path

from rltrainer.api.base import Metadata

LOCAL_DIR = "~/rltrainer_results"
"""Where runs are kept on this machine, where nothing else is said."""
CHECKPOINTS = "checkpoints"
RESULTS = "result.json"
TABLE = "progress.csv"
SEARCH = "search.json"
EXPORTS = "export"
PARAMS = "params.json"
LOG = "train.log"


def run_uri(storage_uri: str, metadata: Metadata) -> str:
    """Return the folder of one run: `<storage.uri>/<namespace>/<name>/<first 8 of its uid>`, or without the uid."""
    uid = [metadata.uid[:8]] if metadata.uid else []
    return posixpath.join(storage_uri.rstrip("/"), metadata.namespace or "default", metadata.name, *uid)


def checkpoint_key(name: str, file: str = "") -> str:
    """Return the key of checkpoint `name`, or of a file of it, below the run's folder."""
    return "/".join([CHECKPOINTS, name, *([file] if file else [])])


def pid_file() -> Path | None:
    """Return the file with the running trainer's process id, for `rltrainer terminate`; None outside a cluster."""
    path = os.environ.get("RLTRAINER_PIDFILE")
    if path:
        return Path(path)
    return Path("/tmp/rltrainer.pid") if os.environ.get("RLTRAINER_NAME") else None  # noqa: S108 - the pod's own
