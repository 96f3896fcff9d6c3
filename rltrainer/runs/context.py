"""What a run and a search have in common: a folder, storage, a report to Kubernetes, and an end."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

from rltrainer.api.documents import Experiment
from rltrainer.api.experiment import Checkpoint, Storage
from rltrainer.api.status import Problem, TrainingStatus
from rltrainer.errors import Interrupted, RunError, expected
from rltrainer.reporting.status import EXPERIMENT, Reporter, Target, brief, earlier
from rltrainer.runs.folder import RunFolder
from rltrainer.runs.interrupt import Interrupt
from rltrainer.storage.checkpoint import Manifest
from rltrainer.storage.claim import Claim, NotOwnerError, OwnedStore, claimed
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import LOG, run_uri
from rltrainer.storage.restore import EXPECTED_CHECKPOINT
from rltrainer.storage.store import StorageError, Store, retry
from rltrainer.storage.sync import Uploader
from rltrainer.waiting import LOG_INTERVAL_S

log = logging.getLogger(__name__)

T = TypeVar("T")

STORAGE_PATIENCE = 30 * 60.0
"""Seconds that a run waits for the last uploads at its end."""
BRIEF_PATIENCE = 10.0
"""Seconds that a run which failed for good waits for its last uploads."""


class RunContext:
    """Where a run or a search keeps its state, what it reports, and what may interrupt it."""

    def __init__(
        self,
        folder: Path,
        uri: str | None = None,
        storage: Storage | None = None,
        interrupt: Interrupt | None = None,
        attempt: int = 0,
        expected: str | None = None,
        token: str | None = None,
        owned: Claim | None = None,
    ) -> None:
        """Take the run's own folder on disk, and `uri` in `storage`; without it nothing is uploaded.

        `expected` is a checkpoint that the run has, by what is known of it elsewhere: it must not begin anew. The
        folder in storage is claimed for this process, whose own folder `token` names, or is `owned` already.
        """
        self.folder, self.uri, self.storage = folder, uri, storage
        self.token, self.claim = token, owned
        self.interrupt = interrupt or Interrupt()
        self.report = TrainingStatus(attempt=attempt)
        self.expected = expected
        self.store: Store | None = None
        self.uploader: Uploader | None = None

    @classmethod
    def of(cls, experiment: Experiment, folder: RunFolder, interrupt: Interrupt, attempt: int) -> "RunContext":
        """Build the context of a document that is trained in `folder`."""
        uri = storage_uri(experiment, folder.uid)
        expected = os.environ.get(EXPECTED_CHECKPOINT) or None
        return cls(folder.path, uri, experiment.spec.storage, interrupt, attempt, expected, folder.token)

    def update(self, **fields: Any) -> None:
        """Change what is reported."""
        self.report = TrainingStatus.model_validate({**dict(self.report), **fields})

    def open_storage(self) -> Store | None:
        """Return the store once it answers and is this process's own; None where the document has no storage.

        Raises as `await_storage`, and RunError where another process has the run.
        """
        if self.uri is not None:
            store = open_store(self.uri, self.storage)
            self.await_storage(store.check)
            if self.claim is None and self.token is not None:
                self.claim = claimed(store, self.token, self.report.attempt, self.await_storage)
            self.store = store if self.claim is None else OwnedStore(store, self.claim)
        return self.store

    def check_owner(self) -> None:
        """Raise RunError once another process has the run's folder in storage."""
        if (lost := self._lost()) is not None:
            raise RunError(lost.reason, lost.message)

    def _lost(self) -> NotOwnerError | None:
        return self.store.lost if isinstance(self.store, OwnedStore) else None

    def release(self) -> None:
        """Say in storage that this process has ended."""
        if self.token is None or self.claim is None:
            return
        try:
            self.claim.release()
        except StorageError as error:
            log.warning("storage does not know that this process has ended: %s", error)

    def await_storage(self, action: Callable[[], T]) -> T:
        """Run `action` until storage answers, and return what it returns; say in the log and in the report what is
        waited for.

        Raises RunError where `retry` gives up, and Interrupted.
        """
        try:
            result = retry(action, self.interrupt.sleep, self._report_storage)
        except StorageError as error:
            raise RunError(error.reason, str(error), error.permanent) from error
        self.update(sync=None)
        return result

    def _report_storage(self, error: StorageError) -> None:
        self.update(sync={"pending": 0, "error": error.problem()})

    def start_uploads(self, store: Store, policy: Checkpoint, remote: Iterable[Manifest] = ()) -> Uploader:
        """Upload to `store` from now on; `remote` are the checkpoints that it has already."""
        self.uploader = Uploader(store, self.folder, policy, remote)
        return self.uploader

    def touch(self, *files: Path) -> None:
        """Upload these files of the folder soon, if there is storage."""
        if self.uploader is not None:
            self.uploader.touch(*files)

    def drain(self, wait: bool) -> bool:
        """Upload what is left, for seconds or, with `wait`, for long; return whether all is in storage.

        Where only the one who sits here can mend what is wrong, nothing is waited for.
        """
        if self.uploader is None:
            return True
        if self._lost() is not None:
            return False
        self.uploader.touch(self.folder / LOG)
        said = monotonic()
        end = said + (STORAGE_PATIENCE if wait else BRIEF_PATIENCE)
        while not (done := self.uploader.close(1.0)) and monotonic() < end:
            error = self.uploader.error
            if error is not None and error.permanent:
                break
            if monotonic() - said >= LOG_INTERVAL_S:
                said = monotonic()
                log.warning("waiting for the last uploads: %s", error or "under way")
        return done

    def not_uploaded(self) -> RunError:
        """Say that the last files did not reach storage, why, and where they are."""
        error = self.uploader.error if self.uploader else None
        return RunError(
            error.reason if error else "StorageUnreachable",
            f"the run is done, but its last files did not reach storage ({error or 'they are under way'}). "
            f"They are in {self.folder}: the same command with --resume uploads them",
        )


