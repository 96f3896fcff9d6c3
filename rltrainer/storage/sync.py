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

FILES_INTERVAL_S = 10.0
"""Seconds between uploads of result.json and its like."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 15.0
"""Seconds between tries while storage is away, doubled from the one to the other."""


def remote_manifests(store: Store) -> list[Manifest]:
    """Read the manifests of the complete checkpoints in `store`, oldest first. Raises StorageError."""
    manifests = []
    for key in store.keys(CHECKPOINTS + "/"):
        if key.endswith("/" + ckpt.MANIFEST):
            try:
                manifests.append(ckpt.parse_manifest(store.read(key) or b"", f"{store.uri}/{key.rsplit('/', 1)[0]}"))
            except ckpt.CorruptCheckpointError as error:
                log.warning("not a checkpoint: %s", error)
    return sorted(manifests, key=lambda manifest: manifest.iteration)


def remove(store: Store, manifest: Manifest) -> None:
    """Delete a checkpoint, its manifest first: a half-deleted one does not exist."""
    prefix = checkpoint_key(manifest.name) + "/"
    names = sorted(store.keys(prefix), key=lambda key: not key.endswith("/" + ckpt.MANIFEST))
    store.delete(names)


def put(store: Store, folder: Path) -> Manifest:
    """Upload a checkpoint, manifest last. What stood under its name before stops existing first."""
    manifest = ckpt.manifest_of(folder)
    store.delete([checkpoint_key(folder.name, ckpt.MANIFEST)])
    for name in (*manifest.files, ckpt.MANIFEST):
        store.upload(folder / name, checkpoint_key(folder.name, name))
    return manifest


def fetch(store: Store, name: str, folder: Path, prefix: str | None = None) -> None:
    """Download checkpoint `name` into `folder`, checked. Raises StorageError or CorruptCheckpointError."""
    base = checkpoint_key(name) if prefix is None else prefix
    building = folder.with_name(f".{folder.name}.part")
    ckpt.delete(building)
    key = f"{base}/{ckpt.MANIFEST}".lstrip("/")
    if not store.download(key, building / ckpt.MANIFEST):
        raise ckpt.CorruptCheckpointError(f"{store.uri}/{key} is not there")
    for file in ckpt.manifest_of(building).files:
        if not store.download(f"{base}/{file}".lstrip("/"), building / file):
            raise ckpt.CorruptCheckpointError(f"{store.uri}/{base}/{file} is not there")
    ckpt.verify(building)
    ckpt.install(building, folder)


def reference(run: str, manifest: Manifest) -> CheckpointRef:
    """Name a checkpoint of the run at `run`, a folder or a URI, as a status does."""
    return CheckpointRef(
        uri=f"{run}/{checkpoint_key(manifest.name)}",
        iteration=manifest.iteration,
        timesteps_total=manifest.timesteps_total,
        episode_reward_mean=manifest.metrics.get("episode_reward_mean"),
    )


def references(run: str, manifests: list[Manifest], score_attribute: str) -> dict[str, CheckpointRef | None]:
    """Name the newest and the best of a run's checkpoints, as a status does: `checkpoint` and `best_checkpoint`."""
    newest = max(manifests, key=lambda manifest: manifest.iteration, default=None)
    best = ckpt.best(manifests, score_attribute)
    named = {"checkpoint": newest, "best_checkpoint": best}
    return {name: reference(run, manifest) if manifest else None for name, manifest in named.items()}


class Uploader:
    """A thread that keeps storage up to date with a run's folder, for as long as it takes."""

    def __init__(self, store: Store, folder: Path, policy: Checkpoint, remote: Iterable[Manifest] = ()) -> None:
        self.store, self.folder, self.policy = store, folder, policy
        self._remote = {manifest.iteration: manifest for manifest in remote}
        self._queue: deque[Path] = deque()
        self._files: set[Path] = set()
        self._error: Problem | None = None
        self._active: Path | None = None
        self._closing = False
        self._files_due = monotonic() + FILES_INTERVAL_S
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def add(self, folder: Path) -> None:
        """Upload a checkpoint once those before it are there."""
        with self._changed:
            self._queue.append(folder)
            self._changed.notify_all()

    def touch(self, *files: Path) -> None:
        """Upload these files of the run's folder soon, as they are then."""
        with self._changed:
            self._files.update(files)
            self._changed.notify_all()

    def forget(self, folder: Path) -> bool:
        """Take a checkpoint that is to be deleted off the list. False if it is being uploaded right now."""
        with self._changed:
            if self._active == folder:
                return False
            if folder in self._queue:
                self._queue.remove(folder)
            return True

    def status(self) -> SyncStatus:
        """Return how the uploads stand."""
        with self._changed:
            return SyncStatus(pending=len(self._queue), error=self._error)

    def references(self) -> dict[str, CheckpointRef | None]:
        """Name the newest and the best complete checkpoint in storage, as a status does."""
        with self._changed:
            return references(self.store.uri, list(self._remote.values()), self.policy.score_attribute)

    def wait_for(self, folder: Path, timeout: float) -> bool:
        """Wait up to `timeout` seconds until this checkpoint, or a newer one, is in storage; return whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(ckpt.folder_name(iteration) >= folder.name for iteration in self._remote), timeout
            )

    def close(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything is uploaded; whether it is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            return not self._queue and not self._files

    def _run(self) -> None:
        wait = FIRST_WAIT_S
        while self._await_work():
            try:
                self._work()
            except Exception as error:  # whatever it is, training goes on, and the status says it
                self._note_failure(error, wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                wait = FIRST_WAIT_S
                self._note_success()

    def _await_work(self) -> bool:
        """Wait until there is something to do; False when there is nothing more and the run has ended."""
        with self._changed:
            while True:
                if self._queue or (self._files and (self._closing or monotonic() >= self._files_due)):
                    return True
                if self._closing:
                    return False
                self._changed.wait(max(0.0, self._files_due - monotonic()) if self._files else None)

    def _work(self) -> None:
        """Upload one checkpoint, or the files."""
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
        self._files_due = monotonic() + FILES_INTERVAL_S

    def _upload_checkpoint(self, folder: Path) -> None:
        manifest = put(self.store, folder)
        with self._changed:
            self._remote[manifest.iteration] = manifest
            self._queue.popleft()
            self._active = None
            self._changed.notify_all()
            to_prune = ckpt.to_prune(list(self._remote.values()), self.policy.keep, self.policy.score_attribute)
        log.info("%s is in %s", folder.name, self.store.uri)
        for old in to_prune:
            with self._changed:
                del self._remote[old.iteration]
            remove(self.store, old)

    def _note_failure(self, cause: Exception, wait: float) -> None:
        error = cause if isinstance(cause, StorageError) else StorageError("StorageFailed", repr(cause))
        with self._changed:
            self._active = None
            if self._error is None or self._error.reason != error.reason:
                log.warning("upload failed, and is tried again until it succeeds: %s", error)
            self._error = error.problem()
            self._changed.wait_for(lambda: False, wait)

    def _note_success(self) -> None:
        with self._changed:
            if self._error is not None:
                log.info("storage is back: %s", self.store.uri)
            self._error = None
