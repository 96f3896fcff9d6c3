"""Replay buffers as a run has them: one beside the learner, or several shards that the workers are dealt out to."""

import logging
from typing import Any

import torch

from rltrainer.api.options import ReplayBuffer
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, Array
from rltrainer.ops.schedules import at
from rltrainer.replay.buffer import Replay, Transitions

log = logging.getLogger(__name__)

EMPTY = "the replay buffer begins empty, and learning_starts counts from here"


def new_replay(options: ReplayBuffer, device: torch.device = CPU) -> Replay:
    """Make an empty buffer: all of replay, or one shard of it."""
    shards = options.shards or 1
    return Replay(
        capacity=options.buffer_size // shards,
        gamma=options.gamma,
        n_step=options.n_step,
        prioritized=options.prioritized,
        alpha=options.priority_alpha,
        epsilon=options.priority_epsilon,
        streams=-(-max(1, options.num_workers) // shards),
        device=device,
    )


def load_replay(options: ReplayBuffer, state: dict[str, Any], device: torch.device = CPU) -> Replay | None:
    """Make a buffer that goes on from `Replay.state()`; None, with a warning, if that is of another size or workers."""
    replay = new_replay(options, device)
    try:
        replay.load(state)
    except ValueError as error:
        log.warning("%s: %s", EMPTY, error)
        return None
    if replay.num_envs not in (0, options.num_envs_per_worker):
        log.warning("%s: it was filled by workers of %d environments", EMPTY, replay.num_envs)
        return None
    return replay


def beta_at(options: ReplayBuffer, timesteps: int) -> float:
    """Return the exponent of the importance weights, `timesteps` into the run."""
    return at(options.priority_beta_schedule, options.priority_beta, timesteps)


class Shard:
    """One buffer of several. Of n shards, worker w fills stream w // n of shard w % n."""

    def __init__(self, options: ReplayBuffer, seed: int) -> None:
        self.options, self.shards = options, options.shards
        self.replay = new_replay(options)
        self.rng = torch.Generator().manual_seed(seed)

    def add(self, worker: int, fragment: Fragment) -> None:
        """Store a worker's fragment."""
        self.replay.add(fragment, worker // self.shards, fragment.priorities)

    def draw(self, timesteps: int) -> Transitions | None:
        """Draw a batch for the learner, on the CPU; None while there is nothing to draw from."""
        if not len(self.replay):
            return None
        return self.replay.sample(self.options.batch_size, self.rng, beta_at(self.options, timesteps))

    def update_priorities(self, index: Array, td_error: Array) -> None:
        """Set the learner's |TD errors| [N] as the priorities of the transitions at `index` [N]."""
        if self.options.prioritized:
            self.replay.update_priorities(index, td_error)

    def state(self) -> dict[str, Any]:
        """Return everything that sampling from it goes on from."""
        return {"rng": self.rng.get_state(), "buffer": self.replay.state()}

    def load(self, state: dict[str, Any]) -> bool:
        """Go on from `state()`; return whether its buffer was of the same size and workers. Else this one is empty."""
        self.rng.set_state(torch.as_tensor(state["rng"]))
        held = load_replay(self.options, state["buffer"])
        self.replay = new_replay(self.options) if held is None else held
        return held is not None
