"""A run of an experiment: from the document to iterations, results and checkpoints.

`train.py` drives one to its end; a search (rltrainer/tune) drives many, each a trial.
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from pydantic import ValidationError

from rltrainer import algorithms
from rltrainer.api.documents import Experiment
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import Options, complaint
from rltrainer.api.status import Evaluated, TrainingStatus
from rltrainer.backend.base import Backend
from rltrainer.backend.open import open_backend
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.execution import Iteration
from rltrainer.core.types import Spaces, Weights
from rltrainer.envs.source import EnvSource
from rltrainer.errors import Interrupted, RunError
from rltrainer.learning.threads import set_threads
from rltrainer.networks.parameters import target_state_from
from rltrainer.reporting import results
from rltrainer.reporting.progress import Progress
from rltrainer.reporting.rows import Row
from rltrainer.runs.interrupt import Interrupt
from rltrainer.sampling.evaluator import Evaluator
from rltrainer.sampling.worker import WorkerConfig
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import restore
from rltrainer.storage.checkpoint import Tree
from rltrainer.storage.paths import CHECKPOINTS, EXPORTS, LOG, RESULTS
from rltrainer.storage.store import LOG_INTERVAL_S, StorageError, Store, open_store, retry
from rltrainer.storage.sync import Uploader

log = logging.getLogger(__name__)

STORAGE_PATIENCE = 30 * 60.0
"""Seconds that a run waits for its storage, at its start and for the last uploads at its end."""


class Run:
    """`open`, then `step` until `stopped_by` is set, then `end`; at last, whatever has happened, `drain`."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        uri: str | None = None,
        interrupt: Interrupt | None = None,
        terminal: bool = False,
        attempt: int = 0,
    ) -> None:
        self.experiment, self.spec, self.folder, self.uri = experiment, experiment.spec, folder, uri
        self.interrupt, self.terminal = interrupt or Interrupt(), terminal
        self.progress = Progress()
        self.report = TrainingStatus(attempt=attempt)
        self.stopped_by: str | None = None
        """The stop condition that holds, in words."""
        self.newest: Path | None = None
        """The newest checkpoint."""
        self.row: Row = {}
        """The last row of result.json; empty where nothing was left to do."""
        self.tuned: Row = {}
        """Options that a search has chosen, which each row names."""
        self.gpu_share = 1.0
        """Part of a GPU that each learner gets, where it gets one."""
        self.export_formats: Sequence[str] = ()
        """What the policy is written as once a stop condition holds."""
        self.store: Store | None = None
        self.uploader: Uploader | None = None
        self.results: results.Results | None = None
        self.evaluator: Evaluator | None = None
        self.backend: Backend | None = None
        self.iterations: Iterator[Iteration] = iter(())

    def open(self, restore_from: str | None = None) -> None:
        """Makes ready for the first iteration, from the newest checkpoint where there is one."""
        algorithm = algorithms.load(self.spec.run)
        self.options = options = own_options(algorithm, self.spec)
        source = EnvSource(self.spec.env, self.spec.env_config)
        spaces = source.spaces()
        check_trainable(algorithm, spaces, options)
        set_threads(options, spaces)
        found = self._open_storage()
        self.seed = seed_of(options, found.newest)
        self._write_params(options)
        worker_config = WorkerConfig(algorithm, source, spaces, options, self.seed, self.gpu_share)
        self.backend = backend = open_backend(worker_config, self.interrupt.check)
        self.interrupt.install()
        self._restore(backend, found, restore_from)
        self.results = results.Results(self.folder, self.progress.training_iteration, self.spec.stop, self.terminal)
        self.results.hyperparameters(options.model_dump(by_alias=True, mode="json"))
        if (asked := self.spec.evaluation) is not None:
            judged = replace(worker_config, source=source.for_evaluation())
            self.evaluator = Evaluator(judged, asked.episodes, asked.deterministic)
        self.stopped_by = self.progress.stopped_by(self.spec.stop)
        self.iterations = algorithm.strategy(backend, options, self.progress.timesteps_total)

    @property
    def opened(self) -> Backend:
        """The backend of a run that is open."""
        assert self.backend is not None  # noqa: S101 - for the type checker
        return self.backend

    def step(self) -> Row:
        """One iteration, with what is due after it; returns its row. Sets `stopped_by`."""
        self._stop_if_asked()
        begun = perf_counter()
        try:
            iteration = next(self.iterations)
        except Interrupted:
            self._checkpoint_at_end(workers=False)  # they are somewhere within the next iteration
            raise
        self.row = self.progress.add(iteration, perf_counter() - begun)
        stopped_by = self.progress.stopped_by(self.spec.stop)
        self._evaluate_if_due(last=stopped_by is not None)
        self.stopped_by = stopped_by or self.progress.stopped_by(self.spec.stop)
        self._publish(last=self.stopped_by is not None)
        frequency = self.spec.checkpoint.frequency
        if self.stopped_by is None and frequency and self.progress.training_iteration % frequency == 0:
            self._checkpoint()
        return self.row

    def end(self) -> None:
        """Writes the last checkpoint and what is exported, and ends all that works for the run; `drain` comes after."""
        self._checkpoint_at_end()
        self.close()
        if self.stopped_by is not None and self.export_formats:
            self._export(self.newest)

    def _export(self, checkpoint: Path | None) -> None:
        """Writes the policy in the formats asked for. Raises RunError where there is no checkpoint to write it from."""
        from rltrainer.runs.export import export  # noqa: PLC0415 - few runs have a use for it

        if checkpoint is None:
            raise RunError(
                "NoCheckpoint", "there is no checkpoint to export: leave checkpoint.atEnd true", permanent=True
            )
        for form in self.export_formats:
            export(checkpoint, form, self.folder / EXPORTS)
        if self.uploader is not None:
            self.uploader.touch(*(path for path in (self.folder / EXPORTS).rglob("*") if path.is_file()))

    def save(self) -> Path:
        """A checkpoint of the run as it is now."""
        if self.newest is None or self.newest.name != ckpt.folder_name(self.progress.training_iteration):
            self._checkpoint()
        assert self.newest is not None  # noqa: S101 - for the type checker
        return self.newest

    def adopt(self, origin: restore.Restored) -> None:
        """Goes on from what another run has learnt, replay and recent returns too; the counters stay this run's."""
        self._adopt(self.opened, origin, replay=True)
        self.progress.judge_by(origin.tree["run"]["progress"])

    def close(self) -> None:
        """Ends workers, learner and environments."""
        backend, evaluator = self.backend, self.evaluator
        self.backend = self.evaluator = None
        if backend is not None:
            backend.close()
        if evaluator is not None:
            evaluator.close()

    def _stop_if_asked(self) -> None:
        try:
            self.interrupt.stop_here()
        except Interrupted:
            self._checkpoint_at_end()
            raise

    def _evaluate_if_due(self, last: bool) -> None:
        """Evaluates the policy every so many iterations, and after the last one."""
        asked, iteration = self.spec.evaluation, self.progress.training_iteration
        if asked is None or self.evaluator is None or (iteration % asked.interval and not last):
            return
        check = self.interrupt.stop_here
        try:
            weights = resolve_weights(self.opened.weights(self.progress.timesteps_total), check)
            report = self.evaluator.run(weights, iteration, check)
        except Interrupted:  # the iteration itself is whole
            self._publish(last=True)
            self._checkpoint_at_end()
            raise
        self.row["evaluation"] = found = self.progress.evaluated(report)
        at = {"iteration": iteration, "timesteps_total": self.progress.timesteps_total}
        self.update(evaluation=Evaluated(**at, **found))

    def _publish(self, last: bool) -> None:
        assert self.results is not None  # noqa: S101 - for the type checker
        if self.tuned:
            self.row["config"] = self.tuned
        self.results.write(self.row, last)
        if self.uploader is not None:
            self.uploader.touch(*self.results.files())
        self.update(timesteps_per_second=self.row["timesteps_per_second"], **self._counters())

    def _counters(self) -> dict[str, Any]:
        """How far the run has come, as its status says it."""
        progress, mean = self.progress, self.progress.reward_mean()
        return {
            "iteration": progress.training_iteration,
            "timesteps_total": progress.timesteps_total,
            "episodes_total": progress.episodes_total,
            "episode_reward_mean": mean,
            "best_reward": progress.best_reward,
            "reward": None if mean is None else f"{mean:.1f}",
            "time_total_s": round(progress.time_total_s, 3),
        }

    def _checkpoint_at_end(self, workers: bool = True) -> None:
        name = ckpt.folder_name(self.progress.training_iteration)
        written = self.newest is not None and self.newest.name == name
        if self.spec.checkpoint.at_end and self.progress.training_iteration and not written:
            self._checkpoint(workers)

    def _checkpoint(self, workers: bool = True) -> None:
        progress = self.progress
        tree: Tree = {**self.opened.state(workers), "run": {"progress": progress.state(), "spec": self._identity()}}
        root = self.folder / CHECKPOINTS
        self.newest = ckpt.write(root, tree, progress.training_iteration, progress.timesteps_total, progress.metrics())
        if self.uploader is not None:
            self.uploader.add(self.newest)
        for old in ckpt.to_prune(ckpt.found(root), self.spec.checkpoint.keep, self.spec.checkpoint.score_attribute):
            if self.uploader is None or self.uploader.forget(root / old.name):
                ckpt.delete(root / old.name)

    def _identity(self) -> dict[str, Any]:
        """What a policy needs to act again."""
        spec = self.spec
        return {
            "run": spec.run,
            "env": spec.env,
            "env_config": spec.env_config,
            "config": spec.config,
            "seed": self.seed,
        }

    def _open_storage(self) -> restore.Found:
        """The run's own checkpoints, and an uploader if there is storage to upload to."""
        if self.uri is not None:
            self.store = open_store(self.uri, self.spec.storage)
            self._await_storage(self.store.check)
        found = restore.own(self.folder, self.store, self._await_storage)
        if self.store is not None:
            store = self.store
            self._await_storage(lambda: continue_files(store, self.folder))
            self.uploader = Uploader(store, self.folder, self.spec.checkpoint, found.remote)
            there = {manifest.iteration for manifest in found.remote}
            for manifest in found.local:
                if manifest.iteration not in there:
                    self.uploader.add(self.folder / CHECKPOINTS / manifest.name)
        return found

    def _await_storage(self, action: Callable[[], object]) -> None:
        """Runs `action` until storage answers; says, in the log and in the status, what is waited for."""
        try:
            retry(action, STORAGE_PATIENCE, self.interrupt.sleep, self._storage_failed)
        except StorageError as error:
            raise RunError(error.reason, f"{error} (waited {STORAGE_PATIENCE / 60:.0f} minutes)") from error
        self.update(sync=None)

    def _storage_failed(self, error: StorageError) -> None:
        self.update(sync={"pending": 0, "error": error.problem()})

    def _restore(self, backend: Backend, found: restore.Found, restore_from: str | None) -> None:
        origin = found.newest
        if origin is not None:
            self.newest = self.folder / CHECKPOINTS / origin.manifest.name
            check_same(origin, self.spec)
            backend.load(origin.tree, generation=origin.manifest.iteration)
            self.progress.load(origin.tree["run"]["progress"])
        elif uri := restore.given_uri(self.spec, restore_from):
            origin = restore.given(uri, self.spec, self.folder / "restored", self._await_storage)
            self._adopt(backend, origin)
        if origin is not None:
            log.info("restored from %s, after %s timesteps", origin.origin, f"{origin.manifest.timesteps_total:,}")
        self.update(restored_from=origin.origin if origin else None, **self._counters())

    def _adopt(self, backend: Backend, origin: restore.Restored, replay: bool = False) -> None:
        """Another run's weights, optimiser and statistics, and with `replay` its buffer; counters, environments and
        random states are this run's."""
        fresh = backend.state(workers=False)
        same = origin.tree["run"]["spec"]["run"] == self.spec.run
        policy = origin.tree["policy"]
        if same:
            learner = {**origin.tree["learner"], "rng": fresh["learner"]["rng"]}
        else:  # targets begin where what they follow does
            learner = {**fresh["learner"], "targets": target_state_from(policy, fresh["learner"]["targets"])}
        buffer = origin.tree.get("replay", {}) if replay else {}
        adopted = {"policy": policy, "learner": learner, "replay": buffer, "workers": {}}
        backend.load(adopted, generation=0)

    def _write_params(self, options: Options) -> None:
        config = {**options.model_dump(by_alias=True, mode="json"), "seed": self.seed}
        spec = self.spec.model_dump(by_alias=True, mode="json", exclude_none=True)
        results.write_params(
            self.folder, {"metadata": {"name": self.experiment.metadata.name}, **spec, "config": config}
        )

    def update(self, **fields: Any) -> None:
        """Changes what is reported."""
        self.report = TrainingStatus.model_validate({**dict(self.report), **fields})

    def status(self) -> TrainingStatus:
        """The report as it stands; read by the reporter's thread."""
        report = self.report
        if self.uploader is None:
            return report
        uploads = {"sync": self.uploader.status(), "checkpoint": self.uploader.newest()}
        return report.model_copy(update={**uploads, "best_checkpoint": self.uploader.best()})

    def drain(self, wait: bool) -> bool:
        """Closes files and uploads what is left, for seconds or, with `wait`, for long; whether all is uploaded."""
        if self.results is not None:
            self.results.close()
        if self.uploader is None:
            return True
        self.uploader.touch(*(self.results.files() if self.results else ()), self.folder / LOG)
        patience = STORAGE_PATIENCE if wait else 10.0
        end = monotonic() + patience
        while not (done := self.uploader.close(min(LOG_INTERVAL_S, patience))) and monotonic() < end:
            error = self.uploader.status().error
            log.warning("waiting for the last uploads: %s", error.message if error else "under way")
        return done


