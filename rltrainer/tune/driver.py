"""A search from its document to its best trial."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from rltrainer import algorithms
from rltrainer.api.documents import Experiment
from rltrainer.api.experiment import Checkpoint, ExperimentSpec
from rltrainer.api.options import OptionError, Options, parse_options
from rltrainer.api.status import Problem, TrainingStatus
from rltrainer.api.tune import Tune
from rltrainer.backend.ray.cluster import connect, disconnect
from rltrainer.envs.source import EnvSource
from rltrainer.errors import Interrupted, RunError
from rltrainer.reporting import results
from rltrainer.reporting.status import EXPERIMENT, Reporter, Target, earlier
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import STORAGE_PATIENCE, check_trainable, own_options
from rltrainer.runs.train import claim_folder, mark, storage_uri
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.paths import CHECKPOINTS, LOG, RESULTS, SEARCH
from rltrainer.storage.store import Store, open_store, retry
from rltrainer.storage.sync import Uploader
from rltrainer.tune.driver_only import DriverOnly
from rltrainer.tune.journal import Entry, Journal, read, trial_name
from rltrainer.tune.search import Suggestions, listed, scheduler
from rltrainer.tune.space import checked, draw, trial_count
from rltrainer.tune.trial import NUMBER, Plan, Trial, chosen
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


@dataclass(frozen=True)
class Found:
    """How a search ended."""

    journal: Journal
    folder: Path
    best: Entry | None


def run(
    experiment: Experiment,
    local_dir: Path | str,
    attempt: int = 0,
    restore_from: str | None = None,
    overwrite: bool = False,
    interrupt: Interrupt | None = None,
    resume: bool = False,
    export_formats: Sequence[str] = (),
) -> Found:
    """Trains the trials of `experiment`; each in a folder below `local_dir`/<name>.

    Raises RunError for what is wrong, also where every trial has failed, and Interrupted after a signal.
    """
    folder, uid = claim_folder(local_dir, experiment, overwrite, resume)
    handlers = results.log_to(folder, results.on_terminal())
    interrupt = interrupt or Interrupt()
    try:
        with interrupt.installed():
            plan = Plan(experiment, folder.resolve(), storage_uri(experiment, uid), restore_from, tuple(export_formats))
            found = Search(plan, interrupt, attempt).go()
            mark(folder, uid, "all trials are done")
            return found
    finally:
        results.stop_logging(handlers)


class Search:
    """One attempt at a search."""

    def __init__(self, plan: Plan, interrupt: Interrupt, attempt: int) -> None:
        assert plan.experiment.spec.tune is not None  # noqa: S101 - for the type checker
        self.plan, self.interrupt = plan, interrupt
        self.spec, self.search = plan.experiment.spec, plan.experiment.spec.tune
        self.report = TrainingStatus(attempt=attempt)
        self.store: Store | None = None
        self.uploader: Uploader | None = None
        self.journal = Journal(metric=self.search.metric, mode=self.search.mode)
        self.expected = trial_count(self.search)
        self.reporter: Reporter | None = None
        if (target := Target.from_environment(*EXPERIMENT)) is not None:
            self.report = earlier(target).model_copy(update={"attempt": attempt})
            self.reporter = Reporter(target, self.status)

    def go(self) -> Found:
        """From the document to the last report. Raises what ended it."""
        try:
            self._check()
            self._open()
            self._search()
            self._end()
        except RunError as error:
            if error.permanent:
                self._update(error=Problem(reason=error.reason, message=error.message[:4096]))
            log.critical("error: %s", error)
            raise
        except Interrupted as signal:
            log.info("ended by %s; the trials' states are kept", signal)
            raise
        finally:
            if self.uploader is not None:
                self.uploader.close(10.0)
            if self.reporter is not None:
                self.reporter.close()
        return Found(self.journal, self.plan.folder, self.journal.best())

    def _check(self) -> None:
        """Raises RunError, permanent, for what would be wrong with every trial."""
        algorithm = algorithms.load(self.spec.run)
        options = own_options(algorithm, self.spec)
        check_trainable(algorithm, EnvSource(self.spec.env, self.spec.env_config).spaces(), options)

    def _open(self) -> None:
        """The journal of an earlier attempt, or a new one."""
        if self.plan.uri is not None:
            self.store = store = open_store(self.plan.uri, self.spec.storage)
            retry(lambda: self._fetch(store), STORAGE_PATIENCE, self.interrupt.sleep, self._storage_failed)
            self._update(sync=None)
            self.uploader = Uploader(store, self.plan.folder, Checkpoint())
        if (before := read(self.plan.folder / SEARCH)) is not None:
            self.journal = before
            done = len(before.trials) - len(before.remaining())
            log.info("resumed: %d of %d trials are done", done, self.expected)
        if self.search.search.name == "Random":
            self._draw()
        self._note(at_once=True)

    def _draw(self) -> None:
        """Options for every trial that has not begun: the document may say others than when the journal was begun."""
        journal = self.journal
        try:
            for number, options in enumerate(draw(self.search)):
                if number == len(journal.trials):
                    journal.add(self.prefix, {})
                if journal.trials[number].status == "pending":
                    journal.trials[number].options = checked(self.spec, options)
        except OptionError as error:
            raise RunError("InvalidOption", str(error), permanent=True) from None
        journal.trials = [each for each in journal.trials if each.number < self.expected or each.status != "pending"]

    def _fetch(self, store: Store) -> None:
        """Brings the journal, and for schedulers the rows of trials that are done. Raises StorageError."""
        store.check()
        folder = self.plan.folder
        if not (folder / SEARCH).exists():
            store.download(SEARCH, folder / SEARCH)
        before = read(folder / SEARCH)
        for entry in before.trials if before else ():
            if entry.done and not (folder / entry.name / RESULTS).exists():
                (folder / entry.name).mkdir(exist_ok=True)
                store.download(f"{entry.name}/{RESULTS}", folder / entry.name / RESULTS)

    def _storage_failed(self, error: Any) -> None:
        self._update(sync={"pending": 0, "error": error.problem()})

    @property
    def prefix(self) -> str:
        """What the names of the trials begin with."""
        plain = "".join(c if c.isalnum() or c in "-." else "_" for c in self.spec.env.rpartition(":")[2])
        return f"{self.spec.run.rpartition(':')[2]}_{plain}"[:200]

    def _search(self) -> None:
        done = sum(entry.done for entry in self.journal.trials)
        remaining = max(self.expected - done, len(self.journal.remaining()))
        if not remaining:
            return
        os.environ.update(SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # watch.py says how trials come on
        if limit := self.search.max_concurrent_trials:
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(limit)
        if Target.from_environment(*EXPERIMENT) is not None:
            class_cache.ENV_VARS_TO_PROPAGATE -= SECRETS
        began = connect(os.cpu_count() or 1, 0)
        self.interrupt.install()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._tuner(remaining, scratch).fit()
        finally:
            if began:
                disconnect()
        self.interrupt.stop_here()

    def _tuner(self, remaining: int, scratch: str) -> tune.Tuner:
        random = self.search.search.name == "Random"
        searcher = None if random else Suggestions(self.spec, self.search, self.journal, self.prefix)
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(Trial, plan=self.plan), partial(resources, self.spec)),
            param_space=listed(self.journal) if random else None,
            tune_config=tune.TuneConfig(
                num_samples=1 if random else remaining,
                search_alg=searcher,
                scheduler=scheduler(self.spec, self.search, self.journal, self.plan.folder),
                max_concurrent_trials=self.search.max_concurrent_trials,
                reuse_actors=True,
                trial_name_creator=partial(named, self.prefix),
                trial_dirname_creator=partial(named, self.prefix),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[Watch(self.journal, self._note, self.interrupt, self.expected)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial writes its own
                failure_config=tune.FailureConfig(max_failures=self.search.max_failures),
                stop=Ended(self.interrupt),
            ),
        )

    def _note(self, at_once: bool = False) -> None:
        """Writes the journal and passes it on; `at_once` waits until storage has it."""
        path = self.journal.write(self.plan.folder)
        if self.store is not None and self.uploader is not None:
            store = self.store
            if at_once:
                retry(lambda: store.upload(path, SEARCH), STORAGE_PATIENCE, self.interrupt.sleep, self._storage_failed)
            self.uploader.touch(path, self.plan.folder / LOG)
        trials, best = self.journal.trials, self.journal.best()
        self._update(
            iteration=sum(entry.training_iteration for entry in trials),
            timesteps_total=sum(entry.timesteps_total for entry in trials),
            episodes_total=sum(entry.episodes_total for entry in trials),
            time_total_s=round(sum(entry.time_total_s for entry in trials), 3),
            trials=self.journal.counts(self.expected),
            best=self.journal.best_trial(),
            **(_judged(best) if best is not None else {}),
        )

    def _end(self) -> None:
        """What is true of a search that is over. Raises RunError where it found nothing."""
        self._newest_references()
        self._note(at_once=True)
        failed = [entry for entry in self.journal.trials if entry.status == "failed"]
        if failed and len(failed) == len(self.journal.trials):
            raise RunError("AllTrialsFailed", f"every trial failed, the last with: {failed[-1].stopped_by}", True)
        self._update(stopped_by="all trials are done")
        if (best := self.journal.best()) is not None:
            log.info("best: %s, %s %g, with %s", best.name, self.search.metric, best.reward, best.options)

    def _newest_references(self) -> None:
        """The best trial's checkpoints as they are now: one that a scheduler ended wrote its last after that."""
        if (best := self.journal.best()) is None:
            return
        folder = self.plan.folder / best.name
        place, manifests = str(folder), ckpt.found(folder / CHECKPOINTS)
        if self.plan.uri is not None:
            store = open_store(f"{self.plan.uri}/{best.name}", self.spec.storage)
            place, manifests = store.uri, sync.remote_manifests(store)
        if manifests:
            ranked = ckpt.best(manifests, self.spec.checkpoint.score_attribute) or manifests[-1]
            best.checkpoint, best.best_checkpoint = (sync.reference(place, each) for each in (manifests[-1], ranked))

    def _update(self, **fields: Any) -> None:
        self.report = TrainingStatus.model_validate({**dict(self.report), **fields})

    def status(self) -> TrainingStatus:
        """The report as it stands; read by the reporter's thread."""
        return self.report


