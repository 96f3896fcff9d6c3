"""Uploads in the background: checkpoints in their order, manifest last, and the run's files now and then.

In storage a checkpoint is `checkpoint_000010/manifest.json` and `checkpoint_000010/<generation>/FILE`. One of the same
name that holds something else has another generation, so its files lie beside those of the first, and its manifest,
put last, is the switch: at any instant one of the two is whole, and no right to delete is needed. Earlier versions
wrote FILE beside the manifest, where it is still read.
"""

import logging
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from rltrainer.api.experiment import Checkpoint
from rltrainer.api.status import CheckpointRef, SyncStatus
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage.checkpoint import Manifest
from rltrainer.storage.paths import CHECKPOINTS, checkpoint_key
from rltrainer.storage.store import StorageError, Store

log = logging.getLogger(__name__)

REFUSED_MANIFEST = ckpt.REFUSED + ckpt.MANIFEST
FILES_INTERVAL_S = 10.0
"""Seconds between uploads of result.json and its like."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 15.0
"""Seconds between tries while storage is away, doubled from the one to the other."""


def remote_manifests(store: Store) -> list[Manifest]:
    """Read the manifests of the complete checkpoints in `store`, oldest first. Raises StorageError."""
    return survey(store)[0]


def survey(store: Store) -> tuple[list[Manifest], list[str]]:
    """Read the manifests in `store`, oldest first, and list the checkpoints whose manifest is broken.

    Raises StorageError.
    """
    manifests, broken, root = [], [], f"{store.uri}/{CHECKPOINTS}"
    for key in store.keys(CHECKPOINTS + "/"):
        _, name, *file = key.split("/")
        if file == [ckpt.MANIFEST]:
            try:
                manifests.append(ckpt.named(ckpt.parse_manifest(store.read(key) or b"", f"{root}/{name}"), name, root))
            except ckpt.CorruptCheckpointError as error:
                log.warning("not a checkpoint: %s", error)
                broken.append(name)
    return sorted(manifests, key=lambda manifest: manifest.iteration), broken


def remove(store: Store, manifest: Manifest) -> None:
    """Delete a checkpoint, its manifest first: a half-deleted one does not exist."""
    prefix = checkpoint_key(manifest.name) + "/"
    names = sorted(store.keys(prefix), key=lambda key: not key.endswith("/" + ckpt.MANIFEST))
    store.delete(names)


def put(store: Store, folder: Path) -> Manifest:
    """Upload a checkpoint, its manifest last. What stands under its name counts until then.

    Raises StorageError, and CorruptCheckpointError if it is not whole here.
    """
    manifest = ckpt.manifest_of(folder)
    for name, entry in manifest.files.items():
        path = ckpt.file_of(folder, manifest, name)
        if not path.is_file() or path.stat().st_size != entry.size:
            ckpt.check_file(path, entry)  # says what is wrong with it
        store.upload(path, checkpoint_key(folder.name, f"{manifest.generation}/{name}"))
    store.upload(folder / ckpt.MANIFEST, checkpoint_key(folder.name, ckpt.MANIFEST))
    return manifest


def remove_replaced(store: Store, manifest: Manifest) -> None:
    """Delete the files of what stood under a checkpoint's name before. One that was refused stays to be looked at."""
    base = checkpoint_key(manifest.name)
    keys = store.keys(base + "/")
    if f"{base}/{REFUSED_MANIFEST}" not in keys:
        current = f"{base}/{manifest.generation}/"
        store.delete([key for key in keys if not key.startswith(current) and key != f"{base}/{ckpt.MANIFEST}"])


def set_aside(store: Store, name: str) -> None:
    """Rename the manifest of a checkpoint that was refused: it is none any more, and still there to be looked at.

    Raises StorageError.
    """
    key = checkpoint_key(name, ckpt.MANIFEST)
    with tempfile.TemporaryDirectory(prefix="rltrainer-") as folder:
        copy = Path(folder, ckpt.MANIFEST)
        if not store.download(key, copy) or ckpt.of_later_version(copy.parent):
            return
        store.upload(copy, checkpoint_key(name, REFUSED_MANIFEST))
        store.delete([key])
    log.warning("the manifest of %s in %s is now %s", name, store.uri, REFUSED_MANIFEST)


