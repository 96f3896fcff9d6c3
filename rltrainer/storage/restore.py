"""The state that a run begins with: its own newest checkpoint, another's, or nothing."""

import logging
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.core.types import Tree
from rltrainer.errors import RunError
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError, Manifest
from rltrainer.storage.files import write_whole
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import CHECKPOINTED, CHECKPOINTS, LOG, PARAMS, RESULTS, checkpoint_key
from rltrainer.storage.store import AwaitStorage, FolderStore, StorageError, Store

log = logging.getLogger(__name__)

RANKING = {"latest": "training_iteration"}
"""What `which` ranks a run's checkpoints by, where it is not the run's own attribute."""

RESTORE_URI = "RLTRAINER_RESTORE_URI"
"""Set by the operator, where restoreFrom names an experiment."""


EXPECTED_CHECKPOINT = "RLTRAINER_EXPECTED_CHECKPOINT"
"""Set by the operator to the newest checkpoint that the status names, or to the journal of a search: it was there."""


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

    Those that are not are passed over and renamed, with a warning each. Raises RunError, permanent, where there are
    checkpoints and none can be read.
    """
    root = folder / CHECKPOINTS
    manifests, broken = ckpt.survey(root)
    local = {manifest.iteration: manifest for manifest in manifests}
    remote: dict[int, Manifest] = {}
    remote_broken: list[str] = []
    if store is not None:
        manifests, remote_broken = await_storage(lambda: sync.survey(store))
        remote = {manifest.iteration: manifest for manifest in manifests}
    newest: Restored | None = None
    for iteration in sorted({*local, *remote}, reverse=True):
        path = root / ckpt.folder_name(iteration)
        if iteration in local:
            if newest := _read(path, str(path)):
                break
            broken.append(path)
            del local[iteration]
        if iteration in remote and store is not None:
            if newest := _fetch(store, path, broken, await_storage):
                break
            remote_broken.append(path.name)
            del remote[iteration]
    if newest is None and (broken or remote_broken):
        names = ", ".join(sorted({*remote_broken, *(path.name for path in broken)}))
        raise lost(f"none of the checkpoints of {store.uri if store else folder} can be read: {names}")
    for path in broken:
        ckpt.set_aside(path)
    if store is not None:
        _set_aside(store, remote_broken, await_storage)
    return OwnCheckpoints(newest, list(local.values()), list(remote.values()))


def check_expected(own: OwnCheckpoints, expected: str | None, place: str) -> None:
    """Raise RunError, permanent, where a checkpoint is `expected` in `place` and the run has none.

    That an older one is the newest is said in the log.
    """
    if expected is None:
        return
    name = expected.rpartition("/")[2]
    if own.newest is None:
        raise lost(f"this run has written {expected}, and there is no checkpoint in {place}")
    if own.newest.manifest.name < name:
        log.warning(
            "%s is not there: the run goes on from %s, and does again what came after", expected, own.newest.origin
        )


def note_checkpoint(checkpoint: Path) -> None:
    """Note in the run's folder that this checkpoint of it was written. Raises OSError."""
    write_whole(checkpoint.parents[1] / CHECKPOINTED, checkpoint.name)


def noted_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that was written in a run's folder, if any was."""
    try:
        return (folder / CHECKPOINTED).read_text(encoding="utf-8") or None
    except (OSError, ValueError):
        return None


def lost(message: str) -> RunError:
    """Say that what a run must go on from is not there. To begin anew in its place would lose it in silence."""
    return RunError(
        "CheckpointLost",
        f"{message}: bring back what is missing, or begin anew on purpose, with --overwrite or as a new experiment",
        permanent=True,
    )


def _read(path: Path, origin: str) -> Restored | None:
    try:
        return Restored(*ckpt.read(path), origin=origin)
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s", error)
        return None


def _fetch(store: Store, path: Path, broken: list[Path], await_storage: AwaitStorage) -> Restored | None:
    """Fetch a checkpoint to `path`, and read it. One in its place that is broken is renamed first."""
    origin = f"{store.uri}/{checkpoint_key(path.name)}"
    if path in broken:
        ckpt.set_aside(path)
        broken.remove(path)
    try:
        await_storage(lambda: sync.fetch(store, path.name, path))
    except CorruptCheckpointError as error:
        log.warning("refused, the one before it is tried: %s (from %s)", error, origin)
        return None
    return _read(path, origin)


def _set_aside(store: Store, names: list[str], await_storage: AwaitStorage) -> None:
    """Rename broken checkpoints in storage, where that is allowed; where it is not, they are passed over each time."""

    def rename(name: str) -> None:
        try:
            sync.set_aside(store, name)
        except StorageError as error:
            if error.reason != "AccessDenied":
                raise
            log.warning("%s stays in %s: %s", name, store.uri, error)

    for name in names:
        await_storage(partial(rename, name))


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

    Of a run, one that is broken is passed over with a warning, and the one after it in rank is taken. Raises
    StorageError or CorruptCheckpointError.
    """
    if store.read(ckpt.MANIFEST) is not None:
        sync.fetch(store, "", target, prefix="")
        return store.uri
    return fetch_first(store, target, ckpt.ranked(sync.remote_manifests(store), RANKING.get(which, attribute)))


def fetch_first(store: Store, target: Path, candidates: list[Manifest]) -> str:
    """Download the first of `candidates` that is whole, and return its URI; say which are not. Raises as fetch_from."""
    refused: CorruptCheckpointError | None = None
    for manifest in candidates:
        origin = f"{store.uri}/{checkpoint_key(manifest.name)}"
        try:
            sync.fetch(store, manifest.name, target)
        except CorruptCheckpointError as error:
            log.warning("refused, the next one is tried: %s (from %s)", error, origin)
            refused = error
        else:
            if refused is not None:
                log.warning("taken instead: %s", origin)
            return origin
    message = f"there is no checkpoint in {store.uri}"
    raise CorruptCheckpointError(f"{message} that is whole: {refused}" if refused else message + _instead(store))


def _instead(store: Store) -> str:
    """Say what a folder of this machine holds, where it is no run's."""
    if not isinstance(store, FolderStore):
        return ""
    if not store.root.is_dir():
        return ": there is no such folder"
    names = sorted(path.name for path in store.root.iterdir() if not path.name.startswith("."))
    if not names:
        return ": it is empty"
    held = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f", which holds {held}: name a run's folder, with checkpoints/ in it, or a checkpoint's"


def fetch_missing(store: Store, folder: Path, *names: str) -> None:
    """Fetch those of the files `names` that are not in `folder`. Raises StorageError."""
    for name in names:
        if not (folder / name).exists():
            store.download(name, folder / name)


def continue_files(store: Store, folder: Path) -> None:
    """Fetch what earlier attempts wrote to files that go on: result.json, params.json and train.log.

    Raises StorageError.
    """
    fetch_missing(store, folder, RESULTS, PARAMS)
    earlier, marker = store.read(LOG), folder / ".log-continued"
    if earlier and not marker.exists():
        so_far = (folder / LOG).read_bytes() if (folder / LOG).exists() else b""
        with (folder / LOG).open("r+b" if so_far else "wb") as file:  # in place: it is open for appending
            file.write(earlier + so_far)
        marker.touch()
