"""Trains one document in this process, and reports how it goes."""

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from rltrainer.api.documents import Experiment
from rltrainer.api.status import Problem
from rltrainer.errors import Interrupted, RunError
from rltrainer.reporting import results
from rltrainer.reporting.rows import Row
from rltrainer.reporting.status import EXPERIMENT, Reporter, Target, earlier
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import Run
from rltrainer.storage.paths import run_uri

log = logging.getLogger(__name__)

LOCAL = Path("~/rltrainer_results")
MARK = "run.json"
"""What tells a run's folder from another's: its uid, and how it ended."""


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    stopped_by: str
    row: Row
    """The last row of result.json; empty where nothing was left to do."""
    folder: Path
    checkpoint: Path | None


def run(
    experiment: Experiment,
    local_dir: Path | str = LOCAL,
    attempt: int = 0,
    restore_from: str | None = None,
    overwrite: bool = False,
    interrupt: Interrupt | None = None,
    resume: bool = False,
    max_failures: int = 0,
    export_formats: Sequence[str] = (),
) -> Result:
    """Trains `experiment` until a stop condition holds. Its folder is `local_dir`/<name>. After up to `max_failures`
    failures that another attempt may mend, it goes on from the newest checkpoint.

    Raises RunError for what is wrong, and Interrupted after a signal, once the state is kept.
    """
    folder, uid = claim_folder(local_dir, experiment, overwrite, resume)
    terminal = results.on_terminal()
    handlers = results.log_to(folder, terminal)
    interrupt = interrupt or Interrupt()
    try:
        with interrupt.installed():
            for failure in count(1):
                under_way = Run(experiment, folder, storage_uri(experiment, uid), interrupt, terminal, attempt)
                under_way.export_formats = export_formats
                try:
                    result = drive(under_way, restore_from)
                except RunError as error:
                    if error.permanent or failure > max_failures:
                        raise
                    log.warning("failure %d of %d: goes on from the newest checkpoint", failure, max_failures)
                else:
                    mark(folder, uid, result.stopped_by)
                    return result
            raise AssertionError("never reached")
    finally:
        results.stop_logging(handlers)


def claim_folder(
    local_dir: Path | str, experiment: Experiment, overwrite: bool = False, resume: bool = False
) -> tuple[Path, str]:
    """The run's folder and uid. An unfinished run in it goes on, with `resume` a finished one too; any other moves
    aside. Raises RunError, permanent, where there is nothing to resume."""
    folder = Path(local_dir).expanduser() / experiment.metadata.name
    given = experiment.metadata.uid
    try:
        found = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        found = {}
    if resume and not found:
        raise RunError("NothingToResume", f"there is no run in {folder} to resume", permanent=True)
    in_the_way = overwrite or not found or (given is not None and found.get("uid") != given)
    finished = given is None and found.get("stopped_by") and not resume
    if folder.exists() and any(folder.iterdir()) and (in_the_way or finished):
        folder.rename(folder.with_name(f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S.%f}"))
        found = {}
    uid = given or found.get("uid") or secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    mark(folder, uid)
    return folder, uid


def mark(folder: Path, uid: str, stopped_by: str | None = None) -> None:
    """Notes whose folder it is, and how the run in it ended."""
    (folder / MARK).write_text(json.dumps({"uid": uid} | ({"stopped_by": stopped_by} if stopped_by else {})))


def storage_uri(experiment: Experiment, uid: str) -> str | None:
    """Where the run is kept in storage, if the document has any."""
    storage = experiment.spec.storage
    return run_uri(storage.uri, experiment.metadata.model_copy(update={"uid": uid})) if storage else None


def drive(run: Run, restore_from: str | None = None) -> Result:
    """From the document to the last report. Raises what ended it."""
    target = Target.from_environment(*EXPERIMENT)
    reporter = None
    if target is not None:
        run.report = earlier(target).model_copy(update={"attempt": run.report.attempt})
        reporter = Reporter(target, run.status)
    try:
        return _to_its_end(run, restore_from)
    finally:
        if reporter is not None:
            reporter.close()


def _to_its_end(run: Run, restore_from: str | None) -> Result:
    try:
        try:
            run.open(restore_from)
            while run.stopped_by is None:
                run.step()
            run.end()
        finally:
            run.close()
    except RunError as error:
        if error.permanent:
            run.update(error=Problem(reason=error.reason, message=error.message[:4096]))
        log.critical("error: %s", error)
        run.drain(wait=not error.permanent)
        raise
    except Interrupted as signal:
        log.info("ended by %s%s", signal, f"; {run.newest.name} is the newest" if run.newest else "")
        run.drain(wait=True)
        raise
    except BaseException as error:
        log.exception("error: %s", type(error).__name__)
        run.drain(wait=False)
        raise
    log.info("done: %s", run.stopped_by)
    if not run.drain(wait=True):
        lost = RunError("StorageUnreachable", "the run is done, but its last files did not reach storage")
        log.critical("error: %s", lost)
        raise lost
    run.update(stopped_by=run.stopped_by)
    return Result(str(run.stopped_by), run.row, run.folder, run.newest)
