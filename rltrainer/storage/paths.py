"""Where the things of a run are, in storage and on disk. Every key is built here; imports nothing heavy."""

import os
import posixpath
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from rltrainer.api.base import Metadata

FileName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$", max_length=255)]
"""The name of a file or a folder, and never a path. Names that are read from storage are of this type, for whoever may
write there could name any file of this machine."""

LOCAL_DIR = "~/rltrainer_results"
"""Where runs are kept on this machine, where nothing else is said."""
CHECKPOINTS = "checkpoints"
RESULTS = "result.json"
TABLE = "progress.csv"
SEARCH = "search.json"
EXPORTS = "export"
PARAMS = "params.json"
LOG = "train.log"


def is_file_name(name: object) -> bool:
    """Return whether `name` is a FileName."""
    try:
        TypeAdapter(FileName).validate_python(name, strict=True)
    except ValidationError:
        return False
    return True


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
