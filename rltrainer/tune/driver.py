"""A search from its document to its best trial."""

import itertools
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from rltrainer.api.documents import Experiment
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OptionError, Options, parse_options
from rltrainer.api.status import TrainingStatus
from rltrainer.api.tune import ENV_CONFIG, Tune, algorithm_options
from rltrainer.backend.ray.cluster import Bundle, connect, disconnect, joined, refuse, reserved, shortage
from rltrainer.errors import RunError
from rltrainer.machine import allowed_cpus
from rltrainer.reporting.status import EXPERIMENT, Target
from rltrainer.runs.build import worker_config
from rltrainer.runs.context import RunContext, supervise
from rltrainer.runs.folder import Start, working_folder
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.params import write_params
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import CHECKPOINTS, LOG, PARAMS, RESULTS, SEARCH
from rltrainer.storage.restore import fetch_missing, lost
from rltrainer.storage.store import Store
from rltrainer.tune.driver_only import DriverOnly
from rltrainer.tune.journal import Journal, TrialEntry, read, trial_name
from rltrainer.tune.schedulers import scheduler
from rltrainer.tune.search import Suggestions, listed
from rltrainer.tune.space import checked, draw, trial_count, trial_spec
from rltrainer.tune.trial import NUMBER, Plan, Trial, searched_options
from rltrainer.tune.watch import Watch

log = logging.getLogger(__name__)

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial writes its own results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # interrupt.py has one, for SIGTERM too
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # no episode may have ended yet
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the journal is what a search goes on from
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
"""What Ray Tune would copy from the driver into the description of each actor, for all who may look at the cluster to
see. In Kubernetes, workers have them from the Secret."""

STOPPED_BY = "all trials are done"


@dataclass(frozen=True)
class SearchResult:
    """How a search ended."""

    journal: Journal
    folder: Path
    best: TrialEntry | None


def run(
    experiment: Experiment,
    local_dir: Path | str,
    attempt: int = 0,
    restore_from: str | None = None,
    overwrite: bool = False,
    interrupt: Interrupt | None = None,
    resume: bool = False,
    export_formats: Sequence[str] = (),
    numbered: bool = False,
) -> SearchResult:
    """Train the trials of `experiment`; each in a folder below `local_dir`/<name>, numbered as a run's.

    Raises RunError for what is wrong, also where every trial has failed, and Interrupted after a signal.
    """
    interrupt = interrupt or Interrupt()
    start = Start(overwrite, resume, numbered)
    with working_folder(experiment, local_dir, interrupt, start) as (folder, experiment):
        absolute = replace(folder, path=folder.path.resolve())  # trials have other working directories
        context = RunContext.of(experiment, absolute, interrupt, attempt)
        plan = Plan(experiment, context.folder, context.uri, restore_from, tuple(export_formats))
        search = SearchDriver(plan, context)
        folder.mark(supervise(search, search.run))
        return SearchResult(search.journal, context.folder, search.journal.best())


