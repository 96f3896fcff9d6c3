"""The state that a run begins with: its own newest checkpoint, another's, or nothing."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.errors import RunError
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError, Manifest, Tree
from rltrainer.storage.paths import CHECKPOINTS, checkpoint_key
from rltrainer.storage.store import Store, open_store

log = logging.getLogger(__name__)

Attempt = Callable[[Callable[[], object]], None]
"""Runs what needs storage, until storage answers."""

RESTORE_URI = "RLTRAINER_RESTORE_URI"
"""Set by the operator, where restoreFrom names an experiment."""


@dataclass
class Restored:
    """What was found."""

    manifest: Manifest
    tree: Tree
    origin: str
    """Where it came from, for people."""


@dataclass
class Found:
    """A run's own checkpoints."""

    newest: Restored | None
    local: list[Manifest] = field(default_factory=list)
    remote: list[Manifest] = field(default_factory=list)


def own(folder: Path, store: Store | None, attempt: Attempt) -> Found:
    """The newest checkpoint of a run that is whole, on disk or in storage; others are passed over, aloud."""
    local = {manifest.iteration: manifest for manifest in ckpt.found(folder / CHECKPOINTS)}
    remote: dict[int, Manifest] = {}
    if store is not None:
        attempt(lambda: remote.update({m.iteration: m for m in sync.remote_manifests(store)}))
    for iteration in sorted({*local, *remote}, reverse=True):
        place = folder / CHECKPOINTS / ckpt.folder_name(iteration)
        if iteration in local and (restored := _read(place, str(place))):
            return Found(restored, list(local.values()), list(remote.values()))
        local.pop(iteration, None)
        if iteration in remote and store is not None:
            if restored := _fetch(store, place, attempt):
                return Found(restored, list(local.values()), list(remote.values()))
            del remote[iteration]
    return Found(None, list(local.values()), list(remote.values()))


def _read(place: Path, origin: str) -> Restored | None:
    try:
        return Restored(*ckpt.read(place), origin=origin)
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s", error)
        return None


def _fetch(store: Store, place: Path, attempt: Attempt) -> Restored | None:
    origin = f"{store.uri}/{checkpoint_key(place.name)}"
    try:
        attempt(lambda: sync.fetch(store, place.name, place))
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s (from %s)", error, origin)
        return None
    return _read(place, origin)


def given_uri(spec: ExperimentSpec, path: str | None) -> str | None:
    """Where a new run is to take its first state from, if anywhere: the command line, the operator, the document."""
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


def given(uri: str, spec: ExperimentSpec, place: Path, attempt: Attempt) -> Restored:
    """The checkpoint at `uri`: a checkpoint's folder, or a run's, whose newest is taken.

    Raises RunError, permanent, if there is none that is whole."""
    store = open_store(uri.rstrip("/"), spec.storage)
    try:
        attempt(lambda: fetch_from(store, place))
    except CorruptCheckpointError as error:
        raise RunError("CheckpointNotFound", f"cannot restore from {uri}: {error}", permanent=True) from error
    return Restored(*ckpt.read(place), origin=uri)


def fetch_from(store: Store, place: Path, which: str = "latest", attribute: str = "episode_reward_mean") -> str:
    """Downloads a checkpoint to `place` and returns its URI: `store` itself, or one of the run that `store` holds.

    Raises StorageError or CorruptCheckpointError."""
    if store.read(ckpt.MANIFEST) is not None:
        sync.fetch(store, "", place, prefix="")
        return store.uri
    manifests = sync.remote_manifests(store)
    if not manifests:
        raise CorruptCheckpointError(f"there is no checkpoint in {store.uri}")
    chosen = manifests[-1] if which == "latest" else ckpt.best(manifests, attribute)
    name = (chosen or manifests[-1]).name
    sync.fetch(store, name, place)
    return f"{store.uri}/{checkpoint_key(name)}"
