"""Running statistics of observations and rewards. They are state: a checkpoint and a policy carry them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen, merged batch by batch: Chan, Golub and LeVeque 1979, eq. 2.1."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, rows: Tensor) -> None:
        """Take in `rows` [N, *shape]; N may be 0."""
        if not len(rows):
            return
        rows = rows.double()
        count = self.count + len(rows)
        delta = rows.mean(0) - self.mean
        squares = self.var * self.count + rows.var(0, correction=0) * len(rows)
        self.var.copy_((squares + delta.square() * self.count * len(rows) / count) / count)
        self.mean.add_(delta * len(rows) / count)
        self.count.copy_(count)


class ObservationNormalizer(RunningMoments):
    """(obs - mean) / deviation, clipped to +-10 deviations. Frozen between updates, so acting and learning agree.

    Of observations of several parts it may normalize one, those elements of the last axis that are at `part`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, shape: tuple[int, ...], part: slice = slice(None)) -> None:
        super().__init__(shape)
        self.shape, self.part = shape, part
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("shift", torch.zeros(shape))

    def update(self, rows: Tensor) -> None:
        """Take in whole observations: `rows` [N, *shape], or [N, all elements] where this normalizes one part."""
        super().update(rows[..., self.part].reshape(-1, *self.shape))
        scale = (self.var + 1e-8).rsqrt()
        self.scale.copy_(scale)
        self.shift.copy_(-self.mean * scale)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [..., *shape], or the part of them that this normalizes, normalized."""
        return torch.addcmul(self.shift, obs, self.scale).clamp_(-10.0, 10.0)


class RewardNormalizer(RunningMoments):
    """Rewards divided by the running deviation of the discounted return: Engstrom et al. 2020, arXiv 2005.12729."""

    def __init__(self) -> None:
        super().__init__(())

    def forward(self, r_t: Tensor, return_t: Tensor, valid_t: Tensor) -> Tensor:
        """Take in rewards, the discounted returns of the episodes so far, and the steps that count, all [T, B].

        Returns the rewards scaled and clipped to +-10 deviations.
        """
        self.update(return_t[valid_t])
        return (r_t * (self.var + 1e-8).rsqrt()).clamp(-10.0, 10.0).to(r_t.dtype)


def discounted_so_far(r_t: NDArray[Any], done_t: NDArray[Any], gamma: float, carried: NDArray[Any]) -> NDArray[Any]:
    """Each episode's discounted return up to each step, [T, B], in the sense of that paper: R_t = gamma R_{t-1} + r_t.

    `r_t` and `done_t` are [T, B]; `carried` [B] is what earlier fragments left, and is brought up to date in place.
    """
    returns_t = np.empty_like(r_t)
    for t in range(len(r_t)):
        carried *= gamma
        carried += r_t[t]
        returns_t[t] = carried
        carried[done_t[t]] = 0.0
    return returns_t
