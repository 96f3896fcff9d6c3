"""Where workers and the learner live: in this process, or as Ray actors (ray_backend.py)."""

import copy
import logging
from collections import deque
from collections.abc import Callable, Sequence

import torch

from rltrainer.backend.base import learner_state, load_learner, make_learner, make_shards, start_worker
from rltrainer.core.execution import Completed, Request
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, EpisodeReport, Metrics, Weights
from rltrainer.learning.learner import Gradient, Learner
from rltrainer.networks import is_image
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.storage.checkpoint import Tree

log = logging.getLogger(__name__)


class SerialBackend:
    """Everything in this process, one after the other.

    The learner is on `device`. Actions are found there too where observations are images, which are worth the way.
    """

    def __init__(self, worker_config: WorkerConfig, check: Callable[[], None], device: torch.device = CPU) -> None:
        self.check, self.worker_config = check, worker_config
        self.learner = make_learner(worker_config, device)
        self.acts_on = device if is_image(worker_config.spaces.observations) else CPU
        self.num_workers = max(1, worker_config.options.num_workers)
        self.workers = [Worker(worker_config, index, device=self.acts_on) for index in range(self.num_workers)]
        self.requests: deque[tuple[int, Request, Weights]] = deque()
        self.apprentice: Learner | None = None
        self.shards = make_shards(worker_config)
        self.turn = 0

    def weights(self, timesteps: int) -> Weights:
        """See Sampler."""
        return self.learner.weights(timesteps)

    def sample(self, weights: Weights) -> tuple[Sequence[Fragment], list[EpisodeReport]]:
        """See Sampler."""
        fragments, reports = zip(*(worker.sample(weights, self.check) for worker in self.workers), strict=True)
        return list(fragments), list(reports)

    def update_from_fragments(self, fragments: Sequence[Fragment], timesteps: int) -> Metrics:
        """See Sampler."""
        return self.learner.update_from_fragments(list(fragments), timesteps)

    def submit(self, worker: int, request: Request, weights: Weights) -> None:
        """See Sampler."""
        self.requests.append((worker, request, weights))

    def poll(self) -> list[Completed]:
        """See Sampler. One request, the oldest, is met here and now."""
        index, request, weights = self.requests.popleft()
        fragment, report = self.workers[index].sample(weights, self.check)
        if request == "sample":
            return [Completed(index, copy.deepcopy(fragment), report)]  # the worker will write into its own again
        self.apprentice = self.apprentice or make_learner(self.worker_config, self.learner.device)
        return [Completed(index, self.apprentice.gradient(weights, fragment, weights["timesteps"]), report)]

    def apply(self, gradient: tuple[Gradient, Metrics], timesteps: int) -> Metrics:
        """See Sampler."""
        self.learner.apply(gradient[0], timesteps)
        return gradient[1]

    def store(self, done: Completed) -> None:
        """See Sampler."""
        self.shards[done.worker % len(self.shards)].add(done.worker, done.product)

    def update_from_replay(self, timesteps: int) -> Metrics:
        """See Sampler."""
        for _ in self.shards:
            shard = self.shards[self.turn]
            self.turn = (self.turn + 1) % len(self.shards)
            batch = shard.draw(timesteps)
            if batch is not None:
                metrics, td_error = self.learner.update_from_replay(batch, timesteps)
                shard.update_priorities(batch.index, td_error)
                return metrics
        return {}

    def state(self, workers: bool) -> Tree:
        """See Backend."""
        states = {str(worker.index): worker.state() for worker in self.workers} if workers else {}
        tree = learner_state(self.learner)
        shards = {str(i): shard.state() for i, shard in enumerate(self.shards)}
        return {**tree, "replay": shards or tree["replay"], "workers": states}

    def load(self, tree: Tree, generation: int) -> None:
        """See Backend."""
        load_learner(self.learner, tree)
        for i, shard in enumerate(self.shards):
            if str(i) in tree["replay"]:
                shard.load(tree["replay"][str(i)])
        self.requests.clear()
        self.close()
        states = [tree["workers"].get(str(worker.index)) for worker in self.workers]
        self.workers = [
            start_worker(self.worker_config, i, state, generation, self.acts_on) for i, state in enumerate(states)
        ]

    def close(self) -> None:
        """See Backend."""
        for worker in self.workers:
            worker.envs.close()
