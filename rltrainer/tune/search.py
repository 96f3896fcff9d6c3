"""Where options come from: Ray Tune's searchers, as the document asks for them.

A search that was cut off begins with a fresh one, which is shown what the journal knows: the options of every trial,
and the results of those that are done.
"""

from collections import deque
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.tune import Tune
from rltrainer.errors import RunError
from rltrainer.tune.driver_only import DriverOnly
from rltrainer.tune.journal import Journal, TrialEntry, trial_name
from rltrainer.tune.schedulers import LastReports
from rltrainer.tune.space import checked, plain, tune_domain
from rltrainer.tune.trial import ABSENT, NUMBER


class Suggestions(DriverOnly, Searcher):
    """A searcher whose suggestions are in the journal before a trial begins with them."""

    def __init__(self, spec: ExperimentSpec, search: Tune, journal: Journal, prefix: str) -> None:
        super().__init__(metric=search.metric, mode=search.mode)
        self.spec, self.journal, self.prefix, self.space = spec, journal, prefix, search.space.keys()
        known = [entry.options for entry in journal.trials if entry.options.keys() == search.space.keys()]
        self.inner = _searcher(search, known)
        self.reports = LastReports(search.metric)
        self.waiting: deque[TrialEntry] = deque()
        self.running: dict[str, TrialEntry] = {}
        for entry in journal.trials:
            self._repeat(entry)

    def _repeat(self, entry: TrialEntry) -> None:
        """Have the searcher suggest again what it once did, and show it the result of a trial that is done.

        It has no use for trials in a space that the document no longer has.
        """
        same_space = entry.options.keys() == self.space
        if same_space:
            self.inner.suggest(entry.name)
        if entry.done and same_space:
            self._complete(entry.name, {self.metric: entry.reward})
        elif not entry.done:
            self.waiting.append(entry)

    def _complete(self, name: str, result: dict[str, Any] | None, error: bool = False) -> None:
        """Tell the searcher that a trial is done; of one that never reported the metric, that it came to nothing."""
        row = self.reports.complete(name, result)
        if error or self.metric not in row:
            self.inner.on_trial_complete(name, None, error=True)
        else:
            self.inner.on_trial_complete(name, row)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return options for a trial: of one that was cut off, or new ones."""
        if self.waiting:
            entry = self.waiting.popleft()
        else:
            name = trial_name(self.prefix, self.journal.next_number())
            options = {key: plain(value) for key, value in (self.inner.suggest(name) or {}).items()}
            entry = self.journal.add(self.prefix, checked(self.spec, options))
        self.running[trial_id] = entry
        return {**entry.options, NUMBER: entry.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass it on to the searcher, under the trial's own name, once there is anything to compare."""
        name = self.running[trial_id].name
        row = self.reports.complete(name, result)
        if self.metric in row:
            self.inner.on_trial_result(name, row)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass it on to the searcher, under the trial's own name."""
        self._complete(self.running.pop(trial_id).name, result, error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the journal has it."""


def _searcher(search: Tune, first: list[dict[str, Any]]) -> Searcher:
    """Make the searcher that the document names; `first` is what it is to suggest first. Raises RunError."""
    metric: dict[str, Any] = {"metric": search.metric, "mode": search.mode}
    space = {name: tune_domain(domain) for name, domain in search.space.items()}
    settings = search.search
    try:
        if settings.name == "HyperOpt":
            from ray.tune.search.hyperopt import HyperOptSearch  # noqa: PLC0415 - imports hyperopt

            initial: dict[str, Any] = {"n_initial_points": settings.random_trials} if settings.random_trials else {}
            return HyperOptSearch(
                space, points_to_evaluate=first or None, random_state_seed=settings.seed, **initial, **metric
            )
        from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415 - imports optuna

        return OptunaSearch(space, points_to_evaluate=first or None, sampler=_sampler(search), **metric)
    except (ImportError, AssertionError) as error:
        raise RunError(
            "MissingPackage",
            f"spec.tune.search {settings.name} needs a package that is not here ({error}): install the extra `search`",
            permanent=True,
        ) from None


def _sampler(search: Tune) -> Any:
    import optuna  # noqa: PLC0415 - an extra

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    initial: dict[str, Any] = {"n_startup_trials": search.search.random_trials} if search.search.random_trials else {}
    return optuna.samplers.TPESampler(seed=search.search.seed, **initial)


def listed(journal: Journal) -> dict[str, Any]:
    """Return the trials that remain of those known beforehand, as Tune's own generator of variants takes them."""
    remaining = {entry.number: entry.options for entry in journal.remaining()}
    names = dict.fromkeys(name for options in remaining.values() for name in options)

    def option(name: str) -> Any:
        return tune.sample_from(lambda config: remaining[config[NUMBER]].get(name, ABSENT))

    return {NUMBER: tune.grid_search(list(remaining)), **{name: option(name) for name in names}}
