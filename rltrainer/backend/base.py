"""What every backend is, and the pieces that each is built of."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from rltrainer.core.execution import REPLAY_BEGUN, Sampler
from rltrainer.core.types import CPU, Tree, Weights
from rltrainer.envs.chain import NotRestoredError
from rltrainer.learning.data_parallel import Peers, per_learner_options
from rltrainer.learning.learner import Learner
from rltrainer.learning.update_context import UpdateContext
from rltrainer.replay.shards import Shard
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)


class Backend(Sampler, Protocol):
    """Workers and a learner, wherever they are."""

    def local_weights(self, timesteps: int, check: Callable[[], None]) -> Weights:
        """Return the learner's weights themselves, `timesteps` into the run, in this process.

        Raises RunError if the learner is lost, and what `check`, called while they are waited for, raises.
        """

    def state(self, workers: bool) -> Tree:
        """Return the parts `policy`, `learner`, `replay`, `strategy` and `workers` of a checkpoint.

        Without `workers` that part is empty: they are then somewhere within a fragment.
        """

    def load(self, tree: Tree, generation: int) -> None:
        """Go on from `state()`. Workers that are not in it, or cannot be restored, begin as that generation."""

    def close(self) -> None:
        """End workers and learner."""


def make_learner(worker_config: WorkerConfig, device: torch.device = CPU, peers: Peers | None = None) -> Learner:
    """Build a learner on `device`; one of several, which has `peers`, takes its share of the group's options."""
    options = worker_config.options if peers is None else per_learner_options(worker_config.options, peers.size)
    context = UpdateContext(worker_config.algorithm, worker_config.spaces, options, worker_config.seed, device, peers)
    return Learner(context)


def learner_state(learner: Learner) -> Tree:
    """Return the learner's parts of a checkpoint."""
    replay = learner.feed.replay.state() if learner.feed is not None else {}
    return {"policy": learner.policy(), "learner": learner.state(), "replay": {"0": replay} if replay else {}}


def load_learner(learner: Learner, tree: Tree) -> None:
    """Go on from `learner_state()`; a replay buffer that is not in it begins empty."""
    learner.load(tree["policy"], tree["learner"])
    if learner.feed is not None:
        learner.feed.load(tree["replay"].get("0"), learner.context.counters)


def make_shards(worker_config: WorkerConfig) -> list[Shard]:
    """Build the replay shards, where the options ask for any."""
    options: Any = worker_config.options  # of an algorithm with shards, wherever there are any to build
    return [Shard(options, derived_seed(worker_config.seed, Role.REPLAY, i)) for i in range(options.shards)]


def strategy_state(carried: dict[str, float]) -> Tree:
    """Return the part `strategy` of a checkpoint: what a strategy carries from one round to the next."""
    return {"carried": dict(carried)}


def carried_from(tree: Tree) -> dict[str, float]:
    """Return what a strategy carries on from a checkpoint. In older ones, without it, replay began with the run."""
    return dict(tree.get("strategy", {}).get("carried", {REPLAY_BEGUN: 0}))


def start_worker(
    worker_config: WorkerConfig, index: int, state: Tree | None, generation: int, device: torch.device = CPU
) -> Worker:
    """Build a worker that acts on `device` and goes on from `state`, or begins as `generation` where that cannot be.

    Its `notice` then says why, unless there is no state.
    """
    worker = Worker(worker_config, index, generation, device)
    if state is None:
        return worker
    num_envs = worker_config.options.num_envs_per_worker
    if state["envs"] is None:
        worker.notice = "its environments' state is not in the checkpoint"
    elif len(state["obs"]) != num_envs:
        worker.notice = f"the checkpoint is of {len(state['obs'])} environments, and it has {num_envs}"
    else:
        try:
            worker.load(copy.deepcopy(state))  # its own from now on: arrays that come through Ray are read-only
        except NotRestoredError as error:
            worker.begin(generation)
            worker.notice = str(error)
    return worker


def log_notice(worker: int, notice: str) -> None:
    """Log why a worker does not go on from a checkpoint's state, where it does not."""
    if notice:
        log.warning("worker %d begins new episodes: %s", worker, notice)


def gradient_state(learner: Learner | None) -> Tree:
    """Return what finding gradients goes on from, but the networks; nothing where none was found yet."""
    if learner is None:
        return {}
    state = learner.state()
    return {name: state[name] for name in ("rng", "memory", "rewards")}


def load_gradient_learner(worker_config: WorkerConfig, tree: Tree, device: torch.device = CPU) -> Learner | None:
    """Build what finds gradients, as it was at `gradient_state()`; None where there was none."""
    if not tree:
        return None
    learner = make_learner(worker_config, device)
    learner.load(learner.policy(), {**learner.state(), **copy.deepcopy(tree)})
    return learner


def log_devices(names: Sequence[str]) -> None:
    """Log the GPUs that learners, which were to have some, have got; an empty name is that of a learner without."""
    if all(names):
        log.info("learning on a GPU: %s", ", ".join(names))
    else:
        log.warning("PyTorch sees no CUDA on a learner's node: it learns on the CPU")
