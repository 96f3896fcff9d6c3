"""EnvPool's environments, vectors written in C++, by names such as envpool:Pong-v5."""

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rltrainer.envs.failures import import_for
from rltrainer.envs.kind import EnvConfig, EnvKind

PREFIX = "envpool"
"""What names of EnvPool's environments begin with, and the module that they come from."""


def find(name: str) -> EnvKind | None:
    """Return how EnvPool's task is made; None for any other name. Raises RunError where EnvPool is not installed."""
    prefix, _, task = name.partition(":")
    if prefix != PREFIX:
        return None
    import_for(name, PREFIX)
    return EnvPoolKind(task)


@dataclass(frozen=True)
class EnvPoolKind(EnvKind):
    """One of EnvPool's tasks. There are vectors of it alone."""

    task: str

    def vector(self, num_envs: int, config: EnvConfig) -> VectorEnv[Any, Any, Any]:
        """Make a vector. Raises LookupError for a task that EnvPool does not have."""
        return EnvPoolVectorEnv(self.task, num_envs, **config)

    def single(self, config: EnvConfig) -> None:
        """Return None."""


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` environments of EnvPool's `task`.

    EnvPool takes seeds when it makes environments, and none later: a reset with a seed makes them anew.
    """

    def __init__(self, task: str, num_envs: int, **config: Any) -> None:
        envpool = importlib.import_module(PREFIX)
        if task not in envpool.list_all_envs():
            raise LookupError(f"EnvPool has no {task}")
        self._make = partial(envpool.make, task, env_type="gymnasium", num_envs=num_envs, **config)
        self.pool = self._make(seed=0)
        self.num_envs, self.metadata, self.render_mode = num_envs, self.pool.metadata, self.pool.render_mode
        self.single_observation_space = self.pool.single_observation_space
        self.single_action_space = self.pool.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes; with a seed, environment i begins as `seed` + i says."""
        if seed is not None:
            self.pool.close()
            self.pool = self._make(seed=seed)
        obs, info = self.pool.reset()
        return obs, info

    def step(self, actions: Any) -> Any:
        """Step all environments, as in Gymnasium; actions may be of any precision."""
        return self.pool.step(np.asarray(actions, self.single_action_space.dtype))

    def render(self) -> Any:
        """Return pictures of the environments, [B, H, W, 3]."""
        return self.pool.render()

    def close_extras(self, **kwargs: Any) -> None:
        """End EnvPool's threads."""
        self.pool.close()
