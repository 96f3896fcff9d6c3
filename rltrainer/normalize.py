"""Running statistics of observations and rewards. They are state: a checkpoint and a policy carry them."""

import torch
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
        """Takes in `rows` [N, *shape]."""
        rows = rows.double()
        count = self.count + len(rows)
        delta = rows.mean(0) - self.mean
        squares = self.var * self.count + rows.var(0, correction=0) * len(rows)
        self.var.copy_((squares + delta.square() * self.count * len(rows) / count) / count)
        self.mean.add_(delta * len(rows) / count)
        self.count.copy_(count)


class ObservationNormalizer(RunningMoments):
    """(obs - mean) / deviation, clipped to +-10 deviations. Frozen between updates, so acting and learning agree."""

    scale: Tensor
    shift: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("shift", torch.zeros(shape))

    def update(self, rows: Tensor) -> None:
        """Takes in `rows` [N, *shape]."""
        super().update(rows)
        scale = (self.var + 1e-8).rsqrt()
        self.scale.copy_(scale)
        self.shift.copy_(-self.mean * scale)

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observations [..., *shape]."""
        return torch.addcmul(self.shift, obs, self.scale).clamp_(-10.0, 10.0)


class RewardNormalizer(nn.Module):
    """Rewards divided by the running deviation of the discounted return: Engstrom et al. 2020, arXiv 2005.12729.

    `returns` holds the discounted return of each environment's episode so far.
    """

    returns: Tensor

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.moments = RunningMoments(())
        self.register_buffer("returns", torch.zeros(num_envs, dtype=torch.float64))

    def forward(self, r_t: Tensor, done_t: Tensor, valid_t: Tensor) -> Tensor:
        """Takes in rewards, the ends of episodes and the steps that count, all [T, B]; returns the rewards scaled."""
        seen = torch.empty_like(r_t, dtype=torch.float64)
        for t in range(len(r_t)):
            self.returns.mul_(self.gamma).add_(r_t[t])
            seen[t] = self.returns
            self.returns.mul_(~done_t[t])
        self.moments.update(seen[valid_t])
        return (r_t * (self.moments.var + 1e-8).rsqrt()).clamp(-10.0, 10.0).to(r_t.dtype)
