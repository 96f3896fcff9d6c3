"""Workers as Ray actors, and what they sample brought to where it is learned from.

Weights are put once per version, fragments travel by reference, and a worker that is lost is replaced: its fragment is
sampled again by the replacement.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import exceptions as rex

from rltrainer.backend.base import (
    carried_from,
    gradient_state,
    load_gradient_learner,
    log_notice,
    make_learner,
    start_worker,
    strategy_state,
)
from rltrainer.backend.ray.cluster import LOST, POLL, Patience, awaited, connect, disconnect, receive, reserved, summary
from rltrainer.backend.ray.learners import Learners, LocalLearner, RayLearners
from rltrainer.backend.ray.shards import Drawn, RayShards
from rltrainer.core.execution import REPLAY_BEGUN, Completed, Request
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import EpisodeReport, Metrics, Tree, Weights
from rltrainer.errors import RunError
from rltrainer.learning.learner import Gradient, Learner
from rltrainer.sampling.worker import Worker, WorkerConfig

log = logging.getLogger(__name__)

LOSSES = 10
"""Times that one worker may be lost in a row, without a fragment in between."""
REPLACEMENT = 1 << 20
"""Generations of replacements; a restored worker's is the iteration it was restored at."""
STATE_PATIENCE = 20.0
"""Seconds that a checkpoint waits for the workers' states."""

Start = tuple[Tree | None, int]
"""What a worker begins from: a saved state or None, and its generation."""


class WorkerActor:
    """A worker in a process of its own, built with its first fragment, so that what is wrong arrives as itself."""

    def __init__(self, worker_config: WorkerConfig, index: int) -> None:
        torch.set_num_threads(1)
        if threading.current_thread() is threading.main_thread():  # a KeyboardInterrupt is the environment's own here
            signal.signal(signal.SIGINT, lambda *_: None)
        self.worker_config, self.index = worker_config, index
        self.worker: Worker | None = None
        self.gradient_learner: Learner | None = None

    def sample(self, weights: Weights, start: Start) -> tuple[Fragment, EpisodeReport]:
        """Sample one fragment; `start` counts for the first alone."""
        notice = ""
        if self.worker is None:
            self.worker = start_worker(self.worker_config, self.index, *start)
            notice = self.worker.notice
            gradient = (start[0] or {}).get("gradient", {})
            self.gradient_learner = load_gradient_learner(self.worker_config, gradient)
        fragment, report = self.worker.sample(weights)
        report.notice = notice
        return fragment, report

    def gradient(self, weights: Weights, start: Start) -> tuple[tuple[Gradient, Metrics], EpisodeReport]:
        """Sample a fragment, and return the gradient found in it."""
        fragment, report = self.sample(weights, start)
        self.gradient_learner = self.gradient_learner or make_learner(self.worker_config)
        return self.gradient_learner.gradient(weights, fragment, weights["timesteps"]), report

    def pid(self) -> int:
        """Return the process that it lives in."""
        return os.getpid()

    def state(self) -> Tree | None:
        """Return the worker's state, if it has begun."""
        return {**self.worker.state(), "gradient": gradient_state(self.gradient_learner)} if self.worker else None


@dataclass(frozen=True)
class Pending:
    """A request to a worker that is under way."""

    worker: int
    actor: Any
    request: Request
    weights: Any
    product: Any
    """Where the product will be, apart from the report; None where it is read here, and comes with it."""


