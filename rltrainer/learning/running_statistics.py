"""Running statistics of observations and rewards beside the updates: one set, however many learners see the samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rltrainer.core.fragment import Batch
from rltrainer.core.types import Array
from rltrainer.ops.normalization import ObservationNormalizer, RewardNormalizer


class RunningStatistics:
    """The networks' observation normalizers, and the reward normalizer where the options ask for one."""

    def __init__(
        self, nets: nn.Module, normalize_rewards: bool, device: torch.device, gather: Callable[[Tensor], Tensor]
    ) -> None:
        """`gather` gives, for rows [N, ...] of this learner, those of all learners."""
        self.device, self.gather = device, gather
        self.observations = [each for each in nets.modules() if isinstance(each, ObservationNormalizer)]
        self.rewards = RewardNormalizer().to(device) if normalize_rewards else None

    def observe(self, obs: Tensor | Array, valid: Any = ...) -> None:
        """Take in observations [N, *shape], or those [T, B, *shape] that are `valid` [T, B]."""
        if not self.observations:
            return
        rows = self.gather(torch.as_tensor(obs[valid]).to(self.device))
        for normalizer in self.observations:
            normalizer.update(rows)

    def normalize_rewards(self, batch: Batch) -> None:
        """Scale the rewards of `batch` in place, after taking in its discounted returns."""
        if self.rewards is not None:
            returns = self.gather(batch.extras["discounted"][batch.valid])
            batch.r = self.rewards(batch.r, returns, torch.ones_like(returns, dtype=torch.bool))

    def state(self) -> dict[str, Tensor]:
        """The reward normalizer's state; those of observations are buffers of the networks."""
        return {} if self.rewards is None else dict(self.rewards.state_dict())

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()`; from nothing where it was empty."""
        if self.rewards is not None:
            self.rewards.load_state_dict(state, strict=bool(state))