class SearchDriver:
    """One attempt at a search."""

    def __init__(self, plan: Plan, context: RunContext) -> None:
        assert plan.experiment.spec.tune is not None  # noqa: S101 - for the type checker
        self.plan, self.context = plan, context
        self.spec, self.search = plan.experiment.spec, plan.experiment.spec.tune
        self.journal = Journal(metric=self.search.metric, mode=self.search.mode)
        self.expected = trial_count(self.search)

    def run(self) -> str:
        """Take the search from the document to its last trial; return what ended it. Raises what ended it otherwise."""
        first = {name: each.examples()[0] for name, each in self.search.space.items() if name.startswith(ENV_CONFIG)}
        worker_config(trial_spec(self.spec, first))  # raises for what would be wrong with every trial
        self._open()
        self._search()
        self._end()
        return STOPPED_BY

    def status(self) -> TrainingStatus:
        """Return the report as it stands; the reporter's thread reads it."""
        return self.context.report

    def kept(self) -> str:
        """Say what a search that is interrupted goes on from."""
        return "the trials' states are kept"

    def _open(self) -> None:
        """Take up the journal of an earlier attempt, or begin one."""
        context = self.context
        if (store := context.open_storage()) is not None:
            context.await_storage(lambda: self._fetch(store))
            context.start_uploads(store, self.spec.checkpoint)
            self.plan = replace(self.plan, claim=context.claim)
        if (earlier := read(context.folder / SEARCH)) is not None:
            self.journal = earlier
            self.journal.limit(self.expected)
            log.info("resumed: %s trials are done", earlier.counts(self.expected).done)
            checkpoints = {entry.name: entry.checkpoint.uri for entry in earlier.remaining() if entry.checkpoint}
            self.plan = replace(self.plan, expected=checkpoints)
        elif context.expected is not None:
            raise lost(f"{context.expected} is the journal of this search, and is not there")
        options = self.spec.options()
        name = self.plan.experiment.metadata.name
        write_params(context.folder, self.spec, name, options, options.seed, len(self.journal.trials))
        if self.search.search.name == "Random":
            self._draw()
        self._record(at_once=True)

    def _fetch(self, store: Store) -> None:
        """Fetch the journal, params.json, and for schedulers the rows of trials that are done. Raises StorageError."""
        folder = self.context.folder
        fetch_missing(store, folder, SEARCH, PARAMS)
        earlier = read(folder / SEARCH)
        for entry in earlier.trials if earlier else ():
            if entry.done and not (folder / entry.name / RESULTS).exists():
                (folder / entry.name).mkdir(exist_ok=True)
                store.download(f"{entry.name}/{RESULTS}", folder / entry.name / RESULTS)

    def _draw(self) -> None:
        """Draw options for every trial that has not begun: the document may have changed since the journal began."""
        journal = self.journal
        try:
            for number, options in enumerate(draw(self.search)):
                entry = journal.numbered(number) or journal.add(self.prefix, {}, number)
                if entry.status == "pending":
                    entry.options = checked(self.spec, options)
        except OptionError as error:
            raise RunError("InvalidOption", str(error), permanent=True) from None

    @property
    def prefix(self) -> str:
        """Return what the names of the trials begin with."""
        plain = "".join(c if c.isalnum() or c in "-." else "_" for c in self.spec.env.rpartition(":")[2])
        return f"{self.spec.run.rpartition(':')[2]}_{plain}"[:200]

    def _search(self) -> None:
        done = sum(entry.done for entry in self.journal.trials)
        remaining = max(self.expected - done, len(self.journal.remaining()))
        if not remaining:
            return
        os.environ.update(SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # watch.py logs how trials come on
        if limit := self.search.max_concurrent_trials:
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(limit)
        if Target.from_environment(*EXPERIMENT) is not None:
            class_cache.ENV_VARS_TO_PROPAGATE -= SECRETS
        started_ray = connect([], cpus=allowed_cpus())
        self.context.interrupt.install()
        try:
            self._find_room(fixed=started_ray and not joined())
            with tempfile.TemporaryDirectory() as scratch:
                self._tuner(remaining, scratch).fit()
        finally:
            if started_ray:
                disconnect()
        self.context.interrupt.stop_here()

    def _find_room(self, fixed: bool) -> None:
        """Look for room for each kind of trial; where there is none, say so. Raises RunError, permanent, where there
        never will be, for the nodes are `fixed`: where this search has started them."""
        for needed in reservations(self.spec, self.search, self.journal):
            if fixed:
                refuse(needed, "a trial")
            elif (missing := shortage(needed)) is not None:
                log.warning("waiting for a larger cluster: a trial reserves %s", missing)

    def _tuner(self, remaining: int, scratch: str) -> tune.Tuner:
        random = self.search.search.name == "Random"
        searcher = None if random else Suggestions(self.spec, self.search, self.journal, self.prefix)
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(Trial, plan=self.plan), partial(resources, self.spec)),
            param_space=listed(self.journal) if random else None,
            tune_config=tune.TuneConfig(
                num_samples=1 if random else remaining,
                search_alg=searcher,
                scheduler=scheduler(self.spec, self.search, self.journal, self.context.folder),
                max_concurrent_trials=self.search.max_concurrent_trials,
                reuse_actors=True,
                trial_name_creator=partial(name_of, self.prefix),
                trial_dirname_creator=partial(name_of, self.prefix),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[Watch(self.journal, self._record, self.context.interrupt, self.expected)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial writes its own
                failure_config=tune.FailureConfig(max_failures=self.search.max_failures),
                stop=StopAll(self.context.interrupt),
            ),
        )

    def _record(self, at_once: bool = False) -> None:
        """Write the journal and report it; `at_once` waits until storage has it."""
        context, store = self.context, self.context.store
        path = self.journal.write(context.folder)
        if at_once and store is not None:
            context.await_storage(lambda: store.upload(path, SEARCH))
        context.touch(path, context.folder / PARAMS, context.folder / LOG)
        trials, best = self.journal.trials, self.journal.best()
        context.update(
            iteration=sum(entry.training_iteration for entry in trials),
            timesteps_total=sum(entry.timesteps_total for entry in trials),
            episodes_total=sum(entry.episodes_total for entry in trials),
            time_total_s=round(sum(entry.time_total_s for entry in trials), 3),
            trials=self.journal.counts(self.expected),
            best=self.journal.best_trial(),
            progress_percentage=min(100 * sum(entry.done for entry in trials) // self.expected, 100),
            **(report_of(best) if best is not None else {}),
        )

    def _end(self) -> None:
        """Record how the search ended. Raises RunError where every trial has failed."""
        self._update_best_references()
        self._record(at_once=True)
        failed = [entry for entry in self.journal.trials if entry.status == "failed"]
        if failed and len(failed) == len(self.journal.trials):
            raise RunError("AllTrialsFailed", f"every trial failed, the last with: {failed[-1].stopped_by}", True)
        if (best := self.journal.best()) is None:
            log.warning(
                "no trial is the best: none has reported %s. Trials that run longer report it", self.search.metric
            )
        else:
            log.info("best: %s, %s %g, with %s", best.name, self.search.metric, best.reward, best.options)

    def _update_best_references(self) -> None:
        """Take the best trial's checkpoints as they are now: one that a scheduler ended wrote its last after that."""
        if (best := self.journal.best()) is None:
            return
        folder = self.context.folder / best.name
        place, manifests = str(folder), ckpt.manifests_in(folder / CHECKPOINTS)
        if self.plan.uri is not None:
            store = open_store(f"{self.plan.uri}/{best.name}", self.spec.storage)
            manifests = self.context.await_storage(lambda: sync.remote_manifests(store))
            place = store.uri
        if manifests:
            references = sync.references(place, manifests, self.spec.checkpoint.score_attribute)
            best.checkpoint, best.best_checkpoint = references["checkpoint"], references["best_checkpoint"]


class StopAll(DriverOnly, tune.Stopper):
    """A stopper of all trials at once, when the search is asked to end."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether this trial is to end: by itself, none."""
        return False

    def stop_all(self) -> bool:
        """Return whether the search was asked to end."""
        return self.interrupt.signum is not None


def name_of(prefix: str, trial: Any) -> str:
    """Return the name of a trial that Tune has made."""
    return trial_name(prefix, trial.config[NUMBER])


def resources(spec: ExperimentSpec, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return what a trial with this config of Tune's reserves."""
    options = parse_options(spec.run, {**spec.config, **algorithm_options(searched_options(config))})
    return tune.PlacementGroupFactory(bundles(spec.tune or Tune(), options))


def bundles(search: Tune, options: Options) -> list[Bundle]:
    """Return what a trial reserves: the CPUs of the process that drives it, then of each learner and each worker."""
    own = search.resources_per_trial
    uses_ray = options.num_workers or options.num_learners or options.num_gpus
    return [{"CPU": own.cpu or 1.0}, *(reserved(options, own.gpu or 1.0) if uses_ray else [])]


RESERVING = ("num_workers", "num_cpus_per_worker", "num_learners", "num_gpus")
"""Options that say what a trial reserves."""


def reservations(spec: ExperimentSpec, search: Tune, journal: Journal) -> list[list[Bundle]]:
    """Return what the trials to come reserve, each kind once: of those that the journal knows, and where the others are
    yet to be suggested, of the least and the most that these can ask for."""
    choices = [entry.options for entry in journal.remaining()]
    if search.search.name != "Random":
        domains = {name: search.space[name].examples() for name in RESERVING if name in search.space}
        choices += [dict(zip(domains, values, strict=True)) for values in itertools.product(*domains.values())]
    found: list[list[Bundle]] = []
    for options in choices:
        try:
            needed = bundles(search, parse_options(spec.run, {**spec.config, **algorithm_options(options)}))
        except OptionError:  # these do not go together: no trial has them
            continue
        found += [needed] if needed not in found else []
    return found


def report_of(best: TrialEntry) -> dict[str, Any]:
    """Return what the report of the whole search takes over from the best trial."""
    return {
        "episode_reward_mean": best.reward,
        "best_reward": best.reward,
        "reward": None if best.reward is None else f"{best.reward:.1f}",
        "checkpoint": best.checkpoint,
        "best_checkpoint": best.best_checkpoint,
    }
