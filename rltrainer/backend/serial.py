"""Workers and the learner in this process, one after the other."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import torch

from rltrainer.backend.base import (
    carried_from,
    gradient_state,
    learner_state,
    load_gradient_learner,
    load_learner,
    log_notice,
    make_learner,
    make_shards,
    start_worker,
    strategy_state,
)
from rltrainer.core.execution import REPLAY_BEGUN, Completed, Request
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
        self.carried: dict[str, float] = {}
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

    def in_flight(self, worker: int) -> int:
        """Return how many requests of a worker wait to be met."""
        return sum(index == worker for index, _, _ in self.requests)

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
        strategy = {
            **strategy_state(self.carried),
            **queue_state(self.requests if workers else ()),
            "next_shard": self.next_shard,
            "gradient": gradient_state(self.gradient_learner),
        }
        return {**tree, "replay": shards or tree["replay"], "strategy": strategy, "workers": states}

    def load(self, tree: Tree, generation: int) -> None:
        """Go on from `state()` with new workers, which have the requests that were under way."""
        load_learner(self.learner, tree)
        self.carried = carried_from(tree)
        replay = [shard.load(tree["replay"][str(i)]) for i, shard in enumerate(self.shards) if str(i) in tree["replay"]]
        if not any(replay):
            self.carried.pop(REPLAY_BEGUN, None)
        strategy = tree.get("strategy", {})
        self.requests = queue_from(strategy, self.num_workers)
        self.next_shard = int(strategy.get("next_shard", 0)) % max(1, len(self.shards))
        gradient = strategy.get("gradient", {})
        self.gradient_learner = load_gradient_learner(self.worker_config, gradient, self.learner.device)
        self.close()
        self.workers = [
            start_worker(self.worker_config, i, tree["workers"].get(str(i)), generation, self.acting_device)
            for i in range(self.num_workers)
        ]
        for worker in self.workers:
            log_notice(worker.index, worker.notice)

    def close(self) -> None:
        """Close the environments."""
        for worker in self.workers:
            worker.close()


Queued = tuple[int, Request, Weights]
"""A worker's number, what it is asked for, and the weights that it is to sample with."""


def queue_state(requests: Iterable[Queued]) -> Tree:
    """Return requests that are not met yet, and each version of the weights that they name once."""
    versions = {id(weights): weights for _, _, weights in requests}
    number = {version: str(i) for i, version in enumerate(versions)}
    return {
        "requests": [
            {"worker": worker, "request": request, "weights": number[id(weights)]}
            for worker, request, weights in requests
        ],
        "weights": {number[version]: weights for version, weights in versions.items()},
    }


def queue_from(strategy: Tree, num_workers: int) -> deque[Queued]:
    """Return the requests of a `queue_state()`; those of workers that there are no longer are left out."""
    return deque(
        (int(each["worker"]), each["request"], strategy["weights"][each["weights"]])
        for each in strategy.get("requests", [])
        if each["worker"] < num_workers
    )