class RayBackend:
    """Workers as actors; replay shards, where there are any, too; and the learner here or as one actor or several."""

    def __init__(self, worker_config: WorkerConfig, check: Callable[[], None]) -> None:
        options = worker_config.options
        self.check, self.worker_config = check, worker_config
        learners = max(options.num_learners, options.num_gpus)
        self.started_ray = connect(reserved(options, worker_config.gpu_share))
        self.shared = ray.put(worker_config)
        self.num_workers = max(1, options.num_workers)
        # first the learners: a worker on the only CPU of a GPU's node would keep a learner from that GPU for ever
        self.learners: Learners = (
            RayLearners(worker_config, self.shared, check) if learners else LocalLearner(worker_config)
        )
        self.actors = [self._actor(index) for index in range(self.num_workers)]
        self.shards: RayShards | None = None
        if options.shards:
            self.shards = RayShards(worker_config, self.learners.count, check)
        self.starts: list[Start] = [(None, 0)] * self.num_workers
        self.losses = [0] * self.num_workers
        self.replacements = 0
        self.requests: dict[Any, Pending] = {}
        self.carried: dict[str, float] = {}

    def _actor(self, index: int) -> Any:
        cpus = self.worker_config.options.num_cpus_per_worker
        return ray.remote(WorkerActor).options(num_cpus=cpus).remote(self.shared, index)

    def weights(self, timesteps: int) -> Any:
        """Return the learner's weights, or a reference to them where they are large or elsewhere."""
        return self.learners.weights(timesteps)

    def local_weights(self, timesteps: int, check: Callable[[], None]) -> Weights:
        """Fetch the learner's weights. Raises RunError if they are lost."""
        weights = self.learners.weights(timesteps)
        if isinstance(weights, ray.ObjectRef):
            try:
                (weights,) = awaited([weights], check, "the learner's weights")
            except LOST as error:
                raise RunError("LearnerLost", f"the learner's process was lost: {summary(error)}") from error
        fetched: Weights = weights
        return fetched

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[EpisodeReport]]:
        """Have all workers sample a fragment at once, and wait for the last."""
        for index in range(self.num_workers):
            self.submit(index, "sample", weights)
        completed: dict[int, Completed] = {}
        while len(completed) < self.num_workers:
            completed.update((each.worker, each) for each in self.poll())
        in_order = [completed[index] for index in range(self.num_workers)]
        return [each.product for each in in_order], [each.report for each in in_order]

    def submit(self, worker: int, request: Request, weights: Any) -> None:
        """Call the worker's actor. A fragment that is read elsewhere is returned apart from its report."""
        actor, product = self.actors[worker], None
        call = getattr(actor, request)
        if request == "gradient" or not (self.learners.remote or self.shards):
            reference = call.remote(weights, self.starts[worker])
        else:
            product, reference = call.options(num_returns=2).remote(weights, self.starts[worker])
        self.requests[reference] = Pending(worker, actor, request, weights, product)

    def in_flight(self, worker: int) -> int:
        """Return how many requests of a worker are under way."""
        return sum(pending.worker == worker for pending in self.requests.values())

    def poll(self) -> list[Completed]:
        """Wait for the first request that is met, and take along whatever else is."""
        patience = Patience(self.check)
        while True:
            waiting = list(self.requests)
            ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL, fetch_local=False)
            patience.pause(bool(ready), self._missing)
            if ready:  # so that nothing waits behind a slow worker
                ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
            completed = [each for each in map(self._receive, ready) if each is not None]
            if completed:
                return completed

    def _missing(self) -> str:
        """Say which workers are waited for."""
        missing = len({pending.worker for pending in self.requests.values()})
        replaced = " (some are being replaced)" if any(self.losses) else ""
        return f"{missing} of {self.num_workers} workers{replaced}"

    def _receive(self, reference: Any) -> Completed | None:
        """Return what a request has brought, or None where it was lost and submitted again."""
        pending = self.requests.pop(reference)
        try:
            received = receive(reference)
        except LOST as error:
            if pending.actor is self.actors[pending.worker]:
                self._replace(pending.worker, error)
            self.submit(pending.worker, pending.request, pending.weights)
            return None
        self.losses[pending.worker] = 0
        product, report = received if pending.product is None else (pending.product, received)
        log_notice(pending.worker, report.notice)
        return Completed(pending.worker, product, report)

    def _replace(self, index: int, error: Exception) -> None:
        self.check()
        self.losses[index] += 1
        if self.losses[index] > LOSSES:
            env = self.worker_config.source.name
            raise RunError(
                "WorkerLost",
                f"worker {index} was lost {LOSSES} times in a row: {summary(error)}. If it is environment {env} that "
                'takes its process with it, vector_env: "subprocess" says which of them, and how',
            )
        log.warning("worker %d was lost and is replaced; its fragment is sampled again (%s)", index, summary(error))
        ray.kill(self.actors[index])
        self.replacements += 1
        self.starts[index] = (None, REPLACEMENT + self.replacements)
        self.actors[index] = self._actor(index)

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """Improve the learner, or all learners together, once."""
        return self.learners.update_from_fragments(fragments, timesteps)

    def apply_gradient(self, gradient: tuple[Gradient, Metrics], timesteps: int) -> Metrics:
        """Take one step of the optimizer along a gradient, and return what its worker reported of it."""
        self.learners.apply_gradient(gradient[0], timesteps)
        return gradient[1]

    def store(self, completed: Completed) -> None:
        """Send a fragment, by reference, to its worker's shard."""
        self._existing_shards.add(completed.worker, completed.product)

    def update_from_replay(self, timesteps: int) -> Metrics:
        """Update from a batch for each learner, of the shards in turn; return no metrics where there is none."""
        shards = self._existing_shards
        drawn: list[Drawn] = []
        for _ in range(self.learners.count):
            if (batch := shards.draw(timesteps)) is None:
                return {}
            drawn.append(batch)
        metrics, td_errors = self.learners.update_from_replay([each.batch for each in drawn], timesteps)
        for each, td_error in zip(drawn, td_errors, strict=True):
            shards.update_priorities(each.shard, each.index, td_error)
        return metrics

    @property
    def _existing_shards(self) -> RayShards:
        if self.shards is None:
            raise TypeError(f"{self.worker_config.algorithm.name} has no replay shards: its options ask for none")
        return self.shards

    def state(self, workers: bool) -> Tree:
        """Return the parts of a checkpoint. A worker that does not answer is left out."""
        tree = self.learners.state()
        if self.shards is not None:
            tree = {**tree, "replay": self.shards.state()}
        strategy = strategy_state(self.carried)
        return {**tree, "strategy": strategy, "workers": self._worker_states() if workers else {}}

    def _worker_states(self) -> Tree:
        states: Tree = {}
        references = [actor.state.remote() for actor in self.actors]
        ray.wait(references, num_returns=len(references), timeout=STATE_PATIENCE)
        for index, reference in enumerate(references):
            try:
                state = ray.get(reference, timeout=0)
            except (*LOST, rex.GetTimeoutError):
                log.warning("worker %d does not answer: its state is not in the checkpoint", index)
            else:
                states |= {} if state is None else {str(index): state}
        return states

    def load(self, tree: Tree, generation: int) -> None:
        """Go on from `state()`; workers take their part of it along with their next request."""
        self.carried = carried_from(tree)
        if self.shards is not None:
            if not self.shards.load(tree["replay"]):
                self.carried.pop(REPLAY_BEGUN, None)
            tree = {**tree, "replay": {}}
        self.learners.load(tree)
        self.starts = [(tree["workers"].get(str(index)), generation) for index in range(self.num_workers)]

    def close(self) -> None:
        """End all actors, and Ray if it was started here."""
        for actor in self.actors:
            ray.kill(actor)
        if self.shards is not None:
            self.shards.close()
        self.learners.close()
        if self.started_ray:
            disconnect()