def own_options(algorithm: Algorithm, spec: ExperimentSpec) -> Options:
    """The options as the algorithm itself knows them: one's own may have other defaults. Raises RunError, permanent."""
    try:
        return algorithm.options.model_validate(spec.config)
    except ValidationError as error:
        raise RunError("InvalidOption", complaint(error, "spec.config", algorithm.options), permanent=True) from None


def resolve_weights(weights: Any, check: Callable[[], None]) -> Weights:
    """The weights that a backend's reference stands for. Raises RunError if they are lost, and what `check` raises."""
    if isinstance(weights, dict):
        return weights
    from rltrainer.backend.ray.cluster import LOST, awaited, summary  # noqa: PLC0415 - seconds that a serial run has no use for

    try:
        (received,) = awaited([weights], check, "the learner's weights")
    except LOST as error:
        raise RunError("LearnerLost", f"the learner's process was lost: {summary(error)}") from error
    found: Weights = received
    return found


def check_trainable(algorithm: Algorithm, spaces: Spaces, options: Options) -> None:
    """Raises RunError, permanent, if the algorithm cannot act in these spaces."""
    algorithm.nets(spaces, options)


def seed_of(options: Options, newest: restore.Restored | None) -> int:
    """The seed: the document's, that of the run that goes on, or a new one."""
    if options.seed is not None:
        return options.seed
    return int(newest.tree["run"]["spec"]["seed"]) if newest is not None else secrets.randbits(31)


def check_same(origin: restore.Restored, spec: ExperimentSpec) -> None:
    """Raises RunError, permanent, unless the checkpoint is of the same algorithm and environment."""
    was = origin.tree["run"]["spec"]
    if (was["run"], was["env"]) != (spec.run, spec.env):
        raise RunError(
            "InvalidOption",
            f"{origin.origin} is of {was['run']} on {was['env']}, and the document says {spec.run} on {spec.env}: "
            "give the experiment another name, or start anew with --overwrite",
            permanent=True,
        )


def continue_files(store: Store, folder: Path) -> None:
    """Brings what earlier attempts wrote to files that go on: result.json and train.log. Raises StorageError."""
    if not (folder / RESULTS).exists():
        store.download(RESULTS, folder / RESULTS)
    earlier, marker = store.read(LOG), folder / ".log-continued"
    if earlier and not marker.exists():
        now = (folder / LOG).read_bytes() if (folder / LOG).exists() else b""
        with (folder / LOG).open("r+b" if now else "wb") as file:  # in place: it is open for appending
            file.write(earlier + now)
        marker.touch()
