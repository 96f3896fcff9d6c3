"""One document trained in this process, from its beginning to its end."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltrainer.api.documents import Experiment
from rltrainer.errors import RunError
from rltrainer.reporting import results
from rltrainer.reporting.frames import results_table
from rltrainer.reporting.rows import Row
from rltrainer.runs.context import RunContext, supervise
from rltrainer.runs.folder import Start, working_folder
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import Run
from rltrainer.storage.paths import LOCAL_DIR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    stopped_by: str
    row: Row = field(repr=False)
    """The last row of result.json; empty where nothing was left to do."""
    folder: Path
    checkpoint: Path | None

    @property
    def results(self) -> Any:
        """The rows of result.json as a pandas DataFrame, nested names joined by slashes. Raises RunError."""
        return results_table(self.folder)


def run(
    experiment: Experiment,
    local_dir: Path | str = LOCAL_DIR,
    attempt: int = 0,
    restore_from: str | None = None,
    overwrite: bool = False,
    interrupt: Interrupt | None = None,
    resume: bool = False,
    max_failures: int = 0,
    export_formats: Sequence[str] = (),
    numbered: bool = False,
) -> Result:
    """Train `experiment` until a stop condition holds. Its folder is `local_dir`/<name>, or with `numbered`, where that
    holds another run, `local_dir`/<name>-2 and so on.

    After up to `max_failures` failures that another attempt may mend, it goes on from the newest checkpoint. Raises
    RunError for what is wrong (NotStartedError where the folder is another's), and Interrupted after a signal, once the
    state is kept.
    """
    interrupt = interrupt or Interrupt()
    start = Start(overwrite, resume, numbered)
    with working_folder(experiment, local_dir, interrupt, start) as (folder, experiment):
        failures = 0
        while True:
            context = RunContext.of(experiment, folder, interrupt, attempt)
            try:
                result = drive(Run(experiment, context, results.on_terminal(), export_formats), restore_from)
            except RunError as error:
                failures += 1
                if error.permanent or failures > max_failures:
                    raise
                log.warning("failure %d of %d: goes on from the newest checkpoint", failures, max_failures)
            else:
                folder.mark(result.stopped_by)
                return result


def drive(run: Run, restore_from: str | None = None) -> Result:
    """Take a run from the document to its last report. Raises what ended it."""
    stopped_by = supervise(run, lambda: _iterate(run, restore_from))
    return Result(stopped_by, run.row, run.context.folder, run.checkpoints.newest)


def _iterate(run: Run, restore_from: str | None) -> str:
    try:
        run.open(restore_from)
        while run.stopped_by is None:
            run.step()
        run.end()
    finally:
        run.close()
    return run.stopped_by
