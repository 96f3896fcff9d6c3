"""Where options come from and which trials go on: Ray Tune's searchers and schedulers, as the document asks for them.

A search that was cut off begins with fresh ones, which are told what the journal knows: the options of every trial, and
the results of those that are done.
"""

import json
from collections import deque
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import Searcher

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.tune import SCHEDULERS, Tune
from rltrainer.errors import RunError
from rltrainer.reporting.rows import Row, flattened
from rltrainer.storage.paths import RESULTS
from rltrainer.tune.driver_only import DriverOnly
from rltrainer.tune.journal import Entry, Journal, trial_name
from rltrainer.tune.space import checked, clamped, domain, mutations, plain
from rltrainer.tune.trial import NUMBER

MAKE = {
    "MedianStopping": MedianStoppingRule,
    "AsyncHyperBand": AsyncHyperBandScheduler,
    "HyperBand": HyperBandScheduler,
    "PBT": PopulationBasedTraining,
}
REMEMBERS = ("MedianStopping", "AsyncHyperBand")
"""Schedulers that compare a trial with those that are done."""


class Past:
    """A trial that is done, as far as a scheduler asks."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def scheduler(spec: ExperimentSpec, search: Tune, journal: Journal, folder: Path) -> TrialScheduler:
    """The scheduler that the document names, which knows the trials that are done."""
    wanted = search.scheduler
    if wanted.name == "FIFO":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    given: dict[str, Any] = {name: getattr(wanted, name) for name in SCHEDULERS[wanted.name]}
    given |= {"metric": search.metric, "mode": search.mode}
    if wanted.name == "PBT":
        given |= {"hyperparam_mutations": mutations(search), "require_attrs": False, "log_config": False}
        given["custom_explore_fn"] = lambda config: clamped(spec, search, config)
    made: TrialScheduler = MAKE[wanted.name](**{name: value for name, value in given.items() if value is not None})
    for entry in journal.trials if wanted.name in REMEMBERS else ():
        _tell(made, entry, folder)
    return made


def _tell(made: TrialScheduler, entry: Entry, folder: Path) -> None:
    """Has a scheduler see the rows of a trial that is done."""
    path = folder / entry.name / RESULTS
    if entry.status != "terminated" or not path.exists():
        return
    past: Any = Past(entry.name)
    controller: Any = None  # these schedulers ask nothing of it for a trial that is not running
    row: Row = {}
    made.on_trial_add(controller, past)
    for line in path.read_text().splitlines():
        row = {name: value for name, value in flattened(json.loads(line)).items() if value is not None}
        made.on_trial_result(controller, past, row)
    made.on_trial_complete(controller, past, row)


class Suggestions(DriverOnly, Searcher):
    """A searcher whose suggestions are noted in the journal before a trial begins with them."""

    def __init__(self, spec: ExperimentSpec, search: Tune, journal: Journal, prefix: str) -> None:
        super().__init__(metric=search.metric, mode=search.mode)
        self.spec, self.journal, self.prefix, self.space = spec, journal, prefix, search.space.keys()
        known = [entry.options for entry in journal.trials if entry.options.keys() == search.space.keys()]
        self.inner = _searcher(search, known)
        self.waiting: deque[Entry] = deque()
        self.running: dict[str, Entry] = {}
        for entry in journal.trials:
            self._again(entry)

    def _again(self, entry: Entry) -> None:
        """Has the searcher suggest anew what it once did, and tells it the result of what is done; of trials in a space
        that the document no longer has, it has no use."""
        told = entry.options.keys() == self.space
        if told:
            self.inner.suggest(entry.name)
        if entry.done and told:
            result = {self.metric: entry.reward} if entry.reward is not None else None
            self.inner.on_trial_complete(entry.name, result, error=result is None)
        elif not entry.done:
            self.waiting.append(entry)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Options for a trial: of one that was cut off, or new ones."""
        if self.waiting:
            entry = self.waiting.popleft()
        else:
            name = trial_name(self.prefix, len(self.journal.trials))
            options = {key: plain(value) for key, value in (self.inner.suggest(name) or {}).items()}
            entry = self.journal.add(self.prefix, checked(self.spec, options))
        self.running[trial_id] = entry
        return {**entry.options, NUMBER: entry.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tells the searcher."""
        self.inner.on_trial_result(self.running[trial_id].name, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the searcher."""
        self.inner.on_trial_complete(self.running.pop(trial_id).name, result, error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the journal has it."""


def _searcher(search: Tune, before: list[dict[str, Any]]) -> Searcher:
    """The searcher that the document names; `before` is what it is to suggest first. Raises RunError."""
    given: dict[str, Any] = {"metric": search.metric, "mode": search.mode}
    space = {name: domain(each) for name, each in search.space.items()}
    wanted = search.search
    try:
        if wanted.name == "HyperOpt":
            from ray.tune.search.hyperopt import HyperOptSearch  # noqa: PLC0415 - imports hyperopt

            first: dict[str, Any] = {"n_initial_points": wanted.random_trials} if wanted.random_trials else {}
            return HyperOptSearch(
                space, points_to_evaluate=before or None, random_state_seed=wanted.seed, **first, **given
            )
        from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415 - imports optuna

        return OptunaSearch(space, points_to_evaluate=before or None, sampler=_sampler(search), **given)
    except (ImportError, AssertionError) as error:
        raise RunError(
            "MissingPackage",
            f"spec.tune.search {wanted.name} needs a package that is not here ({error}): install the extra `search`",
            permanent=True,
        ) from None


def _sampler(search: Tune) -> Any:
    import optuna  # noqa: PLC0415 - an extra

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first: dict[str, Any] = {"n_startup_trials": search.search.random_trials} if search.search.random_trials else {}
    return optuna.samplers.TPESampler(seed=search.search.seed, **first)


def listed(journal: Journal) -> dict[str, Any]:
    """The trials that remain of those known beforehand, as Tune's own generator of variants takes them."""
    remaining = {entry.number: entry.options for entry in journal.remaining()}
    names = dict.fromkeys(name for options in remaining.values() for name in options)

    def option(name: str) -> Any:
        return tune.sample_from(lambda config: remaining[config[NUMBER]].get(name))

    return {NUMBER: tune.grid_search(list(remaining)), **{name: option(name) for name in names}}
