"""Workers as Ray actors, and what they sample brought to where it is learnt from.

Weights are put once per version, fragments travel by reference, and a worker that is lost is replaced: its fragment is
sampled again by the replacement.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import exceptions as rex

from rltrainer.api.options import ReplayOptions
from rltrainer.backend.base import make_learner, start_worker
from rltrainer.backend.ray.cluster import LOST, POLL, Patience, connect, disconnect, receive, summary
from rltrainer.backend.ray.learners import Learners, LocalLearner, RayLearners
from rltrainer.backend.ray.shards import RayShards
from rltrainer.core.execution import Completed, Request
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import EpisodeReport, Metrics, Weights
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import per_learner_options
from rltrainer.learning.learner import Gradient, Learner
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.storage.checkpoint import Tree

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
        self.worker_config, self.index = worker_config, index
        self.worker: Worker | None = None
        self.apprentice: Learner | None = None

    def sample(self, weights: Weights, start: Start) -> tuple[Fragment, EpisodeReport]:
        """One fragment; `start` counts for the first alone."""
        if self.worker is None:
            self.worker = start_worker(self.worker_config, self.index, *start)
        return self.worker.sample(weights)

    def gradient(self, weights: Weights, start: Start) -> tuple[tuple[Gradient, Metrics], EpisodeReport]:
        """What one fragment teaches."""
        fragment, report = self.sample(weights, start)
        self.apprentice = self.apprentice or make_learner(self.worker_config)
        return self.apprentice.gradient(weights, fragment, weights["timesteps"]), report

    def pid(self) -> int:
        """The process it lives in."""
        return os.getpid()

    def state(self) -> Tree | None:
        """The worker's state, if it has begun."""
        return self.worker.state() if self.worker else None


@dataclass(frozen=True)
class Pending:
    """What a worker was asked for."""

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
        workers = max(1, options.num_workers) * options.num_cpus_per_worker
        self.began_ray = connect(workers + learners, learners * options.num_gpus)
        self.shared = ray.put(worker_config)
        self.num_workers = max(1, options.num_workers)
        # first the learners: a worker on the only CPU of a GPU's node would keep a learner from that GPU for ever
        self.learners: Learners = (
            RayLearners(worker_config, self.shared, check) if learners else LocalLearner(worker_config)
        )
        self.actors = [self._actor(index) for index in range(self.num_workers)]
        self.shards: RayShards | None = None
        if isinstance(options, ReplayOptions) and options.shards:
            batch_size = per_learner_options(options, self.learners.count).batch_size
            self.shards = RayShards(worker_config, batch_size, self.learners.count, check)
        self.starts: list[Start] = [(None, 0)] * self.num_workers
        self.losses = [0] * self.num_workers
        self.replacements = 0
        self.requests: dict[Any, Pending] = {}

    def _actor(self, index: int) -> Any:
        cpus = self.worker_config.options.num_cpus_per_worker
        return ray.remote(WorkerActor).options(num_cpus=cpus).remote(self.shared, index)

    def weights(self, timesteps: int) -> Any:
        """See Sampler."""
        return self.learners.weights(timesteps)

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[EpisodeReport]]:
        """See Sampler."""
        for index in range(self.num_workers):
            self.submit(index, "sample", weights)
        done: dict[int, Completed] = {}
        while len(done) < self.num_workers:
            done.update((each.worker, each) for each in self.poll())
        order = range(self.num_workers)
        return [done[i].product for i in order], [done[i].report for i in order]

    def submit(self, worker: int, request: Request, weights: Any) -> None:
        """See Sampler."""
        actor, product = self.actors[worker], None
        call = getattr(actor, request)
        if request == "gradient" or not (self.learners.remote or self.shards):
            answer = call.remote(weights, self.starts[worker])
        else:
            product, answer = call.options(num_returns=2).remote(weights, self.starts[worker])
        self.requests[answer] = Pending(worker, actor, request, weights, product)

    def poll(self) -> list[Completed]:
        """See Sampler."""
        patience = Patience(self.check)
        while True:
            waiting = list(self.requests)
            ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL, fetch_local=False)
            patience.pause(bool(ready), self._missing)
            if ready:  # what else is there is taken along, so that nothing waits behind a slow worker
                ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
            done = [each for each in map(self._receive, ready) if each is not None]
            if done:
                return done

    def _missing(self) -> str:
        """Which workers are waited for."""
        missing = len({pending.worker for pending in self.requests.values()})
        replaced = " (some are being replaced)" if any(self.losses) else ""
        return f"{missing} of {self.num_workers} workers{replaced}"

    def _receive(self, reference: Any) -> Completed | None:
        """What a request has brought, or None where it was lost and begun again."""
        pending = self.requests.pop(reference)
        try:
            answer = receive(reference)
        except LOST as error:
            if pending.actor is self.actors[pending.worker]:
                self._replace(pending.worker, error)
            self.submit(pending.worker, pending.request, pending.weights)
            return None
        self.losses[pending.worker] = 0
        product, report = answer if pending.product is None else (pending.product, answer)
        return Completed(pending.worker, product, report)

    def _replace(self, index: int, error: Exception) -> None:
        self.check()
        self.losses[index] += 1
        if self.losses[index] > LOSSES:
            raise RunError("WorkerLost", f"worker {index} was lost {LOSSES} times in a row: {summary(error)}")
        log.warning("worker %d was lost and is replaced; its fragment is sampled again (%s)", index, summary(error))
        ray.kill(self.actors[index])
        self.replacements += 1
        self.starts[index] = (None, REPLACEMENT + self.replacements)
        self.actors[index] = self._actor(index)

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """See Sampler."""
        return self.learners.update_from_fragments(fragments, timesteps)

    def apply(self, gradient: tuple[Gradient, Metrics], timesteps: int) -> Metrics:
        """See Sampler."""
        self.learners.apply(gradient[0], timesteps)
        return gradient[1]

    def store(self, done: Completed) -> None:
        """See Sampler."""
        self._shards.add(done.worker, done.product)

    def update_from_replay(self, timesteps: int) -> Metrics:
        """See Sampler. Each learner has a batch of its own, of the shards in turn."""
        drawn = []
        for _ in range(self.learners.count):
            if (found := self._shards.draw(timesteps)) is None:
                return {}
            drawn.append(found)
        metrics, td_errors = self.learners.update_from_replay([batch for _, _, batch in drawn], timesteps)
        for (shard, index, _), td_error in zip(drawn, td_errors, strict=True):
            self._shards.update_priorities(shard, index, td_error)
        return metrics

    @property
    def _shards(self) -> RayShards:
        if self.shards is None:
            raise TypeError(f"{self.worker_config.algorithm.name} has no replay shards: its options ask for none")
        return self.shards

    def state(self, workers: bool) -> Tree:
        """See Backend. A worker that does not answer is left out."""
        tree = self.learners.state()
        if self.shards is not None:
            tree = {**tree, "replay": self.shards.state()}
        return {**tree, "workers": self._worker_states() if workers else {}}

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
        """See Backend."""
        if self.shards is not None:
            self.shards.load(tree["replay"])
            tree = {**tree, "replay": {}}
        self.learners.load(tree)
        self.starts = [(tree["workers"].get(str(index)), generation) for index in range(self.num_workers)]

    def close(self) -> None:
        """See Backend."""
        for actor in self.actors:
            ray.kill(actor)
        if self.shards is not None:
            self.shards.close()
        self.learners.close()
        if self.began_ray:
            disconnect()
