"""An environment whose step takes a millisecond and no processor, so that few processors can show how workers scale."""

from time import sleep
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SECONDS = 1e-3


class Sleeping(gymnasium.Env[Any, Any]):
    """Shows nothing and pays nothing; episodes take 200 steps."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.obs, self.steps = np.zeros(4, np.float32), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        sleep(SECONDS)
        self.steps += 1
        return self.obs, 0.0, False, self.steps == 200, {}
