"""What a worker samples in one go: T steps of B environments, time first, and one observation more."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rltrainer.core.types import Array


@dataclass
class Fragment:
    """Steps of B environments in arrays [T, B] that the worker has written in place.

    obs[t + 1] always is what followed a[t], the last observation of an episode included. The step after that one only
    begins the next episode: it is not valid, and what was done in it means nothing.
    """

    obs: Array
    """Observations [T + 1, B, *shape]; obs[t] was acted upon with a[t]."""
    a: Array
    """Actions [T, B, *action_shape], as the policy drew them."""
    r: Array
    """Rewards [T, B], float32, as the environment gave them; those of Atari games clipped to [-1, 1]."""
    terminated: Array
    """[T, B], bool: the episode ended in a[t], and nothing comes after it."""
    truncated: Array
    """[T, B], bool: the episode was cut after a[t], though it would have gone on."""
    valid: Array
    """[T, B], bool: False in a step with which the environment only began its next episode."""
    extras: dict[str, Array] = field(default_factory=dict)
    """What the policy noted of each action, [T, B, ...], by name."""
    state: dict[str, Array] = field(default_factory=dict)
    """What the policy remembered before obs[0], [B, ...], by name."""
    priorities: Array | None = None
    """First priorities of the steps in a replay buffer, [T, B], where the worker finds them."""


@dataclass
class Batch:
    """Fragments side by side, as tensors on the learner's device. Fields as in Fragment."""

    obs: Tensor
    a: Tensor
    r: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def done(self) -> Tensor:
        """Episodes that ended, either way: [T, B], bool."""
        return self.terminated | self.truncated

    @property
    def begins(self) -> Tensor:
        """Whether obs[t + 1] is the first of an episode: [T, B], bool. The memory of what came before ends there."""
        return ~self.valid

    def discount(self, gamma: float) -> Tensor:
        """gamma, or 0 where the episode terminated: [T, B]."""
        return gamma * (~self.terminated).to(self.r.dtype)

    def trace(self, lambda_: float = 1.0) -> Tensor:
        """lambda, or 0 where the episode ended, either way: [T, B]."""
        return lambda_ * (~self.done).to(self.r.dtype)


ARRAYS = ("obs", "a", "r", "terminated", "truncated", "valid")


def collate(fragments: list[Fragment], device: torch.device) -> Batch:
    """`fragments` of equal length side by side, in their order. One alone on the CPU is not copied."""
    first = fragments[0]
    return Batch(
        **{name: _tensor([getattr(fragment, name) for fragment in fragments], device, 1) for name in ARRAYS},
        extras={name: _tensor([f.extras[name] for f in fragments], device, 1) for name in first.extras},
        state={name: _tensor([f.state[name] for f in fragments], device, 0) for name in first.state},
    )


def _tensor(arrays: list[Array], device: torch.device, axis: int) -> Tensor:
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
    if not array.flags.writeable:  # as arrays from Ray's object store are, and torch has no read-only tensors
        array = array.copy()
    return torch.from_numpy(array).to(device, non_blocking=True)
