"""Which checkpoint is meant by a folder or an s3:// URI: of a checkpoint, of a run, or of a search."""

import json
from pathlib import Path
from typing import Any

from rltrainer.api.experiment import Checkpoint, Storage
from rltrainer.errors import RunError
from rltrainer.storage import restore
from rltrainer.storage.checkpoint import MANIFEST, CorruptCheckpointError
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import PARAMS, SEARCH, is_file_name
from rltrainer.storage.store import Store, retry

WHICH = ("best", "latest")


def fetch(uri: str, target: Path, storage: Storage | None = None, which: str = "best") -> str:
    """Download the checkpoint that `uri` names to `target`, checked, and returns where it was.

    Of a run `which` chooses, or /best or /latest after its URI, and one that is broken is passed over with a warning;
    of a search the best trial counts. Raises StorageError where `retry` gives up, and RunError, permanent, if there is
    no checkpoint or it is broken.
    """
    return retry(lambda: _fetch(uri.rstrip("/"), target, storage, which))


def _fetch(uri: str, target: Path, storage: Storage | None, which: str) -> str:
    try:
        run, which = _resolve(uri, storage, which)
        return restore.fetch_from(run, target, which, _score_attribute(run))
    except CorruptCheckpointError as error:
        raise RunError("CheckpointNotFound", f"{uri}: {error}", permanent=True) from error


def _resolve(uri: str, storage: Storage | None, which: str) -> tuple[Store, str]:
    """Return the run or checkpoint that `uri` names, and which of the run's checkpoints."""
    parent, _, last = uri.rpartition("/")
    store = open_store(uri, storage)
    if last in WHICH and parent and not _is_run_or_checkpoint(store):
        uri, which, store = parent, last, open_store(parent, storage)
    search = _json(store, SEARCH)
    if search is None:
        return store, which
    if not search.get("best"):
        raise RunError("CheckpointNotFound", f"no trial of the search in {uri} is the best yet", permanent=True)
    if not is_file_name(search["best"]):
        message = f"{uri}/{SEARCH} is not valid: its best trial, {search['best']!r}, is no name of a folder"
        raise RunError("CheckpointNotFound", message, permanent=True)
    return open_store(f"{uri}/{search['best']}", storage), which


def _is_run_or_checkpoint(store: Store) -> bool:
    return any(store.read(name) is not None for name in (MANIFEST, PARAMS, SEARCH))


def _score_attribute(run: Store) -> str:
    """Return what the run ranks its checkpoints by."""
    checkpoint = (_json(run, PARAMS) or {}).get("checkpoint")
    named = checkpoint.get("scoreAttribute") if isinstance(checkpoint, dict) else None
    return str(named or Checkpoint().score_attribute)


def _json(store: Store, name: str) -> dict[str, Any] | None:
    """Read the object in file `name`, or None. Raises RunError, permanent, where the file is broken."""
    content = store.read(name)
    try:
        parsed = None if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError("CheckpointNotFound", f"{store.uri}/{name} is not JSON: {error}", permanent=True) from None
    if parsed is not None and not isinstance(parsed, dict):
        raise RunError("CheckpointNotFound", f"{store.uri}/{name} is no JSON object", permanent=True)
    return parsed
