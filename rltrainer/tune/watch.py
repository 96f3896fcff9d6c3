"""What becomes of the trials, recorded in the journal and in the log."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from rltrainer.api.status import CheckpointRef
from rltrainer.backend.ray.cluster import Patience
from rltrainer.errors import RunError
from rltrainer.runs.interrupt import Interrupt
from rltrainer.tune.driver_only import DriverOnly
from rltrainer.tune.journal import COUNTERS, Journal, TrialEntry
from rltrainer.tune.schedulers import metric_of
from rltrainer.tune.space import plain
from rltrainer.tune.trial import searched_options

log = logging.getLogger(__name__)

RECORD_INTERVAL_S = 5.0
"""Seconds between records of how trials come on; how they begin and end is recorded at once."""
ERROR_LINE = re.compile(r"^([\w.]+): (.+)$", re.MULTILINE)
"""The line of a traceback that names the error."""


class Watch(DriverOnly, Callback):
    """A callback that follows the trials of a search."""

    def __init__(self, journal: Journal, record: Callable[[], object], interrupt: Interrupt, expected: int) -> None:
        self.journal, self.record, self.interrupt, self.expected = journal, record, interrupt, expected
        self.last_recorded = monotonic()
        self.patience = Patience(lambda: None)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Say now and then what is waited for, while no trial runs and some cannot begin."""
        waiting = [trial for trial in trials if trial.status == TuneTrial.PENDING]
        running = any(trial.status == TuneTrial.RUNNING for trial in trials)
        self.patience.pause(
            running or not waiting, lambda: f"room for {waiting[0]}, which reserves {needs(waiting[0])}"
        )

    def _entry(self, trial: TuneTrial) -> TrialEntry:
        return self.journal.named(str(trial))

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Record that it runs, and with which options."""
        entry = self._entry(trial)
        self._take_options(entry, trial)
        if entry.status == "pending":
            entry.status = "running"
            log.info("%s begins, with %s", entry.name, entry.options)
        self.record()

    def _take_options(self, entry: TrialEntry, trial: TuneTrial) -> None:
        """Record options that a population-based search has changed."""
        options = {name: plain(value) for name, value in searched_options(trial.config).items()}
        if options != entry.options:
            log.info("%s goes on from a better trial, with %s", entry.name, options)
            entry.options = options

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record how far it has come."""
        entry = self._entry(trial)
        for name in COUNTERS:
            setattr(entry, name, result[name])
        reward = metric_of(result, self.journal.metric)
        entry.reward = entry.reward if reward is None else reward
        for name in ("checkpoint", "best_checkpoint"):
            if result.get(name):
                setattr(entry, name, CheckpointRef.model_validate(result[name]))
        entry.stopped_by = result.get("stopped_by")
        if monotonic() - self.last_recorded >= RECORD_INTERVAL_S:
            self._record_progress()

    def _record_progress(self) -> None:
        self.last_recorded = monotonic()
        counts, best = self.journal.counts(self.expected), self.journal.best()
        leader = f"; best {best.name} with {self.journal.metric} {best.reward:.2f}" if best else ""
        steps = sum(entry.timesteps_total for entry in self.journal.trials)
        log.info("%s trials done, %d running, %s steps%s", counts.done, counts.running, f"{steps:,}", leader)
        self.record()

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Record that it is done, unless it was ended because the whole search was."""
        entry = self._entry(trial)
        if entry.stopped_by is None and self.interrupt.signum is not None:
            return
        entry.status, entry.stopped_by = "terminated", entry.stopped_by or "ended by the scheduler"
        reward = f"no {self.journal.metric}" if entry.reward is None else f"{self.journal.metric} {entry.reward:.2f}"
        log.info(
            "%s is done: %s after %s steps (%s)", entry.name, reward, f"{entry.timesteps_total:,}", entry.stopped_by
        )
        self._record_progress()

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Log that it failed, and goes on."""
        log.warning("%s failed and goes on from its newest checkpoint: %s", trial, reason(trial))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Record that it is given up."""
        entry = self._entry(trial)
        entry.status, entry.stopped_by = "failed", reason(trial)
        log.error("%s is given up: %s", entry.name, entry.stopped_by)
        self._record_progress()


def needs(trial: TuneTrial) -> str:
    """Return what a trial reserves, in words."""
    factory: Any = trial.placement_group_factory
    required: dict[str, float] = factory.required_resources
    return " and ".join(f"{amount:g} {name}s" for name, amount in required.items())


FAILURE = re.compile(r"^Failure # \d+ .*$", re.MULTILINE)
"""What Tune puts above each failure of a trial."""
LONGEST = 300
"""Characters of a reason that are kept of what Ray says of a lost process."""


def reason(trial: TuneTrial) -> str:
    """Return why a trial failed last, in a line."""
    try:
        text = FAILURE.split(Path(trial.error_file or "").read_text())[-1].strip()
    except OSError:
        return "no reason is known"
    if text.startswith("The actor"):  # what follows, indented, are Ray's own numbers of it
        words = " ".join(line for line in text.splitlines() if not line.startswith("\t"))
        return f"its process was lost: {words}"[:LONGEST]
    kind, message = (ERROR_LINE.findall(text) or [("", text.strip().partition("\n")[0])])[-1]
    name = kind.rpartition(".")[2]
    return message if name == RunError.__name__ else f"{name}: {message}".removeprefix(": ")