class Ended(DriverOnly, tune.Stopper):
    """Ends all trials once the search was asked to end."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial is to end: by itself, none."""
        return False

    def stop_all(self) -> bool:
        """Whether the search was asked to end."""
        return self.interrupt.signum is not None


def named(prefix: str, trial: Any) -> str:
    """The name of a trial that Tune has made."""
    return trial_name(prefix, trial.config[NUMBER])


def resources(spec: ExperimentSpec, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial with this config of Tune's reserves."""
    options = parse_options(spec.run, {**spec.config, **chosen(config)})
    return tune.PlacementGroupFactory(bundles(spec.tune or Tune(), options))


def bundles(search: Tune, options: Options) -> list[dict[str, float]]:
    """What a trial reserves: the CPUs of the process that drives it, then of each learner and of each worker."""
    wanted = search.resources_per_trial
    learners = max(options.num_learners, options.num_gpus)
    gpu = {"GPU": wanted.gpu or 1.0} if options.num_gpus else {}
    return [
        {"CPU": wanted.cpu or 1.0},
        *[{"CPU": 1.0, **gpu}] * learners,
        *[{"CPU": options.num_cpus_per_worker}] * (max(1, options.num_workers) if learners else options.num_workers),
    ]


def _judged(best: Entry) -> dict[str, Any]:
    """What the best trial lends the report of the whole search."""
    return {
        "episode_reward_mean": best.reward,
        "best_reward": best.reward,
        "reward": None if best.reward is None else f"{best.reward:.1f}",
        "checkpoint": best.checkpoint,
        "best_checkpoint": best.best_checkpoint,
    }
