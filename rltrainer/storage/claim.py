"""Whose a run's folder in storage is: the newest claim's, and each upload asks whether it still is.

A claim is a file `claims/000001.json` that is created on the condition that there is none of its number, so of two
processes one gets it; `claims/000001.ended` says that its process has ended. None is changed or deleted: beside what
uploads need, that takes no right.
"""

import json
import logging
import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from pydantic import BaseModel, ConfigDict, ValidationError

from rltrainer.errors import RunError
from rltrainer.storage.checkpoint import MANIFEST
from rltrainer.storage.store import AwaitStorage, StorageError, Store

log = logging.getLogger(__name__)

CLAIMS = "claims"
KEY = re.compile(rf"{CLAIMS}/(\d{{6}})\.json")


class Claimant(BaseModel):
    """The process that has, or had, a claim."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: str
    """Drawn for each claim."""
    folder: str
    """Names the run's folder on its machine. Whoever holds the lock of that folder follows on the process."""
    attempt: int = 0
    host: str = "?"
    pid: int = 0
    since: str = "?"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (attempt {self.attempt}, since {self.since})"


class NotOwnerError(StorageError):
    """Another process has the run: nothing of this one may be uploaded."""

    @property
    def permanent(self) -> bool:
        """Whether waiting does not mend it."""
        return True


CHECK_INTERVAL_S = 2.0
"""Seconds for which an answer of the claims holds, but for a file that makes a checkpoint exist."""


@dataclass(frozen=True)
class Newest:
    """The newest claim of a run's folder."""

    number: int
    claimant: Claimant
    ended: bool


@dataclass(frozen=True)
class Claim:
    """A run's folder in storage as one process has it."""

    store: Store
    number: int
    claimant: Claimant

    def check(self) -> None:
        """Raise NotOwnerError where another process has claimed the folder since, and StorageError."""
        newest = _newest(self.store)
        if newest is None or newest.claimant.token != self.claimant.token:
            now = f"{newest.claimant} has" if newest else "somebody has deleted the claim of"
            raise NotOwnerError("ClaimedByAnother", f"{now} {self.store.uri}: nothing more is uploaded from here")

    def release(self) -> None:
        """Say that the process has ended, so that any other may follow. Raises StorageError."""
        self.store.create(_key(self.number, "ended"), b"")


class OwnedStore:
    """A store that writes only for as long as its process has the claim. It reads for anybody."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.store, self.claim, self.uri = store, claim, store.uri
        self.lost: NotOwnerError | None = None
        """Set once another process has the claim."""
        self._checked = float("-inf")

    def _check(self, key: str) -> None:
        if self.lost is not None:
            raise self.lost
        if monotonic() - self._checked < CHECK_INTERVAL_S and not key.endswith("/" + MANIFEST):
            return
        try:
            self.claim.check()
        except NotOwnerError as error:
            self.lost = error
            raise
        self._checked = monotonic()

    def check(self) -> None:
        """Raise StorageError unless the store can be reached and its bucket is there."""
        self.store.check()

    def upload(self, path: Path, key: str) -> None:
        """Put the file at `path` under `key`. Raises NotOwnerError too, as all that writes."""
        self._check(key)
        self.store.upload(path, key)

    def create(self, key: str, content: bytes) -> bool:
        """Put `content` under `key` unless something is there; return whether it was put."""
        self._check(key)
        return self.store.create(key, content)

    def delete(self, keys: list[str]) -> None:
        """Remove what is under `keys`, in their order."""
        for key in keys:
            self._check(key)
        self.store.delete(keys)

    def download(self, key: str, path: Path) -> bool:
        """Write what is under `key` to `path`; False if there is nothing."""
        return self.store.download(key, path)

    def read(self, key: str) -> bytes | None:
        """Return what is under `key`, or None."""
        return self.store.read(key)

    def keys(self, prefix: str) -> list[str]:
        """List all keys that begin with `prefix`, sorted."""
        return self.store.keys(prefix)


def acquire(store: Store, folder: str, attempt: int) -> Claim:
    """Claim the run in `store` for this process, whose folder here is named `folder`.

    It follows on a process that has ended, on an earlier attempt, and on whoever had the same folder before. Raises
    NotOwnerError where another process has it, and StorageError.
    """
    claimant = Claimant(
        token=secrets.token_hex(8),
        folder=folder,
        attempt=attempt,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    while True:
        before = _newest(store)
        if before is not None and not _may_follow(claimant, before):
            raise NotOwnerError(
                "ClaimedByAnother",
                f"{before.claimant} has {store.uri}: end it, or wait for its end. If it is gone for good, delete "
                f"{store.uri}/{_key(before.number)}",
            )
        number = before.number + 1 if before is not None else 1
        if store.create(_key(number), json.dumps(claimant.model_dump()).encode()):
            if before is not None and not before.ended:
                log.warning("%s had %s, and has it no longer", before.claimant, store.uri)
            return Claim(store, number, claimant)


def claimed(store: Store, folder: str, attempt: int, await_storage: AwaitStorage) -> Claim:
    """Claim the run in `store` as `acquire` does, once storage answers.

    Raises RunError where another process has it.
    """

    def try_once() -> Claim | NotOwnerError:
        try:
            return acquire(store, folder, attempt)
        except NotOwnerError as error:  # to wait for storage would not mend it
            return error

    result = await_storage(try_once)
    if isinstance(result, NotOwnerError):
        raise RunError(result.reason, result.message)
    return result


def _may_follow(claimant: Claimant, before: Newest) -> bool:
    earlier = before.claimant
    return before.ended or claimant.attempt > earlier.attempt or claimant.folder == earlier.folder


def _newest(store: Store) -> Newest | None:
    """Read the newest claim. Raises StorageError where it is none."""
    keys = store.keys(f"{CLAIMS}/")
    number = max((int(match[1]) for key in keys if (match := KEY.fullmatch(key))), default=0)
    content = store.read(_key(number)) if number else None
    if content is None:
        return None
    try:
        claimant = Claimant.model_validate_json(content)
    except ValidationError:
        message = f"{store.uri}/{_key(number)} does not say whose the run is: delete it"
        raise StorageError("StorageFailed", message) from None
    return Newest(number, claimant, _key(number, "ended") in keys)


def _key(number: int, kind: str = "json") -> str:
    return f"{CLAIMS}/{number:06d}.{kind}"
