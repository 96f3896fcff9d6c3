"""Files that are whole or not there, whenever the machine stops."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rltrainer.errors import RunError, disk_problem


@contextmanager
def disk_errors(folder: Path, kind: type[RunError] = RunError) -> Iterator[None]:
    """Raise what a full disk or a folder that is not to be written to answers as `kind`, in a line."""
    try:
        yield
    except OSError as error:
        if (problem := disk_problem(error, folder)) is None:
            raise
        raise kind("WriteFailed", problem) from error


def finite(value: Any) -> Any:
    """Copy a value with null for NaN and infinity, which are no JSON."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, whole or not at all; NaN and infinity as null. Raises OSError."""
    write_whole(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8: after a crash at any instant it has what it had before, or all of this.

    Raises OSError.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        sync_to_disk(part)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)  # of a full disk it would keep the last of the room
        raise


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
