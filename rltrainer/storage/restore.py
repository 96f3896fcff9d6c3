"""The state that a run begins with: its own newest checkpoint, another's, or nothing."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.core.types import Tree
from rltrainer.errors import RunError
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError, Manifest
from rltrainer.storage.paths import CHECKPOINTS, LOG, RESULTS, checkpoint_key
from rltrainer.storage.store import Store, open_store

log = logging.getLogger(__name__)

AwaitStorage = Callable[[Callable[[], object]], None]
"""Runs what needs storage, until storage answers."""

RESTORE_URI = "RLTRAINER_RESTORE_URI"
"""Set by the operator, where restoreFrom names an experiment."""


@dataclass
class Restored:
    """A checkpoint that was read."""

    manifest: Manifest
    tree: Tree
    origin: str
    """Where it came from, for people."""


@dataclass
class OwnCheckpoints:
    """A run's own checkpoints, without those that proved to be broken."""

    newest: Restored | None
    local: list[Manifest] = field(default_factory=list)
    remote: list[Manifest] = field(default_factory=list)


def own_checkpoints(folder: Path, store: Store | None, await_storage: AwaitStorage) -> OwnCheckpoints:
    """Find a run's checkpoints on disk and in storage, and read the newest that is whole.

    Those that are not are passed over, with a warning each.
    """
    local = {manifest.iteration: manifest for manifest in ckpt.manifests_in(folder / CHECKPOINTS)}
    remote: dict[int, Manifest] = {}
    if store is not None:
        await_storage(lambda: remote.update({m.iteration: m for m in sync.remote_manifests(store)}))
    newest: Restored | None = None
    for iteration in sorted({*local, *remote}, reverse=True):
        path = folder / CHECKPOINTS / ckpt.folder_name(iteration)
        if iteration in local and (newest := _read(path, str(path))):
            break
        local.pop(iteration, None)
        if iteration in remote and store is not None:
            if newest := _fetch(store, path, await_storage):
                break
            del remote[iteration]
    return OwnCheckpoints(newest, list(local.values()), list(remote.values()))


def _read(path: Path, origin: str) -> Restored | None:
    try:
        return Restored(*ckpt.read(path), origin=origin)
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s", error)
        return None


def _fetch(store: Store, path: Path, await_storage: AwaitStorage) -> Restored | None:
    origin = f"{store.uri}/{checkpoint_key(path.name)}"
    try:
        await_storage(lambda: sync.fetch(store, path.name, path))
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s (from %s)", error, origin)
        return None
    return _read(path, origin)


def restore_uri(spec: ExperimentSpec, path: str | None) -> str | None:
    """Return where a new run is to take its first state from, if anywhere.

    The command line's `path` comes before the operator's variable, and that before the document. Raises RunError,
    permanent, where the document names an experiment and no operator has found it.
    """
    if path is not None:
        return path
    if os.environ.get(RESTORE_URI):
        return os.environ[RESTORE_URI]
    if spec.restore_from is None:
        return None
    if spec.restore_from.uri is None:
        raise RunError(
            "InvalidOption",
            f"restoreFrom.experiment {spec.restore_from.experiment!r} means something only in a cluster: "
            "give restoreFrom.uri, or --restore PATH",
            permanent=True,
        )
    return spec.restore_from.uri


def fetch_origin(uri: str, spec: ExperimentSpec, target: Path, await_storage: AwaitStorage) -> Restored:
    """Fetch the checkpoint at `uri` to `target`: a checkpoint's folder, or a run's, whose newest is taken.

    Raises RunError, permanent, if there is none that is whole.
    """
    store = open_store(uri.rstrip("/"), spec.storage)
    try:
        await_storage(lambda: fetch_from(store, target))
    except CorruptCheckpointError as error:
        raise RunError("CheckpointNotFound", f"cannot restore from {uri}: {error}", permanent=True) from error
    return Restored(*ckpt.read(target), origin=uri)


def fetch_from(store: Store, target: Path, which: str = "latest", attribute: str = "episode_reward_mean") -> str:
    """Download a checkpoint to `target` and return its URI: `store` itself, or one of the run that `store` holds.

    Raises StorageError or CorruptCheckpointError.
    """
    if store.read(ckpt.MANIFEST) is not None:
        sync.fetch(store, "", target, prefix="")
        return store.uri
    manifests = sync.remote_manifests(store)
    if not manifests:
        raise CorruptCheckpointError(f"there is no checkpoint in {store.uri}")
    chosen = manifests[-1] if which == "latest" else ckpt.best(manifests, attribute)
    name = (chosen or manifests[-1]).name
    sync.fetch(store, name, target)
    return f"{store.uri}/{checkpoint_key(name)}"


def continue_files(store: Store, folder: Path) -> None:
    """Fetch what earlier attempts wrote to files that go on: result.json and train.log. Raises StorageError."""
    if not (folder / RESULTS).exists():
        store.download(RESULTS, folder / RESULTS)
    earlier, marker = store.read(LOG), folder / ".log-continued"
    if earlier and not marker.exists():
        so_far = (folder / LOG).read_bytes() if (folder / LOG).exists() else b""
        with (folder / LOG).open("r+b" if so_far else "wb") as file:  # in place: it is open for appending
            file.write(earlier + so_far)
        marker.touch()
