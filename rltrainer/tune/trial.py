"""A trial: a run that Ray Tune steps, in an actor of its own.

Its state is kept where a single run's is, in checkpoints of its folder and in storage. Tune's own checkpoints are only
references to these, so that no pickle of a network is ever written or read.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.session import _TrainingResult

from rltrainer.api.base import EVALUATED
from rltrainer.api.documents import Experiment
from rltrainer.api.status import CheckpointRef
from rltrainer.errors import RunError
from rltrainer.reporting import results
from rltrainer.reporting.rows import Row
from rltrainer.runs.context import RunContext
from rltrainer.runs.run import Run
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError
from rltrainer.storage.claim import Claim
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import CHECKPOINTS
from rltrainer.storage.restore import Restored, fetch_first
from rltrainer.tune.journal import COUNTERS
from rltrainer.tune.space import trial_spec

log = logging.getLogger(__name__)

UPLOAD_PATIENCE = 120.0
"""Seconds that a checkpoint which another trial may go on from waits to be in storage."""


@dataclass(frozen=True)
class Plan:
    """The part that all trials of a search have in common."""

    experiment: Experiment
    folder: Path
    """Of the search: a trial's is below it."""
    uri: str | None
    """Of the search in storage."""
    restore_from: str | None
    export_formats: tuple[str, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    """The checkpoint of each trial that goes on, by the trial's name: it must not begin anew."""
    claim: Claim | None = None
    """The search's, of its folder in storage."""
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    """Where the driver finds modules: one's own environments may be there."""


class Trial(tune.Trainable):
    """One trial."""

    run: Run | None
    """The run under way; none before the first step, and after the last."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:  # type: ignore[override]
        """Take the options; the run is opened with the first step, when it is known what it goes on from."""
        sys.path += [entry for entry in plan.path if entry not in sys.path]
        self.plan, self.run = plan, None
        self.handlers: list[logging.Handler] = []
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self.options = searched_options(config)
        self.last_evaluation: Row = {}
        self.kept: Path | None = None
        """The newest checkpoint of a run that is closed."""
        self.local_references: tuple[Path | None, Row] = (None, {})
        """What the newest checkpoint was when the folder's were last listed, and what was found."""

    @property
    def folder(self) -> Path:
        """The trial's own folder."""
        return Path(self.plan.folder, str(self.trial_name))

    def step(self) -> Row:
        """Run one iteration; return what Tune, its scheduler and the journal see of it.

        The last one is returned once everything is kept.
        """
        run = self.run or self._open()
        if run.stopped_by is None:
            self._iterate(run)
        stopped_by = run.stopped_by
        if stopped_by is not None:
            self._close()
        metrics = {name: value for name, value in run.progress.metrics().items() if value is not None}
        return {
            **self.last_evaluation,
            **{name: getattr(run.progress, name) for name in COUNTERS},
            **({"time_this_iter_s": run.row["time_this_iter_s"]} if run.row else {}),
            **metrics,
            "done": stopped_by is not None,
            "stopped_by": stopped_by,
            **self._references(run),
        }

    def _iterate(self, run: Run) -> None:
        """Run one iteration. Of one that failed nothing is kept: who knows what state it has left."""
        try:
            run.step()
        except BaseException:
            self.run = None
            log.exception("failed")
            run.close()
            run.context.drain(wait=False)
            results.stop_logging(self.handlers)
            raise
        if "evaluation" in run.row:
            self.last_evaluation = {EVALUATED: run.row["evaluation"]["episode_reward_mean"]}

    def _open(self) -> Run:
        self.handlers = results.log_to(self.folder, terminal=False, console=False)
        plan, search = self.plan, self.plan.experiment.spec.tune
        uri = f"{plan.uri}/{self.trial_name}" if plan.uri else None
        self.run = Run(
            plan.experiment.model_copy(update={"spec": trial_spec(plan.experiment.spec, self.options)}),
            RunContext(
                self.folder,
                uri,
                plan.experiment.spec.storage,
                expected=plan.expected.get(str(self.trial_name)),
                owned=plan.claim,
            ),
            export_formats=plan.export_formats,
            searched=self.options,
            gpu_share=(search.resources_per_trial.gpu if search else None) or 1.0,
        )
        self.run.open(plan.restore_from)
        return self.run

    def _close(self) -> None:
        """Keep the last state, and wait until all of it is in storage."""
        run, self.run = self.run, None
        if run is None:
            return
        try:
            if run.is_open:
                run.end()
                if not run.context.drain(wait=True):
                    raise run.context.not_uploaded()
            self.kept = run.checkpoints.newest
        finally:
            run.close()
            results.stop_logging(self.handlers)

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Write a checkpoint that this or another trial goes on from; return a reference to our own."""
        if self.run is None and self.kept is not None:
            newest = self.kept  # the trial is done
        else:
            run = self.run or self._open()
            newest = run.save()
            if run.context.uploader is not None:
                run.context.uploader.wait_for(newest, UPLOAD_PATIENCE)
        metrics: Row = dict(self._last_result or {})
        return _TrainingResult(checkpoint=tune.Checkpoint.from_directory(newest), metrics=metrics)

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from what `save` returned, of this trial or of another."""
        path = Path(checkpoint_path.checkpoint.path)
        run = self.run or self._open()
        owner = path.parents[1].name
        if owner != self.trial_name:
            run.adopt(self._checkpoint_of(owner, path))
            log.info("goes on from %s of %s, with %s", path.name, owner, self.options)

    def _checkpoint_of(self, owner: str, path: Path) -> Restored:
        """Read checkpoint `path` of trial `owner`, or its newest where that one is gone. Raises RunError."""
        root = self.plan.folder / owner / CHECKPOINTS
        local = [root / manifest.name for manifest in ckpt.manifests_in(root)]
        for candidate in [path, *reversed(local)]:
            try:
                return Restored(*ckpt.read(candidate), origin=str(candidate))
            except CorruptCheckpointError:
                continue
        if self.plan.uri is not None:
            store = open_store(f"{self.plan.uri}/{owner}", self.plan.experiment.spec.storage)
            manifests = sync.remote_manifests(store)
            newest_first = sorted(manifests, key=lambda manifest: (manifest.name != path.name, -manifest.iteration))
            target = self.folder / "adopted"
            with contextlib.suppress(CorruptCheckpointError):
                origin = fetch_first(store, target, newest_first)
                return Restored(*ckpt.read(target), origin=origin)
        raise RunError("CheckpointNotFound", f"no checkpoint of {owner} is there to go on from")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial, or for other options of this one, in the same process."""
        self._close()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Keep the last state."""
        self._close()

    def _references(self, run: Run) -> Row:
        """Return the newest and the best checkpoint that are complete, in storage where there is storage."""
        newest = run.checkpoints.newest
        if run.context.uploader is not None:
            return _as_json(run.context.uploader.references())
        if self.local_references[0] != newest or not self.local_references[1]:
            manifests = ckpt.manifests_in(self.folder / CHECKPOINTS)
            references = sync.references(str(self.folder), manifests, run.spec.checkpoint.score_attribute)
            self.local_references = (newest, _as_json(references))
        return self.local_references[1]


NUMBER = "trial"
"""Where Tune's config of a trial has its number, beside the options."""
ABSENT = "(absent)"
"""The value there of an option that other trials have, and this one has not."""


def searched_options(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options in Tune's config of a trial."""
    return {name: value for name, value in config.items() if name != NUMBER and value != ABSENT}


def _as_json(references: dict[str, CheckpointRef | None]) -> Row:
    return {name: each.model_dump(mode="json") if each else None for name, each in references.items()}