class Supervised(Protocol):
    """A run or a search, as `supervise` takes it to its end."""

    context: RunContext

    def status(self) -> TrainingStatus:
        """Return the report as it stands; the reporter's thread reads it."""

    def kept(self) -> str:
        """Say in words what is kept where a signal ends it; nothing where there is nothing to say."""


def supervise(subject: Supervised, work: Callable[[], str]) -> str:
    """Do `work`, which returns what ended it; report to Kubernetes, and bring all that is left to storage.

    Raises what ended it otherwise, and RunError where the last files do not reach storage, or the last report does not
    reach Kubernetes: a run whose end nobody knows of is not done.
    """
    context = subject.context
    with _reporting(subject), closing_claim(context):
        try:
            stopped_by = work()
        except RunError as error:
            if error.permanent:
                context.update(error=Problem.of(error.reason, error.message))
            log.critical("error: %s", error)
            log.debug("where it was raised", exc_info=error)
            context.drain(wait=not error.permanent)
            raise
        except Interrupted as signal:
            log.info("ended by %s", "; ".join(filter(None, (str(signal), subject.kept()))))
            context.drain(wait=True)
            raise
        except BaseException as error:
            if (failed := expected(error, context.folder)) is None:
                log.exception("error: %s", type(error).__name__)
                context.drain(wait=False)
                raise
            context.drain(wait=False)
            log.critical("error: %s", failed)
            log.debug("where it was raised", exc_info=error)
            raise failed from error
        log.info("done: %s", stopped_by)
        if not context.drain(wait=True):
            context.check_owner()
            log.critical("error: %s", context.not_uploaded())
            raise context.not_uploaded()
        context.update(stopped_by=stopped_by, progress_percentage=100, estimated_remaining_seconds=0)
        return stopped_by


@contextmanager
def closing_claim(context: RunContext) -> Iterator[None]:
    """Release the run's claim at the end of the block, however it ends."""
    try:
        yield
    finally:
        context.release()


@contextmanager
def _reporting(subject: Supervised) -> Iterator[None]:
    """Report to the resource that the operator names, if it names one, beginning with what an earlier attempt said."""
    target = Target.from_environment(*EXPERIMENT)
    if target is None:
        yield
        return
    context = subject.context
    context.report = earlier(target).model_copy(update={"attempt": context.report.attempt})
    reporter = Reporter(target, subject.status)
    try:
        yield
    except BaseException:
        reporter.close()
        raise
    if not reporter.close():
        log.critical("error: %s", missing := _not_reported(target, reporter.error))
        raise missing


def _not_reported(target: Target, error: Exception | None) -> RunError:
    """Say that nobody knows of the end of a run that is done, and why."""
    why = brief(error) if error else "no answer"
    return RunError(
        "ReportMissing",
        f"the run is done and in storage, but its last report did not reach the {target.kind} {target.name} ({why}). "
        "The next attempt finds it done, and reports it",
    )


def storage_uri(experiment: Experiment, uid: str) -> str | None:
    """Return where the run with `uid` is kept in storage, if the document has any."""
    storage = experiment.spec.storage
    return run_uri(storage.uri, experiment.metadata.model_copy(update={"uid": uid})) if storage else None
