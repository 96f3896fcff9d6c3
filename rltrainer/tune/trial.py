"""A trial: a run that Ray Tune steps, in an actor of its own.

Its state is kept where a single run's is, in checkpoints of its folder and in storage. Tune's own checkpoints are only
references to these, so that no pickle of a network is ever written or read.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from ray import tune
from ray.train._internal.session import _TrainingResult

from rltrainer.api.base import EVALUATED
from rltrainer.api.documents import Experiment
from rltrainer.errors import RunError
from rltrainer.reporting import results
from rltrainer.reporting.rows import Row
from rltrainer.runs.run import Run
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError
from rltrainer.storage.paths import CHECKPOINTS, checkpoint_key
from rltrainer.storage.restore import Restored
from rltrainer.storage.store import open_store

log = logging.getLogger(__name__)

UPLOAD_PATIENCE = 120.0
"""Seconds that a checkpoint which another trial may go on from waits to be in storage."""
REPORTED = ("training_iteration", "timesteps_total", "episodes_total", "time_total_s", "time_this_iter_s")
METRICS = ("episode_reward_mean", "episode_len_mean")


@dataclass(frozen=True)
class Plan:
    """What all trials of a search have in common."""

    experiment: Experiment
    folder: Path
    """Of the search: a trial's is below it."""
    uri: str | None
    """Of the search in storage."""
    restore_from: str | None
    export_formats: tuple[str, ...] = ()
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    """Where the driver finds modules: one's own environments may be there."""


