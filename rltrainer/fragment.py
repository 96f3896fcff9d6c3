"""What a worker samples in one go: T steps of B environments, time first, and one observation more."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


@dataclass
class Fragment:
    """Steps of B environments in arrays [T, B] that the worker has written in place."""

    obs: Array
    """Observations [T + 1, B, *shape]; obs[t] was acted upon with a[t]."""
    a: Array
    """Actions [T, B, *action_shape], as the policy drew them."""
    r: Array
    """Rewards [T, B], float32, as the environment gave them."""
    terminated: Array
    """[T, B], bool: the episode ended in a[t], and nothing comes after it."""
    truncated: Array
    """[T, B], bool: the episode was cut after a[t], though it would have gone on."""
    valid: Array
    """[T, B], bool: False in a step with which the environment only began its next episode."""
    final_at: Array
    """Where episodes were truncated and obs[t + 1] is already the next one's: pairs (t, b), [N, 2]."""
    final_obs: Array
    """The observations those episodes ended in: [N, *shape]."""
    extras: dict[str, Array] = field(default_factory=dict)
    """What the policy noted of each action, [T, B, ...], by name."""


@dataclass
class Batch:
    """Fragments side by side, as tensors on the learner's device. Fields as in Fragment."""

    obs: Tensor
    a: Tensor
    r: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_at: Tensor
    final_obs: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def done(self) -> Tensor:
        """Episodes that ended, either way: [T, B], bool."""
        return self.terminated | self.truncated

    def discount(self, gamma: float) -> Tensor:
        """gamma, or 0 where the episode terminated: [T, B]."""
        return gamma * (~self.terminated).to(self.r.dtype)

    def next_values(self, v: Tensor, final_v: Tensor) -> Tensor:
        """Values [T, B] of what followed each step, from v [T + 1, B] and those of `final_obs` [N]."""
        v_tp1 = v[1:].clone()
        v_tp1[self.final_at[:, 0], self.final_at[:, 1]] = final_v
        return v_tp1


def collate(fragments: list[Fragment], device: torch.device) -> Batch:
    """`fragments` side by side, in their order. One alone on the CPU is not copied."""
    offsets = np.cumsum([0, *(fragment.r.shape[1] for fragment in fragments[:-1])])
    at = [fragment.final_at + np.array([0, offset]) for fragment, offset in zip(fragments, offsets, strict=True)]
    merged = {
        name: _tensor([getattr(fragment, name) for fragment in fragments], device, axis=1)
        for name in (f.name for f in fields(Fragment))
        if name not in ("final_at", "final_obs", "extras")
    }
    return Batch(
        **merged,
        final_at=_tensor(at, device, axis=0),
        final_obs=_tensor([fragment.final_obs for fragment in fragments], device, axis=0),
        extras={k: _tensor([f.extras[k] for f in fragments], device, axis=1) for k in fragments[0].extras},
    )


def _tensor(arrays: list[Array], device: torch.device, axis: int) -> Tensor:
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
    if not array.flags.writeable:  # as arrays from Ray's object store are, and torch has no read-only tensors
        array = array.copy()
    return torch.from_numpy(array).to(device, non_blocking=True)
