"""What a step in another process costs more than one in this: the figure behind rltrainer/envs/vectorize.py.

python -m benchmarks.vector_env
"""

from itertools import product
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rltrainer.envs.env_worker import EnvWorker
from rltrainer.envs.vectorize import SerialVectorEnv, SubprocessVectorEnv


class Busy(gymnasium.Env[Any, Any]):
    """Computes for `seconds` a step, and never ends."""

    action_space = spaces.Discrete(2)

    def __init__(self, seconds: float, shape: tuple[int, ...]) -> None:
        self.seconds, self.obs = seconds, np.zeros(shape, np.uint8)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        until = perf_counter() + self.seconds
        while perf_counter() < until:
            pass
        return self.obs, 0.0, False, False, {}


def seconds(
    kind: type[SerialVectorEnv] | type[SubprocessVectorEnv], busy: float, envs: int, shape: tuple[int, ...]
) -> float:
    """Seconds of a step of the whole vector: the best of five rounds of 100 steps, so that other work counts less."""
    vector = kind([lambda: EnvWorker(Busy(busy, shape))] * envs)
    vector.reset(seed=0)
    actions, rounds = np.zeros(envs, np.int64), []
    for _ in range(5):
        begun = perf_counter()
        for _ in range(100):
            vector.step(actions)
        rounds.append((perf_counter() - begun) / 100)
    vector.close()
    return min(rounds)


if __name__ == "__main__":
    print("step of one   envs   obs           one by one   in processes   microseconds")
    for busy, envs, shape in product((0.0, 300e-6, 1000e-6), (2, 8), ((8,), (4, 84, 84))):
        here, apart = (seconds(kind, busy, envs, shape) * 1e6 for kind in (SerialVectorEnv, SubprocessVectorEnv))
        print(f"{busy * 1e6:11.0f} {envs:6d}   {shape!s:12} {here:11.0f} {apart:14.0f}", flush=True)