def fetch(store: Store, name: str, folder: Path, prefix: str | None = None) -> None:
    """Download checkpoint `name` into `folder`, checked. Raises StorageError or CorruptCheckpointError."""
    base = checkpoint_key(name) + "/" if prefix is None else prefix
    building = folder.with_name(f".{folder.name}.part")
    ckpt.delete(building)
    try:
        _download(store, base, building)
        ckpt.verify(building)
    except ckpt.CorruptCheckpointError:
        ckpt.delete(building)
        raise
    ckpt.install(building, folder)


def _download(store: Store, base: str, folder: Path) -> None:
    """Download the manifest below `base`, then what it names and nothing else."""
    if not store.download(f"{base}{ckpt.MANIFEST}", folder / ckpt.MANIFEST):
        raise ckpt.CorruptCheckpointError(f"{store.uri}/{base}{ckpt.MANIFEST} is not there")
    manifest = ckpt.manifest_of(folder)
    for file in manifest.files:
        keys = (f"{base}{manifest.generation}/{file}", f"{base}{file}")
        if not any(store.download(key, folder / file) for key in keys):
            raise ckpt.CorruptCheckpointError(f"{store.uri}/{keys[0]} is not there")


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
        self._replaced: deque[Manifest] = deque()
        """Checkpoints that were put, and may have taken another's place."""
        self._files: set[Path] = set()
        self._error: StorageError | None = None
        self._active: Path | None = None
        self._files_active = False
        self._prune_due = False
        self._may_delete = True
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
            return SyncStatus(pending=len(self._queue), error=self._error.problem() if self._error else None)

    @property
    def error(self) -> StorageError | None:
        """Failure of the last try, if it failed."""
        with self._changed:
            return self._error

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
            return not self._queue and not self._files and not self._files_active

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
                if self._prune_due:
                    return True
                if self._closing:
                    return False
                self._changed.wait(max(0.0, self._files_due - monotonic()) if self._files else None)

    def _work(self) -> None:
        """Upload one checkpoint or the files; where nothing is to be uploaded, delete what is not worth keeping."""
        with self._changed:
            self._active = self._queue[0] if self._queue else None
            files_due = bool(self._files) and (self._closing or monotonic() >= self._files_due)
        if self._active is not None:
            self._upload_checkpoint(self._active)
        elif files_due:
            self._upload_files()
        else:
            self._prune()

    def _upload_files(self) -> None:
        with self._changed:
            files, self._files, self._files_active = self._files, set(), True
        try:
            for path in sorted(path for path in files if path.exists()):
                self.store.upload(path, path.relative_to(self.folder).as_posix())
        except Exception:
            with self._changed:
                self._files |= files
            raise
        finally:
            with self._changed:
                self._files_active = False
        self._files_due = monotonic() + FILES_INTERVAL_S

    def _upload_checkpoint(self, folder: Path) -> None:
        try:
            manifest = put(self.store, folder)
        except ckpt.CorruptCheckpointError as error:
            log.warning("not uploaded, those after it are: %s", error)
            manifest = None
            if folder.exists():
                ckpt.set_aside(folder)
        else:
            log.info("%s is in %s", folder.name, self.store.uri)
        with self._changed:
            self._queue.popleft()
            self._active = None
            if manifest is not None:
                self._remote[manifest.iteration] = manifest
                self._replaced.append(manifest)
                self._prune_due = True
            self._changed.notify_all()

    def _prune(self) -> None:
        """Delete what was replaced, and what is not worth keeping. Each is remembered until it is gone."""
        try:
            while self._replaced:
                remove_replaced(self.store, self._replaced[0])
                self._replaced.popleft()
            with self._changed:
                remote = list(self._remote.values())
            for old in ckpt.to_prune(remote, self.policy.keep, self.policy.score_attribute):
                remove(self.store, old)
                with self._changed:
                    del self._remote[old.iteration]
        except StorageError as error:
            if error.reason != "AccessDenied":
                raise
            self._replaced.clear()
            if self._may_delete:
                log.warning("old checkpoints stay in storage: %s", error)
            self._may_delete = False
        with self._changed:
            self._prune_due = False

    def _note_failure(self, cause: Exception, wait: float) -> None:
        error = cause if isinstance(cause, StorageError) else StorageError("StorageFailed", repr(cause))
        with self._changed:
            self._active = None
            if self._error is None or self._error.reason != error.reason:
                log.warning("upload failed, and is tried again until it succeeds: %s", error)
            self._error = error
            self._changed.notify_all()
            self._changed.wait_for(lambda: False, wait)

    def _note_success(self) -> None:
        with self._changed:
            if self._error is not None:
                log.info("storage is back: %s", self.store.uri)
            self._error = None