class Trial(tune.Trainable):
    """One trial."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:  # type: ignore[override]
        """Takes the options; the run is opened with the first step, when it is known what it goes on from."""
        sys.path += [entry for entry in plan.path if entry not in sys.path]
        self.plan, self.run, self.options = plan, None, chosen(config)
        self.last: Row = {}
        self.kept: Path | None = None
        """The newest checkpoint of a run that is closed."""
        self.refs: tuple[Path | None, dict[str, Any]] = (None, {})
        self.handlers: list[logging.Handler] = []

    run: Run | None

    @property
    def folder(self) -> Path:
        """The trial's own."""
        return Path(self.plan.folder, str(self.trial_name))

    def step(self) -> Row:
        """One iteration; what Tune, its scheduler and the journal are told of it. The last one comes once everything is
        kept."""
        run = self.run or self._open()
        if run.stopped_by is None:
            self._iterate(run)
            self.last |= {EVALUATED: run.row["evaluation"]["episode_reward_mean"]} if "evaluation" in run.row else {}
        stopped_by = run.stopped_by
        if stopped_by is not None:
            self._close()
        counters = {"training_iteration": run.progress.training_iteration, "time_total_s": run.progress.time_total_s}
        told = {name: run.row[name] for name in REPORTED if name in run.row}
        metrics = {name: value for name, value in run.progress.metrics().items() if value is not None}
        done = {"done": stopped_by is not None, "stopped_by": stopped_by}
        return {**self.last, **counters, **_totals(run), **told, **metrics, **done, **self._references(run)}

    def _iterate(self, run: Run) -> None:
        """One iteration. Of one that failed nothing is kept: who knows what state it has left."""
        try:
            run.step()
        except BaseException:
            self.run = None
            log.exception("failed")
            run.close()
            run.drain(wait=False)
            results.stop_logging(self.handlers)
            raise

    def _open(self, restore_from: str | None = None) -> Run:
        self.handlers = results.log_to(self.folder, terminal=False, speak=False)
        uri = f"{self.plan.uri}/{self.trial_name}" if self.plan.uri else None
        run = Run(_document(self.plan.experiment, self.trial_name, self.options), self.folder, uri)
        run.tuned, run.export_formats = self.options, self.plan.export_formats
        search = self.plan.experiment.spec.tune
        run.gpu_share = (search.resources_per_trial.gpu if search else None) or 1.0
        self.run = run
        run.open(restore_from or self.plan.restore_from)
        return run

    def _close(self) -> None:
        """Keeps the last state, and waits until all of it is in storage."""
        run, self.run = self.run, None
        if run is None:
            return
        try:
            if run.backend is not None:
                run.end()
                if not run.drain(wait=True):
                    raise RunError("StorageUnreachable", f"the last files of {self.trial_name} did not reach storage")
            self.kept = run.newest
        finally:
            self._references(run)
            results.stop_logging(self.handlers)

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """A checkpoint of the trial as it is, which this or another trial goes on from: a reference to our own."""
        if self.run is None and self.kept is not None:
            newest = self.kept  # the trial is done
        else:
            run = self.run or self._open()
            newest = run.save()
            _await(lambda: _uploaded(run, newest), UPLOAD_PATIENCE)
        metrics: Row = dict(self._last_result or {})
        return _TrainingResult(checkpoint=tune.Checkpoint.from_directory(newest), metrics=metrics)

    def restore(self, checkpoint_path: Any) -> None:
        """Goes on from what `save` returned, of this trial or of another."""
        place = Path(checkpoint_path.checkpoint.path)
        run = self.run or self._open()
        owner = place.parents[1].name
        if owner != self.trial_name:
            run.adopt(self._of_another(owner, place))
            log.info("goes on from %s of %s, with %s", place.name, owner, self.options)

    def _of_another(self, owner: str, place: Path) -> Restored:
        """Checkpoint `place` of trial `owner`, or its newest where that one is gone. Raises RunError."""
        for candidate in [place, *reversed(_local(self.plan.folder / owner))]:
            try:
                return Restored(*ckpt.read(candidate), origin=str(candidate))
            except CorruptCheckpointError:
                continue
        if self.plan.uri is not None:
            store = open_store(f"{self.plan.uri}/{owner}", self.plan.experiment.spec.storage)
            manifests = sync.remote_manifests(store)
            named = [each for each in manifests if each.name == place.name] or manifests[-1:]
            if named:
                target = self.folder / "adopted"
                sync.fetch(store, named[0].name, target)
                return Restored(*ckpt.read(target), origin=f"{store.uri}/{checkpoint_key(named[0].name)}")
        raise RunError("CheckpointNotFound", f"no checkpoint of {owner} is there to go on from")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes ready for another trial, or for other options of this one, in the same process."""
        self._close()
        self.options, self.last, self.kept, self.refs = chosen(new_config), {}, None, (None, {})
        return True

    def cleanup(self) -> None:
        """Keeps the last state."""
        self._close()

    def _references(self, run: Run) -> dict[str, Any]:
        """The newest and the best checkpoint that are complete, in storage where there is storage."""
        if run.uploader is not None:
            newest, best = run.uploader.newest(), run.uploader.best()
        elif self.refs[0] == run.newest:
            return self.refs[1]
        else:
            manifests = ckpt.found(self.folder / CHECKPOINTS)
            ranked = ckpt.best(manifests, run.spec.checkpoint.score_attribute)
            last = manifests[-1] if manifests else None
            newest, best = (sync.reference(str(self.folder), each) if each else None for each in (last, ranked))
        told = {"checkpoint": newest, "best_checkpoint": best}
        self.refs = (run.newest, {name: each.model_dump(mode="json") if each else None for name, each in told.items()})
        return self.refs[1]


NUMBER = "trial"
"""Where Tune's config of a trial has its number, beside the options."""


def chosen(config: dict[str, Any]) -> dict[str, Any]:
    """The options in Tune's config of a trial: those that other trials have, and this one has not, are None there."""
    return {name: value for name, value in config.items() if name != NUMBER and value is not None}


def _document(experiment: Experiment, name: str, options: dict[str, Any]) -> Experiment:
    """The document of one trial."""
    spec = experiment.spec.model_copy(update={"config": {**experiment.spec.config, **options}, "tune": None})
    return experiment.model_copy(update={"spec": spec})


def _totals(run: Run) -> Row:
    progress = run.progress
    return {"timesteps_total": progress.timesteps_total, "episodes_total": progress.episodes_total}


def _local(folder: Path) -> list[Path]:
    return [folder / CHECKPOINTS / manifest.name for manifest in ckpt.found(folder / CHECKPOINTS)]


def _uploaded(run: Run, newest: Path) -> bool:
    if run.uploader is None:
        return True
    there = run.uploader.newest()
    return there is not None and ckpt.folder_name(there.iteration) >= newest.name


def _await(done: Callable[[], bool], patience: float) -> None:
    end = monotonic() + patience
    while not done() and monotonic() < end:
        sleep(0.05)
