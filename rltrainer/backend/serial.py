"""Workers and the learner in this process, one after the other."""

import copy
from collections import deque
from collections.abc import Callable, Sequence

import torch

from rltrainer.backend.base import learner_state, load_learner, make_learner, make_shards, start_worker
from rltrainer.core.execution import Completed, Request
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, EpisodeReport, Metrics, Tree, Weights
from rltrainer.learning.learner import Gradient, Learner
from rltrainer.networks import is_image
from rltrainer.sampling.worker import Worker, WorkerConfig


class SerialBackend:
    """Everything in this process.

    The learner is on `device`. Policies act there too where observations are images: those are worth the copy.
    """

    def __init__(self, worker_config: WorkerConfig, check: Callable[[], None], device: torch.device = CPU) -> None:
        self.check, self.worker_config = check, worker_config
        self.learner = make_learner(worker_config, device)
        self.acting_device = device if is_image(worker_config.spaces.observations) else CPU
        self.num_workers = max(1, worker_config.options.num_workers)
        self.workers = [Worker(worker_config, index, device=self.acting_device) for index in range(self.num_workers)]
        self.requests: deque[tuple[int, Request, Weights]] = deque()
        self.gradient_learner: Learner | None = None
        """What finds gradients on behalf of the workers, from whatever weights they sampled with."""
        self.shards = make_shards(worker_config)
        self.next_shard = 0

    def weights(self, timesteps: int) -> Weights:
        """Copy the learner's weights."""
        return self.learner.weights(timesteps)

    def local_weights(self, timesteps: int, check: Callable[[], None]) -> Weights:
        """Copy the learner's weights: it is in this process."""
        return self.weights(timesteps)

    def sample(self, weights: Weights) -> tuple[Sequence[Fragment], list[EpisodeReport]]:
        """Have one worker after the other sample its fragment."""
        fragments, reports = zip(*(worker.sample(weights, self.check) for worker in self.workers), strict=True)
        return list(fragments), list(reports)

    def update_from_fragments(self, fragments: Sequence[Fragment], timesteps: int) -> Metrics:
        """Improve the learner once."""
        return self.learner.update_from_fragments(list(fragments), timesteps)

    def submit(self, worker: int, request: Request, weights: Weights) -> None:
        """Put the request at the end of the queue."""
        self.requests.append((worker, request, weights))

    def poll(self) -> list[Completed]:
        """Meet the oldest request, here and now."""
        index, request, weights = self.requests.popleft()
        fragment, report = self.workers[index].sample(weights, self.check)
        if request == "sample":
            return [Completed(index, copy.deepcopy(fragment), report)]  # the worker will write into its own again
        self.gradient_learner = self.gradient_learner or make_learner(self.worker_config, self.learner.device)
        gradient = self.gradient_learner.gradient(weights, fragment, weights["timesteps"])
        return [Completed(index, gradient, report)]

    def apply_gradient(self, gradient: tuple[Gradient, Metrics], timesteps: int) -> Metrics:
        """Take one step of the optimizer along a gradient, and return what its worker reported of it."""
        self.learner.apply_gradient(gradient[0], timesteps)
        return gradient[1]

    def store(self, completed: Completed) -> None:
        """Add a fragment to its worker's shard."""
        self.shards[completed.worker % len(self.shards)].add(completed.worker, completed.product)

    def update_from_replay(self, timesteps: int) -> Metrics:
        """Update from the next shard that holds anything; return no metrics where none does."""
        for _ in self.shards:
            shard = self.shards[self.next_shard]
            self.next_shard = (self.next_shard + 1) % len(self.shards)
            batch = shard.draw(timesteps)
            if batch is not None:
                metrics, td_error = self.learner.update_from_replay(batch, timesteps)
                shard.update_priorities(batch.index, td_error)
                return metrics
        return {}

    def state(self, workers: bool) -> Tree:
        """Return the checkpoint's parts of learner, replay and, with `workers`, every worker."""
        states = {str(worker.index): worker.state() for worker in self.workers} if workers else {}
        tree = learner_state(self.learner)
        shards = {str(i): shard.state() for i, shard in enumerate(self.shards)}
        return {**tree, "replay": shards or tree["replay"], "workers": states}

    def load(self, tree: Tree, generation: int) -> None:
        """Go on from `state()` with new workers, and without the requests that were under way."""
        load_learner(self.learner, tree)
        for i, shard in enumerate(self.shards):
            if str(i) in tree["replay"]:
                shard.load(tree["replay"][str(i)])
        self.requests.clear()
        self.close()
        states = [tree["workers"].get(str(worker.index)) for worker in self.workers]
        self.workers = [
            start_worker(self.worker_config, i, state, generation, self.acting_device) for i, state in enumerate(states)
        ]

    def close(self) -> None:
        """Close the environments."""
        for worker in self.workers:
            worker.envs.close()
