"""One process to a folder: a lock that the system frees when the process is gone, however it ends."""

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rltrainer.errors import NotStartedError
from rltrainer.storage.files import disk_errors

log = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What a file system answers that knows no locks."""


@contextmanager
def locked(file: Path, folder: Path, way_out: str) -> Iterator[None]:
    """Hold `folder` for this process within the block, by a lock on `file`.

    Raises NotStartedError that names the process which has it, and says `way_out`.
    """
    with disk_errors(file.parent, NotStartedError):
        file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0, thread_local=False, on_acquired=_write_owner)
    try:
        with disk_errors(folder, NotStartedError):
            lock.acquire()
    except Timeout:
        message = f"{folder} is in use by {_owner(file)}: wait until it ends, or {way_out}"
        raise NotStartedError("FolderInUse", message) from None
    except NotStartedError as error:
        if getattr(error.__cause__, "errno", None) not in NO_LOCKS:
            raise
        log.warning("%s is on a file system without locks: nothing keeps a second process out of it", folder)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                file.unlink()  # while it is locked: whoever opened it meanwhile sees that it has no name any more
            lock.release()


@contextmanager
def output_folder(folder: Path, argument: str) -> Iterator[None]:
    """Make `folder` and hold it for this process within the block. `argument` is what names another one."""
    with locked(folder / ".rltrainer.lock", folder, f"give another {argument}"):
        yield


def _write_owner(handle: int) -> None:
    """Write whose the lock is into its file, for whoever is refused."""
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(owner).encode())


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
