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

from pydantic import BaseModel, ConfigDict, ValidationError

from rltrainer.storage.store import StorageError, Store

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
    """Another process has the run now: nothing more of this one may be uploaded."""


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
