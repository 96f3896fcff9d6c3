"""A run: the document in, checkpoints and results out."""

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from pydantic import ValidationError

from rltrainer import algorithms, restore, results
from rltrainer import checkpoint as ckpt
from rltrainer.algorithm import Algorithm
from rltrainer.backend import Backend, open_backend
from rltrainer.checkpoint import Tree
from rltrainer.envs import EnvSource, Spaces
from rltrainer.errors import Interrupted, RunError
from rltrainer.evaluation import Evaluator
from rltrainer.interrupt import Interrupt
from rltrainer.learner import Weights, copies
from rltrainer.options import Options, describe
from rltrainer.paths import CHECKPOINTS, LOG, RESULTS, run_uri
from rltrainer.progress import Progress, Row
from rltrainer.sampling import Blueprint
from rltrainer.spec import Experiment, ExperimentSpec
from rltrainer.status import EXPERIMENT, Reporter, Target, earlier
from rltrainer.statuses import Problem, TrainingStatus
from rltrainer.storage import SPEAK_EVERY, StorageError, Store, open_store, patiently
from rltrainer.sync import Uploader
from rltrainer.threads import set_threads

log = logging.getLogger(__name__)

LOCAL = Path("~/rltrainer_results")
STORAGE_PATIENCE = 30 * 60.0
"""Seconds that a run waits for its storage, at its start and for the last uploads at its end."""
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
) -> Result:
    """Trains `experiment` until a stop condition holds. Its folder is `local_dir`/<name>.

    Raises RunError for what is wrong, and Interrupted after a signal, once the state is kept.
    """
    folder, uid = claim_folder(Path(local_dir).expanduser() / experiment.metadata.name, experiment, overwrite)
    terminal = results.on_terminal()
    handlers = results.log_to(folder, terminal)
    interrupt = interrupt or Interrupt()
    try:
        with interrupt.installed():
            return Run(experiment, folder, uid, attempt, interrupt, terminal).go(restore_from)
    finally:
        results.stop_logging(handlers)


