"""Where workers and the learner live: in this process, or as Ray actors (ray_backend.py)."""

import copy
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from rltrainer.api.options import ReplayOptions
from rltrainer.backend.ray.settings import CURRENT as RAY
from rltrainer.core.algorithm import Metrics
from rltrainer.core.execution import Done, Sampler, Task
from rltrainer.core.fragment import CPU, Fragment
from rltrainer.learning.learner import Gradient, Learner
from rltrainer.networks import is_image
from rltrainer.networks.parameters import Weights
from rltrainer.replay.shards import Shard, load_replay, shard_count
from rltrainer.sampling.worker import Blueprint, Report, Worker
from rltrainer.seeding import Role, derived_seed
from rltrainer.storage.checkpoint import Tree

log = logging.getLogger(__name__)


class Backend(Sampler, Protocol):
    """Workers and a learner, wherever they are."""

    def state(self, workers: bool) -> Tree:
        """The parts `policy`, `learner` and `workers` of a checkpoint; without `workers`, these are left out."""

    def load(self, tree: Tree, generation: int) -> None:
        """Goes on from `state()`. Workers that are not in it, or cannot be restored, begin as that generation."""

    def close(self) -> None:
        """Ends workers and learner."""


def make_learner(blueprint: Blueprint, device: torch.device = CPU) -> Learner:
    """A learner on `device`."""
    return Learner(blueprint.algorithm, blueprint.spaces, blueprint.options, blueprint.seed, device)


def learner_state(learner: Learner) -> Tree:
    """The learner's parts of a checkpoint."""
    replay = learner.replay.state() if learner.replay is not None else {}
    return {"policy": learner.policy(), "learner": learner.state(), "replay": {"0": replay} if replay else {}}


def load_learner(learner: Learner, tree: Tree) -> None:
    """Goes on from `learner_state()`; a replay buffer that is not in it begins empty."""
    learner.load(tree["policy"], tree["learner"])
    if isinstance(learner.options, ReplayOptions) and learner.replay is not None and "0" in tree["replay"]:
        learner.replay = load_replay(learner.options, tree["replay"]["0"], learner.device)


def make_shards(blueprint: Blueprint) -> list[Shard]:
    """The replay shards, where the options ask for any."""
    options = blueprint.options
    if not isinstance(options, ReplayOptions):
        return []
    return [Shard(options, derived_seed(blueprint.seed, Role.REPLAY, i)) for i in range(shard_count(options))]


def start_worker(
    blueprint: Blueprint, index: int, state: Tree | None, generation: int, device: torch.device = CPU
) -> Worker:
    """A worker that acts on `device` and goes on from `state`, or begins as `generation` where that cannot be."""
    if state is None or state["envs"] is None or len(state["obs"]) != blueprint.options.num_envs_per_worker:
        return Worker(blueprint, index, generation, device)
    worker = Worker(blueprint, index, device=device)
    worker.load(state)
    return worker


class SerialBackend:
    """Everything in this process, one after the other.

    The learner is on `device`. Actions are found there too where observations are images, which are worth the way.
    """

    def __init__(self, blueprint: Blueprint, check: Callable[[], None], device: torch.device = CPU) -> None:
        self.check, self.blueprint = check, blueprint
        self.learner = make_learner(blueprint, device)
        self.acts_on = device if is_image(blueprint.spaces.observations) else CPU
        self.num_workers = max(1, blueprint.options.num_workers)
        self.workers = [Worker(blueprint, index, device=self.acts_on) for index in range(self.num_workers)]
        self.requests: deque[tuple[int, Task, Weights]] = deque()
        self.apprentice: Learner | None = None
        self.shards = make_shards(blueprint)
        self.turn = 0

    def weights(self, timesteps: int) -> Weights:
        """See Sampler."""
        return self.learner.weights(timesteps)

    def sample(self, weights: Weights) -> tuple[Sequence[Fragment], list[Report]]:
        """See Sampler."""
        fragments, reports = zip(*(worker.sample(weights, self.check) for worker in self.workers), strict=True)
        return list(fragments), list(reports)

    def improve(self, fragments: Sequence[Fragment], timesteps: int) -> Metrics:
        """See Sampler."""
        return self.learner.improve(list(fragments), timesteps)

    def begin(self, worker: int, task: Task, weights: Weights) -> None:
        """See Sampler."""
        self.requests.append((worker, task, weights))

    def finished(self) -> list[Done]:
        """See Sampler. One request, the oldest, is met here and now."""
        index, task, weights = self.requests.popleft()
        fragment, report = self.workers[index].sample(weights, self.check)
        if task == "sample":
            return [Done(index, copy.deepcopy(fragment), report)]  # the worker will write into its own again
        self.apprentice = self.apprentice or make_learner(self.blueprint, self.learner.device)
        return [Done(index, self.apprentice.gradient(weights, fragment, weights["timesteps"]), report)]

    def apply(self, gradient: tuple[Gradient, Metrics], timesteps: int) -> Metrics:
        """See Sampler."""
        self.learner.apply(gradient[0], timesteps)
        return gradient[1]

    def store(self, done: Done) -> None:
        """See Sampler."""
        self.shards[done.worker % len(self.shards)].add(done.worker, done.product)

    def replayed(self, timesteps: int) -> Metrics:
        """See Sampler."""
        for _ in self.shards:
            shard = self.shards[self.turn]
            self.turn = (self.turn + 1) % len(self.shards)
            batch = shard.draw(timesteps)
            if batch is not None:
                metrics, td_error = self.learner.improve_on(batch, timesteps)
                shard.reprioritise(batch.index, td_error)
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
            start_worker(self.blueprint, i, state, generation, self.acts_on) for i, state in enumerate(states)
        ]

    def close(self) -> None:
        """See Backend."""
        for worker in self.workers:
            worker.envs.close()


def open_backend(blueprint: Blueprint, check: Callable[[], None]) -> Backend:
    """This process alone, on its own GPU where the options ask for one; Ray where they ask for workers, or for a GPU
    that this process has not, or where a cluster is named."""
    options = blueprint.options
    cluster = RAY.given or os.environ.get("RAY_ADDRESS")
    here = bool(options.num_gpus) and not cluster and torch.cuda.is_available()
    if options.num_workers or (options.num_gpus and not here):
        # Ray would start each worker by `uv run` where this process was, which installs the project anew and can hang.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        from rltrainer.backend.ray.backend import RayBackend  # noqa: PLC0415 - two seconds that a serial run has no use for

        return RayBackend(blueprint, check)
    if not here:
        return SerialBackend(blueprint, check)
    log.info("learning on a GPU: %s", torch.cuda.get_device_name())
    return SerialBackend(blueprint, check, torch.device("cuda"))
