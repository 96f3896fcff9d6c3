"""Uploads in the background: checkpoints in their order, manifest last, and the run's files now and then."""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from rltrainer.api.experiment import Checkpoint
from rltrainer.api.status import CheckpointRef, Problem, SyncStatus
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage.checkpoint import Manifest
from rltrainer.storage.paths import CHECKPOINTS, checkpoint_key
from rltrainer.storage.store import StorageError, Store

log = logging.getLogger(__name__)

FILES_EVERY = 10.0
"""Seconds between uploads of result.json and its like."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between tries while storage is away, doubled from the one to the other."""


def remote_manifests(store: Store) -> list[Manifest]:
    """Manifests of the complete checkpoints in `store`, oldest first. Raises StorageError."""
    found = []
    for key in store.keys(CHECKPOINTS + "/"):
        if key.endswith("/" + ckpt.MANIFEST):
            try:
                found.append(ckpt.parse_manifest(store.read(key) or b"", f"{store.uri}/{key.rsplit('/', 1)[0]}"))
            except ckpt.CorruptCheckpointError as error:
                log.warning("not a checkpoint: %s", error)
    return sorted(found, key=lambda manifest: manifest.iteration)


def remove(store: Store, manifest: Manifest) -> None:
    """Deletes a checkpoint, its manifest first: a half-deleted one does not exist."""
    prefix = checkpoint_key(manifest.name) + "/"
    names = sorted(store.keys(prefix), key=lambda key: not key.endswith("/" + ckpt.MANIFEST))
    store.delete(names)


def put(store: Store, folder: Path) -> Manifest:
    """Uploads a checkpoint, manifest last. What stood under its name before stops existing first."""
    manifest = ckpt.manifest_of(folder)
    store.delete([checkpoint_key(folder.name, ckpt.MANIFEST)])
    for name in (*manifest.files, ckpt.MANIFEST):
        store.upload(folder / name, checkpoint_key(folder.name, name))
    return manifest


def fetch(store: Store, name: str, folder: Path, prefix: str | None = None) -> None:
    """Downloads checkpoint `name` into `folder`, checked. Raises StorageError or CorruptCheckpointError."""
    base = checkpoint_key(name) if prefix is None else prefix
    building = folder.with_name(f".{folder.name}.part")
    ckpt.delete(building)
    keys = [f"{base}/{ckpt.MANIFEST}".lstrip("/")]
    if not store.download(keys[0], building / ckpt.MANIFEST):
        raise ckpt.CorruptCheckpointError(f"{store.uri}/{keys[0]} is not there")
    for file in ckpt.manifest_of(building).files:
        if not store.download(f"{base}/{file}".lstrip("/"), building / file):
            raise ckpt.CorruptCheckpointError(f"{store.uri}/{base}/{file} is not there")
    ckpt.verify(building)
    ckpt.install(building, folder)


def reference(run: str, manifest: Manifest) -> CheckpointRef:
    """A checkpoint of the run at `run`, a folder or a URI, as a status names it."""
    return CheckpointRef(
        uri=f"{run}/{checkpoint_key(manifest.name)}",
        iteration=manifest.iteration,
        timesteps_total=manifest.timesteps_total,
        episode_reward_mean=manifest.metrics.get("episode_reward_mean"),
    )


class Uploader:
    """Keeps storage up to date with a run's folder, in a thread of its own, for as long as it takes."""

    def __init__(self, store: Store, folder: Path, policy: Checkpoint, known: Iterable[Manifest] = ()) -> None:
        self.store, self.folder, self.policy = store, folder, policy
        self._remote = {manifest.iteration: manifest for manifest in known}
        self._queue: deque[Path] = deque()
        self._files: set[Path] = set()
        self._error: Problem | None = None
        self._active: Path | None = None
        self._closing = False
        self._files_due = monotonic() + FILES_EVERY
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def add(self, folder: Path) -> None:
        """Uploads a checkpoint once those before it are there."""
        with self._changed:
            self._queue.append(folder)
            self._changed.notify_all()

    def touch(self, *files: Path) -> None:
        """Uploads these files of the run's folder soon, as they are then."""
        with self._changed:
            self._files.update(files)
            self._changed.notify_all()

    def forget(self, folder: Path) -> bool:
        """Takes a checkpoint that is to be deleted off the list. False if it is being uploaded right now."""
        with self._changed:
            if self._active == folder:
                return False
            if folder in self._queue:
                self._queue.remove(folder)
            return True

    def status(self) -> SyncStatus:
        """How the uploads stand."""
        with self._changed:
            return SyncStatus(pending=len(self._queue), error=self._error)

    def newest(self) -> CheckpointRef | None:
        """The newest complete checkpoint in storage."""
        with self._changed:
            return reference(self.store.uri, self._remote[max(self._remote)]) if self._remote else None

    def best(self) -> CheckpointRef | None:
        """The best complete checkpoint in storage."""
        with self._changed:
            best = ckpt.best(list(self._remote.values()), self.policy.score_attribute)
            return reference(self.store.uri, best) if best else None

    def close(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until everything is uploaded; whether it is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            return not self._queue and not self._files

    def _run(self) -> None:
        wait = FIRST_WAIT
        while self._await_work():
            try:
                self._work()
            except Exception as error:  # whatever it is, training goes on, and the world is told
                self._failed(error, wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                wait = FIRST_WAIT
                self._worked()

    def _await_work(self) -> bool:
        """Waits until there is something to do; False when there is nothing more and the run has ended."""
        with self._changed:
            while True:
                if self._queue or (self._files and (self._closing or monotonic() >= self._files_due)):
                    return True
                if self._closing:
                    return False
                self._changed.wait(max(0.0, self._files_due - monotonic()) if self._files else None)

    def _work(self) -> None:
        """Uploads one checkpoint, or the files."""
        with self._changed:
            self._active = self._queue[0] if self._queue else None
            files, self._files = (set(), self._files) if self._active else (self._files, set())
        if self._active is not None:
            self._upload_checkpoint(self._active)
            return
        try:
            for path in sorted(path for path in files if path.exists()):
                self.store.upload(path, path.relative_to(self.folder).as_posix())
        except Exception:
            with self._changed:
                self._files |= files
            raise
        self._files_due = monotonic() + FILES_EVERY

    def _upload_checkpoint(self, folder: Path) -> None:
        manifest = put(self.store, folder)
        with self._changed:
            self._remote[manifest.iteration] = manifest
            self._queue.popleft()
            self._active = None
            to_prune = ckpt.to_prune(list(self._remote.values()), self.policy.keep, self.policy.score_attribute)
        log.info("%s is in %s", folder.name, self.store.uri)
        for old in to_prune:
            with self._changed:
                del self._remote[old.iteration]
            remove(self.store, old)

    def _failed(self, cause: Exception, wait: float) -> None:
        error = cause if isinstance(cause, StorageError) else StorageError("StorageFailed", repr(cause))
        with self._changed:
            self._active = None
            if self._error is None or self._error.reason != error.reason:
                log.warning("upload failed, and is tried again until it succeeds: %s", error)
            self._error = error.problem()
            self._changed.wait_for(lambda: False, wait)

    def _worked(self) -> None:
        with self._changed:
            if self._error is not None:
                log.info("storage is back: %s", self.store.uri)
            self._error = None