def claim_folder(folder: Path, experiment: Experiment, overwrite: bool) -> tuple[Path, str]:
    """The run's folder and uid. An unfinished run in it goes on; any other moves aside."""
    given = experiment.metadata.uid
    try:
        mark = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        mark = {}
    in_the_way = overwrite or not mark or (given is not None and mark.get("uid") != given)
    if folder.exists() and any(folder.iterdir()) and (in_the_way or (given is None and mark.get("stopped_by"))):
        folder.rename(folder.with_name(f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S.%f}"))
        mark = {}
    uid = given or mark.get("uid") or secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(json.dumps({"uid": uid}))
    return folder, uid


class Run:
    """One attempt at an experiment."""

    def __init__(
        self, experiment: Experiment, folder: Path, uid: str, attempt: int, interrupt: Interrupt, terminal: bool
    ) -> None:
        self.experiment, self.spec, self.folder = experiment, experiment.spec, folder
        self.attempt, self.interrupt, self.terminal = attempt, interrupt, terminal
        self.progress = Progress()
        self.report = TrainingStatus(attempt=attempt)
        self.store: Store | None = None
        self.uploader: Uploader | None = None
        self.results: results.Results | None = None
        self.evaluator: Evaluator | None = None
        self.newest: Path | None = None
        self.row: Row = {}
        self.uid = uid
        target = Target.from_environment(*EXPERIMENT)
        self.reporter: Reporter | None = None
        if target is not None:
            self.report = earlier(target).model_copy(update={"attempt": attempt})
            self.reporter = Reporter(target, self.status)

    def go(self, restore_from: str | None) -> Result:
        """From the document to the last report."""
        try:
            stopped_by = self._train(restore_from)
        except RunError as error:
            if error.permanent:
                self._update(error=Problem(reason=error.reason, message=error.message[:4096]))
            log.critical("error: %s", error)
            self._drain(wait=not error.permanent)
            raise
        except Interrupted as signal:
            log.info("ended by %s%s", signal, f"; {self.newest.name} is the newest" if self.newest else "")
            self._drain(wait=True)
            raise
        except BaseException as error:
            log.exception("error: %s", type(error).__name__)
            self._drain(wait=False)
            raise
        else:
            log.info("done: %s", stopped_by)
            if not self._drain(wait=True):
                lost = RunError("StorageUnreachable", "the run is done, but its last files did not reach storage")
                log.critical("error: %s", lost)
                raise lost
            self._update(stopped_by=stopped_by)
        finally:
            if self.reporter is not None:
                self.reporter.close()
        (self.folder / MARK).write_text(json.dumps({"uid": self.uid, "stopped_by": stopped_by}))
        return Result(stopped_by, self.row, self.folder, self.newest)

    def _train(self, restore_from: str | None) -> str:
        algorithm = algorithms.load(self.spec.run)
        self.options = options = own_options(algorithm, self.spec)
        source = EnvSource(self.spec.env, self.spec.env_config)
        spaces = source.spaces()
        check_trainable(algorithm, spaces, options)
        set_threads(options, spaces)
        found = self._open_storage()
        seed = seed_of(options, found.newest)
        self._write_params(options, seed)
        blueprint = Blueprint(algorithm, source, spaces, options, seed)
        backend = open_backend(blueprint, self.interrupt.check)
        self.interrupt.install()
        try:
            self._restore(backend, found, restore_from)
            self.results = results.Results(self.folder, self.progress.training_iteration, self.spec.stop, self.terminal)
            if (asked := self.spec.evaluation) is not None:
                self.evaluator = Evaluator(blueprint, asked.episodes, asked.deterministic)
            return self._loop(algorithm, backend)
        finally:
            backend.close()
            if self.evaluator is not None:
                self.evaluator.close()

    def _loop(self, algorithm: Algorithm, backend: Backend) -> str:
        """Iterations until a stop condition holds; returns it."""
        stopped_by = self.progress.stopped_by(self.spec.stop)
        iterations = algorithm.strategy(backend, self.options, self.progress.timesteps_total)
        while stopped_by is None:
            self._stop_if_asked(backend)
            begun = perf_counter()
            try:
                iteration = next(iterations)
            except Interrupted:
                self._checkpoint_at_end(backend, workers=False)  # they are somewhere within the next iteration
                raise
            self.row = self.progress.add(iteration, perf_counter() - begun)
            stopped_by = self.progress.stopped_by(self.spec.stop)
            self._evaluate_if_due(backend, last=stopped_by is not None)
            stopped_by = stopped_by or self.progress.stopped_by(self.spec.stop)
            self._publish(last=stopped_by is not None)
            frequency = self.spec.checkpoint.frequency
            if stopped_by is None and frequency and self.progress.training_iteration % frequency == 0:
                self._checkpoint(backend)
        self._checkpoint_at_end(backend)
        return stopped_by

    def _stop_if_asked(self, backend: Backend) -> None:
        try:
            self.interrupt.stop_here()
        except Interrupted:
            self._checkpoint_at_end(backend)
            raise

    def _evaluate_if_due(self, backend: Backend, last: bool) -> None:
        """Evaluates the policy every so many iterations, and after the last one."""
        asked, iteration = self.spec.evaluation, self.progress.training_iteration
        if asked is None or self.evaluator is None or (iteration % asked.interval and not last):
            return
        check = self.interrupt.stop_here
        try:
            weights = fetched(backend.weights(self.progress.timesteps_total), check)
            report = self.evaluator.run(weights, iteration, check)
        except Interrupted:  # the iteration itself is whole
            self._publish(last=True)
            self._checkpoint_at_end(backend)
            raise
        self.row["evaluation"] = self.progress.evaluated(report)

    def _publish(self, last: bool) -> None:
        assert self.results is not None  # noqa: S101 - for the type checker
        self.results.write(self.row, last)
        if self.uploader is not None:
            self.uploader.touch(*self.results.files())
        self._update(timesteps_per_second=self.row["timesteps_per_second"], **self._counters())

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

    def _checkpoint_at_end(self, backend: Backend, workers: bool = True) -> None:
        name = ckpt.folder_name(self.progress.training_iteration)
        written = self.newest is not None and self.newest.name == name
        if self.spec.checkpoint.at_end and self.progress.training_iteration and not written:
            self._checkpoint(backend, workers)

    def _checkpoint(self, backend: Backend, workers: bool = True) -> None:
        progress = self.progress
        tree: Tree = {**backend.state(workers), "run": {"progress": progress.state(), "spec": self._identity()}}
        root = self.folder / CHECKPOINTS
        self.newest = ckpt.write(root, tree, progress.training_iteration, progress.timesteps_total, progress.metrics())
        if self.uploader is not None:
            self.uploader.add(self.newest)
        for old in ckpt.doomed(ckpt.found(root), self.spec.checkpoint.keep, self.spec.checkpoint.score_attribute):
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
        if self.spec.storage is not None:
            metadata = self.experiment.metadata.model_copy(update={"uid": self.uid})
            self.store = open_store(run_uri(self.spec.storage.uri, metadata), self.spec.storage)
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
            patiently(action, STORAGE_PATIENCE, self.interrupt.sleep, self._storage_failed)
        except StorageError as error:
            raise RunError(error.reason, f"{error} (waited {STORAGE_PATIENCE / 60:.0f} minutes)") from error
        self._update(sync=None)

    def _storage_failed(self, error: StorageError) -> None:
        self._update(sync={"pending": 0, "error": error.problem()})

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
        self._update(restored_from=origin.origin if origin else None, **self._counters())

    def _adopt(self, backend: Backend, origin: restore.Restored) -> None:
        """Another run's weights, optimiser and statistics; counters, environments and random states are this run's."""
        fresh = backend.state(workers=False)
        same = origin.tree["run"]["spec"]["run"] == self.spec.run
        policy = origin.tree["policy"]
        if same:
            learner = {**origin.tree["learner"], "rng": fresh["learner"]["rng"]}
        else:  # targets begin where what they follow does
            learner = {**fresh["learner"], "targets": copies(policy, fresh["learner"]["targets"])}
        adopted = {"policy": policy, "learner": learner, "replay": {}, "workers": {}}
        backend.load(adopted, generation=0)

    def _write_params(self, options: Options, seed: int) -> None:
        self.seed = seed
        config = {**options.model_dump(by_alias=True, mode="json"), "seed": seed}
        spec = self.spec.model_dump(by_alias=True, mode="json", exclude_none=True)
        results.write_params(
            self.folder, {"metadata": {"name": self.experiment.metadata.name}, **spec, "config": config}
        )

    def _update(self, **fields: Any) -> None:
        self.report = TrainingStatus.model_validate({**dict(self.report), **fields})

    def status(self) -> TrainingStatus:
        """The report as it stands; read by the reporter's thread."""
        report = self.report
        if self.uploader is None:
            return report
        uploads = {"sync": self.uploader.status(), "checkpoint": self.uploader.newest()}
        return report.model_copy(update={**uploads, "best_checkpoint": self.uploader.best()})

    def _drain(self, wait: bool) -> bool:
        """Closes files and uploads what is left, for seconds or, with `wait`, for long; whether all is uploaded."""
        if self.results is not None:
            self.results.close()
        if self.uploader is None:
            return True
        self.uploader.touch(*(self.results.files() if self.results else ()), self.folder / LOG)
        patience = STORAGE_PATIENCE if wait else 10.0
        end = monotonic() + patience
        while not (done := self.uploader.close(min(SPEAK_EVERY, patience))) and monotonic() < end:
            error = self.uploader.status().error
            log.warning("waiting for the last uploads: %s", error.message if error else "under way")
        return done


def own_options(algorithm: Algorithm, spec: ExperimentSpec) -> Options:
    """The options as the algorithm itself knows them: one's own may have other defaults. Raises RunError, permanent."""
    try:
        return algorithm.options.model_validate(spec.config)
    except ValidationError as error:
        problems = "; ".join(describe(problem, "spec.config") for problem in error.errors())
        raise RunError("InvalidOption", problems, permanent=True) from None


def fetched(weights: Any, check: Callable[[], None]) -> Weights:
    """The weights that a backend's reference stands for. Raises RunError if they are lost, and what `check` raises."""
    if isinstance(weights, dict):
        return weights
    from rltrainer.ray_cluster import LOST, awaited, summary  # noqa: PLC0415 - seconds that a serial run has no use for

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
