"""What every backend is, and the pieces that each is built of."""

from typing import Protocol

import torch

from rltrainer.api.options import ReplayOptions
from rltrainer.core.execution import Sampler
from rltrainer.core.types import CPU
from rltrainer.learning.learner import Learner
from rltrainer.replay.shards import Shard
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.seeding import Role, derived_seed
from rltrainer.storage.checkpoint import Tree


class Backend(Sampler, Protocol):
    """Workers and a learner, wherever they are."""

    def state(self, workers: bool) -> Tree:
        """The parts `policy`, `learner` and `workers` of a checkpoint; without `workers`, these are left out."""

    def load(self, tree: Tree, generation: int) -> None:
        """Goes on from `state()`. Workers that are not in it, or cannot be restored, begin as that generation."""

    def close(self) -> None:
        """Ends workers and learner."""


def make_learner(worker_config: WorkerConfig, device: torch.device = CPU) -> Learner:
    """A learner on `device`."""
    return Learner(worker_config.algorithm, worker_config.spaces, worker_config.options, worker_config.seed, device)


def learner_state(learner: Learner) -> Tree:
    """The learner's parts of a checkpoint."""
    replay = learner.feed.replay.state() if learner.feed is not None else {}
    return {"policy": learner.policy(), "learner": learner.state(), "replay": {"0": replay} if replay else {}}


def load_learner(learner: Learner, tree: Tree) -> None:
    """Goes on from `learner_state()`; a replay buffer that is not in it begins empty."""
    learner.load(tree["policy"], tree["learner"])
    if learner.feed is not None and "0" in tree["replay"]:
        learner.feed.load(tree["replay"]["0"])


def make_shards(worker_config: WorkerConfig) -> list[Shard]:
    """The replay shards, where the options ask for any."""
    options = worker_config.options
    if not isinstance(options, ReplayOptions):
        return []
    return [Shard(options, derived_seed(worker_config.seed, Role.REPLAY, i)) for i in range(options.shards)]


def start_worker(
    worker_config: WorkerConfig, index: int, state: Tree | None, generation: int, device: torch.device = CPU
) -> Worker:
    """A worker that acts on `device` and goes on from `state`, or begins as `generation` where that cannot be."""
    if state is None or state["envs"] is None or len(state["obs"]) != worker_config.options.num_envs_per_worker:
        return Worker(worker_config, index, generation, device)
    worker = Worker(worker_config, index, device=device)
    worker.load(state)
    return worker
