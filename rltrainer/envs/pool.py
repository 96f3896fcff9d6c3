"""EnvPool: vectors of environments written in C++, by names such as envpool:Pong-v5."""

import importlib
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space


class Pool(VectorEnv[Any, Any, Any]):
    """`num_envs` environments of EnvPool's `task`.

    EnvPool takes seeds when it makes environments, and none later: with a seed, a reset makes them anew.
    """

    def __init__(self, task: str, num_envs: int, **config: Any) -> None:
        envpool = importlib.import_module("envpool")
        if task not in envpool.list_all_envs():
            raise LookupError(f"EnvPool has no {task}")
        self._make = partial(envpool.make, task, env_type="gymnasium", num_envs=num_envs, **config)
        self._begin(0)
        self.num_envs, self.metadata, self.render_mode = num_envs, self.pool.metadata, self.pool.render_mode
        self.single_observation_space = self.pool.single_observation_space
        self.single_action_space = self.pool.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _begin(self, seed: int) -> None:
        self.pool = self._make(seed=seed)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes; with a seed, environment i begins as `seed` + i says."""
        if seed is not None:
            self.pool.close()
            self._begin(seed)
        obs, info = self.pool.reset()
        return obs, info

    def step(self, actions: Any) -> Any:
        """As in Gymnasium; actions may be of any precision."""
        return self.pool.step(np.asarray(actions, self.single_action_space.dtype))

    def render(self) -> Any:
        """Pictures of the environments, [B, H, W, 3]."""
        return self.pool.render()

    def close_extras(self, **given: Any) -> None:
        """Ends EnvPool's threads."""
        self.pool.close()
