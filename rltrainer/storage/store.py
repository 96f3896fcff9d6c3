"""One interface over places where files are kept, and a folder as one. Whatever goes wrong is a StorageError."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol, TypeVar

from rltrainer.api.status import Problem
from rltrainer.storage.paths import in_cluster
from rltrainer.waiting import LOG_INTERVAL_S

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_INTERVAL_S = 3.0
"""Seconds between tries while storage does not answer."""
CLUSTER_PATIENCE_S, TERMINAL_PATIENCE_S = 30 * 60.0, 10.0
"""Seconds that storage may be away: in a cluster, where somebody is mending it, and where somebody sits and waits."""
HOPELESS = {"AccessDenied", "BucketNotFound", "InvalidStorage"}
"""Reasons that time alone does not mend."""


class StorageError(Exception):
    """Storage did not do what it was asked. The message names the endpoint, never a credential."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message

    @property
    def permanent(self) -> bool:
        """Whether somebody has to do something first. In a cluster that may happen while it is tried again."""
        return self.reason in HOPELESS and not in_cluster()

    def problem(self) -> Problem:
        """Return it as a status has it."""
        return Problem.of(self.reason, self.message)


class Store(Protocol):
    """Files by key below one folder. A file is there whole or not at all. Methods raise StorageError."""

    uri: str

    def check(self) -> None:
        """Raise StorageError unless the store can be reached and its bucket is there."""

    def upload(self, path: Path, key: str) -> None:
        """Put the file at `path` under `key`."""

    def download(self, key: str, path: Path) -> bool:
        """Write what is under `key` to `path`; False if there is nothing."""

    def read(self, key: str) -> bytes | None:
        """Return what is under `key`, or None."""

    def create(self, key: str, content: bytes) -> bool:
        """Put `content` under `key` unless something is there; return whether it was put. Of several, one is."""

    def keys(self, prefix: str) -> list[str]:
        """List all keys that begin with `prefix`, sorted."""

    def delete(self, keys: list[str]) -> None:
        """Remove what is under `keys`, in their order; what is not there is no error."""


FOLDER_REASONS: dict[type[OSError], str] = {
    PermissionError: "AccessDenied",
    NotADirectoryError: "InvalidStorage",
    FileExistsError: "InvalidStorage",
    IsADirectoryError: "InvalidStorage",
}


class FolderStore:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.uri = root, str(root)

    def check(self) -> None:
        """Make the folder, where it is not there yet."""
        with self._errors():
            self.root.mkdir(parents=True, exist_ok=True)

    def upload(self, path: Path, key: str) -> None:
        """Copy the file beside its target, then rename it."""
        target = self.root / key
        part = target.with_name(f".{target.name}.part")
        with self._errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part)
            part.rename(target)

    def download(self, key: str, path: Path) -> bool:
        """Copy the file to `path`, if it is there."""
        with self._errors():
            if not (self.root / key).is_file():
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / key, path)
        return True

    def read(self, key: str) -> bytes | None:
        """Return the file's content, or None."""
        with self._errors():
            return (self.root / key).read_bytes() if (self.root / key).is_file() else None

    def create(self, key: str, content: bytes) -> bool:
        """Make the file, which the system refuses where there is one."""
        target = self.root / key
        with self._errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with target.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """List the files below the folder by their relative paths."""
        with self._errors():
            files = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
            return sorted(key for key in files if key.startswith(prefix))

    def delete(self, keys: list[str]) -> None:
        """Remove files, and folders that are left empty."""
        with self._errors():
            for key in keys:
                (self.root / key).unlink(missing_ok=True)
                parent = (self.root / key).parent
                if parent != self.root and parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            if self.root.exists() and not self.root.is_dir():
                raise StorageError("InvalidStorage", f"{self.root} is no folder")
            yield
        except OSError as error:
            raise StorageError(
                FOLDER_REASONS.get(type(error), "StorageFailed"), f"folder {self.root}: {error}"
            ) from error


class AwaitStorage(Protocol):
    """Runs what needs storage, until storage answers, and returns what it returns."""

    def __call__(self, action: Callable[[], T], /) -> T:
        """Run `action`. Raises what it raises, and as a `retry` that has given up."""


def retry(
    action: Callable[[], T],
    sleep: Callable[[float], object] = sleep,
    on_error: Callable[[StorageError], object] = lambda error: None,
) -> T:
    """Run `action` until storage answers, and return what it returns; say in the log, and to `on_error`, what is wrong.

    Raises the StorageError at once where nobody but the one who sits here can mend it, else after a while: seconds at
    a terminal, half an hour in a cluster.
    """
    end = monotonic() + (CLUSTER_PATIENCE_S if in_cluster() else TERMINAL_PATIENCE_S)
    last_logged = float("-inf")
    while True:
        try:
            return action()
        except StorageError as error:
            on_error(error)
            if error.permanent or monotonic() > end:
                raise
            if monotonic() - last_logged >= LOG_INTERVAL_S:
                last_logged = monotonic()
                log.warning("waiting for storage: %s", error)
            sleep(RETRY_INTERVAL_S)
