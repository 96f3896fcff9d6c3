"""Where the things of a run are, in storage and on disk. Every key is built here; imports nothing heavy."""

import os
import posixpath
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from rltrainer.api.base import Metadata

MAX_BYTES = 255
"""Of the name of a file, in UTF-8."""


def _short(name: str) -> str:
    if len(name.encode()) > MAX_BYTES:
        raise ValueError(f"no name of a file has more than {MAX_BYTES} bytes")
    return name


FileName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$", max_length=MAX_BYTES), AfterValidator(_short)]
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
CHECKPOINTED = ".checkpointed"
"""Names the newest checkpoint that a run has written, apart from the checkpoints: that there are some must be known
where they are lost."""


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
    return posixpath.join(plain_uri(storage_uri), metadata.namespace or "default", metadata.name, *uid)


def plain_uri(uri: str) -> str:
    """Return an s3:// URI as its objects have it, without empty parts and `.`: s3://b/a//./c/ is s3://b/a/c.

    S3 would take each spelling for another key, so all keys and what names them are made of this one.
    """
    parts = uri.removeprefix("s3://").split("/")
    return "s3://" + "/".join(part for part in parts if part not in ("", "."))


def checkpoint_key(name: str, file: str = "") -> str:
    """Return the key of checkpoint `name`, or of a file of it, below the run's folder."""
    return "/".join([CHECKPOINTS, name, *([file] if file else [])])


def in_cluster() -> bool:
    """Return whether the operator runs this process, and nobody sits before it: a trainer, or a trial on a worker."""
    return bool(os.environ.get("RLTRAINER_NAME") or os.environ.get("RLTRAINER_TRIALS"))


def pid_file() -> Path | None:
    """Return the file with the running trainer's process id, for `rltrainer terminate`; None outside a cluster."""
    path = os.environ.get("RLTRAINER_PIDFILE")
    if path:
        return Path(path)
    return Path("/tmp/rltrainer.pid") if in_cluster() else None  # noqa: S108 - the pod's own
