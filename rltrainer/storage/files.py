"""Files that are whole or not there, whenever the machine stops."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8: after a crash at any instant it has what it had before, or all of this.

    Raises OSError.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    sync_to_disk(part)
    part.rename(path)


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
