"""Variants of CartPole that ask for what the original does not: a memory, and a choice among described actions."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

Array = NDArray[np.float32]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


def cartpole() -> gymnasium.Env[Any, Any]:
    """CartPole-v1 without the layers that only check its use."""
    return TimeLimit(CartPoleEnv(), 500)


class MaskedVelocities(gymnasium.Env[Array, int]):
    """CartPole-v1 that shows only positions: where the pole is going must be remembered."""

    SEEN = (0, 2)

    def __init__(self) -> None:
        self.env = cartpole()
        inner: Any = self.env.observation_space
        self.observation_space = spaces.Box(inner.low[list(self.SEEN)], inner.high[list(self.SEEN)])
        self.action_space = self.env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed)
        return obs[list(self.SEEN)], info

    def step(self, action: int) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs[list(self.SEEN)], float(reward), terminated, truncated, info


class ParametricCartPole(gymnasium.Env[dict[str, Any], int]):
    """CartPole-v1 whose two actions lie in any two of `slots`, anew in each step: the others are illegal.

    `avail_actions` describes the action in each slot by a fixed random vector, and zeros where there is none;
    `action_mask` is 1 where there is one. An illegal action raises ValueError.
    """

    def __init__(self, slots: int = 10, size: int = 2) -> None:
        self.env = cartpole()
        self.slots = slots
        self.vectors = np.random.default_rng(0).normal(size=(2, size)).astype(np.float32)
        inner = self.env.observation_space
        self.observation_space = spaces.Dict(
            {
                "action_mask": spaces.MultiBinary(slots),
                "avail_actions": spaces.Box(-10, 10, (slots, size), np.float32),
                "cart": inner,
            }
        )
        self.action_space: gymnasium.Space[Any] = spaces.Discrete(slots)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        obs, info = self.env.reset(seed=seed)
        return self._show(obs), info

    def step(self, action: int) -> Step:
        place = np.flatnonzero(self.places == action)
        if not len(place):
            raise ValueError(f"action {action} is illegal: the legal ones are {self.places.tolist()}")
        obs, reward, terminated, truncated, info = self.env.step(int(place[0]))
        return self._show(obs), float(reward), terminated, truncated, info

    def _show(self, obs: Array) -> dict[str, Any]:
        self.places = self.np_random.choice(self.slots, 2, replace=False)
        mask, avail = np.zeros(self.slots, np.int8), np.zeros((self.slots, self.vectors.shape[1]), np.float32)
        mask[self.places], avail[self.places] = 1, self.vectors
        return {"action_mask": mask, "avail_actions": avail, "cart": obs}
