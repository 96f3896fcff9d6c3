"""A run of an experiment: from the document to iterations, results and checkpoints.

`train.py` drives one to its end; a search (rltrainer/tune) drives many, each a trial.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rltrainer.api.documents import Experiment
from rltrainer.api.options import Options
from rltrainer.api.status import Evaluated, TrainingStatus
from rltrainer.backend.base import Backend
from rltrainer.backend.open import open_backend
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.execution import Iteration, Iterations, as_iterations
from rltrainer.errors import Interrupted, RunError
from rltrainer.learning.threads import set_threads
from rltrainer.reporting.estimate import Estimate
from rltrainer.reporting.progress import Progress
from rltrainer.reporting.results import Results
from rltrainer.reporting.rows import Row
from rltrainer.runs.build import going_on, worker_config
from rltrainer.runs.checkpointing import Checkpointer, begun_in
from rltrainer.runs.context import RunContext
from rltrainer.runs.params import write_params
from rltrainer.sampling.evaluator import Evaluator
from rltrainer.storage.paths import EXPORTS
from rltrainer.storage.restore import OwnCheckpoints, Restored

log = logging.getLogger(__name__)


class Run:
    """`open`, then `step` until `stopped_by` is set, then `end`; at last, whatever has happened, `context.drain`."""

    backend: Backend
    """Workers and learner of a run that is open."""
    results: Results
    iterations: Iterations

    def __init__(
        self,
        experiment: Experiment,
        context: RunContext,
        terminal: bool = False,
        export_formats: Sequence[str] = (),
        searched: Row | None = None,
        gpu_share: float = 1.0,
    ) -> None:
        """Prepare a run that is not open yet.

        `terminal` says whether somebody watches. The policy is exported as `export_formats` once a stop condition
        holds. Of a trial, each row names the options `searched` over, and each learner gets `gpu_share` of a GPU.
        """
        self.experiment, self.spec, self.context = experiment, experiment.spec, context
        self.terminal, self.export_formats, self.searched, self.gpu_share = (
            terminal,
            export_formats,
            searched,
            gpu_share,
        )
        self.progress = Progress()
        self.checkpoints = Checkpointer(context, self.spec, self.progress)
        self.stopped_by: str | None = None
        """The stop condition that holds, in words."""
        self.row: Row = {}
        """The last row of result.json; empty where nothing was left to do."""
        self.evaluator: Evaluator | None = None
        self.is_open = False
        self._closing = ExitStack()

    def open(self, restore_from: str | None = None) -> None:
        """Make ready for the first iteration, from the newest checkpoint where there is one."""
        config = worker_config(self.spec)
        own = self.checkpoints.find(config.options.seed)
        origin = self.checkpoints.origin(own, restore_from)
        if origin is not None:
            config = going_on(config, self.spec, origin.tree["run"]["spec"])
        options = config.options
        self.checkpoints.options = options.model_dump(by_alias=True, mode="json")
        set_threads(options, config.spaces)
        config = replace(config, seed=self.checkpoints.seed, gpu_share=self.gpu_share)
        self._write_params(options, own)
        self.backend = self._closing.enter_context(closing(open_backend(config, self.context.interrupt.check)))
        self.context.interrupt.install()
        if origin is not None:
            self.checkpoints.restore(self.backend, own, origin)
        self.estimate = Estimate(self.spec.stop, self.progress)
        self.context.update(restored_from=origin.origin if origin else None, **self._how_far())
        self._open_results()
        if (evaluation := self.spec.evaluation) is not None:
            apart = replace(config, source=config.source.for_evaluation())
            evaluator = Evaluator(apart, evaluation.episodes, evaluation.deterministic)
            self.evaluator = self._closing.enter_context(closing(evaluator))
        self.stopped_by = self.progress.stopped_by(self.spec.stop)
        self.iterations = self._iterations(config.algorithm, options, begun_in(own.newest))
        self.is_open = True

    def _iterations(self, algorithm: Algorithm, options: Options, begun: Iteration | None) -> Iterations:
        """Return the iterations to come, the first of which has `begun` where rounds of it are done already."""
        done = self.progress.timesteps_total + (begun.timesteps if begun else 0)
        iterations = as_iterations(algorithm.strategy(self.backend, options, done))
        iterations.begun = begun
        return iterations

    def _open_results(self) -> None:
        iteration = self.progress.training_iteration
        self.results = Results(self.context.folder, iteration, self.spec.stop, self.terminal)
        self._closing.callback(self._close_results)
        self.results.hyperparameters(self.checkpoints.options)

    def step(self) -> Row:
        """Run one iteration, and what is due after it; return its row. Sets `stopped_by`."""
        self._stop_if_asked()
        self.context.check_owner()
        started = perf_counter()
        iteration = self._next_iteration()
        self.row = self.progress.add(iteration, perf_counter() - started)
        stopped_by = self.progress.stopped_by(self.spec.stop)
        self._evaluate_if_due(last=stopped_by is not None)
        self.stopped_by = stopped_by or self.progress.stopped_by(self.spec.stop)
        self._publish(last=self.stopped_by is not None)
        if self.stopped_by is None and self.checkpoints.due():
            self.checkpoints.write(self.backend)
        return self.row

    def end(self) -> None:
        """Write the last checkpoint and what is exported, and end all that works for the run."""
        self.checkpoints.write_last(self.backend)
        self.close()
        if self.stopped_by is not None and self.export_formats:
            self._export()

    def close(self) -> None:
        """End workers, learner and environments, and close the files; a second call does nothing."""
        self.is_open = False
        self._closing.close()

    def _close_results(self) -> None:
        self.results.close()
        self.context.touch(*self.results.files())

    def save(self) -> Path:
        """Return a checkpoint of the run as it is now."""
        newest = self.checkpoints.newest
        return newest if newest is not None and self.checkpoints.is_current() else self.checkpoints.write(self.backend)

    def adopt(self, origin: Restored) -> None:
        """Go on from what another run has learned, replay and recent returns too; the counters stay this run's."""
        self.checkpoints.adopt(self.backend, origin, replay=True)
        self.progress.adopt_returns(origin.tree["run"]["progress"])

    def status(self) -> TrainingStatus:
        """Return the report as it stands; the reporter's thread reads it."""
        report, uploader = self.context.report, self.context.uploader
        if uploader is None:
            return report
        return report.model_copy(update={"sync": uploader.status(), **uploader.references()})

    def kept(self) -> str:
        """Say which checkpoint is the newest."""
        return f"{self.checkpoints.newest.name} is the newest" if self.checkpoints.newest else ""

    def _next_iteration(self) -> Iteration:
        """Go on until an iteration is whole. Raises Interrupted between rounds, and within one that takes too long."""
        interrupt = self.context.interrupt
        while True:
            try:
                with interrupt.round_under_way():
                    whole = self.iterations.round()
            except Interrupted:
                log.warning("the round under way is abandoned: what goes on from here begins new episodes")
                self.checkpoints.write_last(self.backend, self.iterations.begun, workers=False)
                raise
            if whole is not None:
                return whole
            try:
                interrupt.check()
            except Interrupted:
                self.checkpoints.write_last(self.backend, self.iterations.begun)
                raise

    def _stop_if_asked(self) -> None:
        try:
            self.context.interrupt.stop_here()
        except Interrupted:
            self.checkpoints.write_last(self.backend, self.iterations.begun)
            raise

    def _evaluate_if_due(self, last: bool) -> None:
        """Evaluate the policy every so many iterations, and after the last one."""
        evaluation, iteration = self.spec.evaluation, self.progress.training_iteration
        if evaluation is None or self.evaluator is None or (iteration % evaluation.interval and not last):
            return
        check, timesteps = self.context.interrupt.stop_here, self.progress.timesteps_total
        try:
            report = self.evaluator.run(self.backend.local_weights(timesteps, check), iteration, check)
        except Interrupted:  # the iteration itself is whole
            self._publish(last=True)
            self.checkpoints.write_last(self.backend)
            raise
        self.row["evaluation"] = statistics = self.progress.evaluated(report)
        self.context.update(evaluation=Evaluated(iteration=iteration, timesteps_total=timesteps, **statistics))

    def _publish(self, last: bool) -> None:
        if self.searched:
            self.row["config"] = self.searched
        self.results.write(self.row, last)
        self.context.touch(*self.results.files())
        self.estimate.add(self.progress)
        self.context.update(timesteps_per_second=self.row["timesteps_per_second"], **self._how_far())

    def _how_far(self) -> Row:
        """Return how far the run has come, and how near it is to its end, as its status says it."""
        return {**self.progress.report(), **self.estimate.report()}

    def _export(self) -> None:
        """Write the policy in the formats asked for. Raises RunError where there is no checkpoint to write it from."""
        from rltrainer.runs.export import export  # noqa: PLC0415 - few runs have a use for it

        if self.checkpoints.newest is None:
            message = "there is no checkpoint to export: leave checkpoint.atEnd true"
            raise RunError("NoCheckpoint", message, permanent=True)
        exports = self.context.folder / EXPORTS
        for form in self.export_formats:
            export(self.checkpoints.newest, form, exports)
        self.context.touch(*(path for path in exports.rglob("*") if path.is_file()))

    def _write_params(self, options: Options, own: OwnCheckpoints) -> None:
        start = own.newest.manifest.iteration if own.newest else 0
        name, seed = self.experiment.metadata.name, self.checkpoints.seed
        write_params(self.context.folder, self.spec, name, options, seed, start)
