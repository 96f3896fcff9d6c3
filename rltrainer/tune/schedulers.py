"""Which trials go on: Ray Tune's schedulers, as the document asks for them, and what they make of a missing metric.

A report has no metric before the first episode has ended, or before the first evaluation. From then on each has one:
that of an evaluation counts until the next. A trial that has none yet is ranked last where it must be ranked, and is
not compared where it need not be.

A search that was cut off begins with a fresh scheduler, which is shown the results of the trials that are done.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.tune import SCHEDULERS, Tune
from rltrainer.reporting.rows import Row, flattened
from rltrainer.storage.paths import RESULTS
from rltrainer.tune.journal import Journal, TrialEntry
from rltrainer.tune.space import clamped, mutations


class LastReports:
    """The metric of each trial as it was reported last."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.values: dict[str, float] = {}

    def complete(self, trial_id: str, result: Row | None) -> Row:
        """Return `result` with the metric as the trial has reported it last, and without where it never has."""
        row = dict(result or {})
        value = metric_of(row, self.metric)
        if value is not None:
            self.values[trial_id] = value
        row.pop(self.metric, None)
        return {**row, self.metric: self.values[trial_id]} if trial_id in self.values else row


def metric_of(result: Row, metric: str) -> float | None:
    """Return a metric that a result reports; None where it reports none, or no number that can be compared."""
    value = result.get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class CompletesReports(TrialScheduler):
    """The part of a scheduler that sees each report with the last metric that there was."""

    def __init__(self, metric: str, **arguments: Any) -> None:
        super().__init__(metric=metric, **arguments)  # type: ignore[call-arg, no-untyped-call] # of the class beside it
        self.reports = LastReports(metric)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Row) -> str:
        """Decide by a report, and by the metric of an earlier one where it has none."""
        decision: str = super().on_trial_result(tune_controller, trial, self.reports.complete(trial.trial_id, result))
        return decision


class HyperBand(CompletesReports, HyperBandScheduler):
    """HyperBand. It halves whoever has come so far: a trial without a metric is the worst of them."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Row) -> str:
        """Decide by a report."""
        worst = -math.inf if self._mode == "max" else math.inf
        row = {self.reports.metric: worst, **self.reports.complete(trial.trial_id, result)}
        decision: str = HyperBandScheduler.on_trial_result(self, tune_controller, trial, row)
        return decision


class MedianStopping(CompletesReports, MedianStoppingRule):
    """The median stopping rule. A trial without a metric goes on, and is in no median."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Row) -> None:
        """Take in the last report of a trial that is done."""
        row = self.reports.complete(trial.trial_id, result)
        if self.reports.metric in row:
            super().on_trial_complete(tune_controller, trial, row)

    def show(self, trial: Any, rows: Sequence[Row]) -> None:
        """Take in the rows of a trial that was done before, without a decision on each."""
        for row in rows:
            self.on_trial_complete(None, trial, row)


class AsyncHyperBand(CompletesReports, AsyncHyperBandScheduler):
    """ASHA. A trial without a metric goes on to its last step, and is counted at the rungs that it reaches with one."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Row) -> str:
        """Decide by a report."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.STOP if result[self._time_attr] >= self._max_t else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Row) -> None:
        """Take in the last report of a trial that is done."""
        super().on_trial_complete(tune_controller, trial, self.reports.complete(trial.trial_id, result))

    def show(self, trial: Any, rows: Sequence[Row]) -> None:
        """Take in the rows of a trial that was done before."""
        controller: Any = None  # it asks nothing of it
        self.on_trial_add(controller, trial)
        for row in rows:
            self.on_trial_result(controller, trial, row)
        self.on_trial_complete(controller, trial, rows[-1] if rows else {})


class PopulationBased(CompletesReports, PopulationBasedTraining):
    """Population-based training. A trial without a metric goes on as it is, and nobody takes over from it."""


SCHEDULER_CLASSES: dict[str, type[CompletesReports]] = {
    "MedianStopping": MedianStopping,
    "AsyncHyperBand": AsyncHyperBand,
    "HyperBand": HyperBand,
    "PBT": PopulationBased,
}


class PastTrial:
    """A trial that is done, as far as a scheduler asks."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def scheduler(spec: ExperimentSpec, search: Tune, journal: Journal, folder: Path) -> TrialScheduler:
    """Make the scheduler that the document names; show it the trials that are done, if it compares others with them."""
    settings = search.scheduler
    if settings.name == "FIFO":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    arguments: dict[str, Any] = {name: getattr(settings, name) for name in SCHEDULERS[settings.name]}
    arguments |= {"metric": search.metric, "mode": search.mode}
    if settings.name == "PBT":
        arguments |= {"hyperparam_mutations": mutations(search), "require_attrs": False, "log_config": False}
        arguments["custom_explore_fn"] = lambda config: clamped(spec, search, config)
    made = SCHEDULER_CLASSES[settings.name](**{key: value for key, value in arguments.items() if value is not None})
    if isinstance(made, MedianStopping | AsyncHyperBand):
        for entry in journal.trials:
            if entry.status == "terminated":
                made.show(PastTrial(entry.name), rows_of(entry, folder))
    return made


def rows_of(entry: TrialEntry, folder: Path) -> list[Row]:
    """Return the rows of a trial, flat; none where they are not here."""
    path = folder / entry.name / RESULTS
    if not path.exists():
        return []
    rows = map(flattened, map(json.loads, path.read_text().splitlines()))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
