"""Small environments whose right answers are known."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Identity(gymnasium.Env[Any, Any]):
    """Shows one of n numbers, and pays 1 for naming it. Episodes are truncated after `length` steps."""

    def __init__(self, n: int = 3, length: int = 10) -> None:
        self.n, self.length = n, length
        self.observation_space = spaces.Discrete(n)
        self.action_space = spaces.Discrete(n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.shown = int(self.np_random.integers(self.n))
        return self.observe(), {}

    def observe(self) -> Any:
        return self.shown

    def pay(self, action: Any) -> float:
        return float(action == self.shown)

    def step(self, action: Any) -> Step:
        reward = self.pay(action)
        self.t += 1
        self.shown = int(self.np_random.integers(self.n))
        return self.observe(), reward, False, self.t >= self.length, {}


class IdentityBox(Identity):
    """Shows a number in [-1, 1], and pays for coming close to it."""

    def __init__(self, length: int = 10) -> None:
        super().__init__(length=length)
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def observe(self) -> Any:
        self.target = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.target

    def pay(self, action: Any) -> float:
        return -float(abs(action[0] - self.target[0]))


class IdentityMulti(Identity):
    """Shows two numbers, and pays for naming both, a half each."""

    def __init__(self, length: int = 10) -> None:
        super().__init__(length=length)
        self.observation_space = spaces.MultiDiscrete([2, 3])
        self.action_space = spaces.MultiDiscrete([2, 3])

    def observe(self) -> Any:
        self.target = np.array([self.np_random.integers(2), self.np_random.integers(3)])
        return self.target

    def pay(self, action: Any) -> float:
        return float((np.asarray(action) == self.target).mean())


class IdentityImage(Identity):
    """Shows an image of 36 x 36 that is bright in its left or its right half, and pays for naming the half."""

    def __init__(self, length: int = 10) -> None:
        super().__init__(n=2, length=length)
        self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def observe(self) -> Any:
        image = np.zeros((36, 36, 1), np.uint8)
        image[:, self.shown * 18 : (self.shown + 1) * 18] = 255
        return image


class Countdown(gymnasium.Env[Any, Any]):
    """Shows the number of steps so far; pays 1 a step; ends after `length` steps, by `end`."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 3, end: str = "truncated") -> None:
        self.length, self.end = length, end

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Step:
        self.t += 1
        ended = self.t >= self.length
        obs = np.array([self.t], np.float32)
        return obs, 1.0, ended and self.end == "terminated", ended and self.end == "truncated", {}


class Drift(gymnasium.Env[Any, Any]):
    """Works on its state in place, and takes part in checkpoints."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = self.np_random.random(2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action: Any) -> Step:
        self.x += 0.1 * (2 * action - 1)
        return self.x.copy(), 1.0, bool(np.abs(self.x).max() > 3), False, {}

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x, self.np_random.bit_generator.state = state["x"], state["rng"]


class Goals(Countdown):
    """Takes goals off the list that it was given, shows how many are left in one buffer, and paints it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, goals: list[int], render_mode: str | None = None) -> None:
        super().__init__(length=max(1, len(goals) - 1))
        self.goals, self.render_mode = goals, render_mode
        self.shown, self.frame = np.zeros(1, np.float32), np.zeros((16, 16, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.shown[:] = len(self.goals)
        return self.shown, {}

    def step(self, action: Any) -> Step:
        _, reward, terminated, truncated, info = super().step(action)
        self.goals[:] = self.goals[1:]
        self.shown[:] = len(self.goals)
        return self.shown, reward, terminated, truncated, info

    def render(self) -> Any:
        self.frame[:] = len(self.goals)
        return self.frame


class Faulty(Countdown):
    """Does something wrong in step `at`: raises, shows NaN, pays infinity, or shows another shape."""

    def __init__(self, fault: str = "raise", at: int = 5) -> None:
        super().__init__(length=1000)
        self.fault, self.at = fault, at

    def step(self, action: Any) -> Step:
        obs, reward, *rest = super().step(action)
        if self.t == self.at:
            if self.fault == "raise":
                raise ZeroDivisionError("the simulator fell over")
            if self.fault == "exit":
                sys.exit(0)
            if self.fault == "obs":
                obs = np.array([np.nan], np.float32)
            if self.fault == "reward":
                reward = float("inf")
            if self.fault == "shape":
                obs = np.zeros(2, np.float32)
            if self.fault == "scalar":
                obs = np.float32(0)
        return obs, reward, *rest


class NoStart(Countdown):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("the simulator's license has expired")


class Dies(Countdown):
    """Takes its process with it, once it has been reset."""

    def step(self, action: Any) -> Step:
        os._exit(1)


class Fragile(Countdown):
    """Fails, or takes its process with it, the first time that any of its kind has come far in `folder`."""

    def __init__(self, folder: str, raises: bool = False) -> None:
        super().__init__()
        self.mark, self.raises = Path(folder) / "fallen", raises

    def step(self, action: Any) -> Step:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 40 and not self.mark.exists():
            self.mark.touch()
            if self.raises:
                raise ConnectionError("the simulator's server is away")
            os._exit(1)
        return super().step(action)


class FailsOnce(Countdown):
    """Cannot go on until its mark is there; then the mark is, for those that come after."""

    def step(self, action: Any) -> Step:
        mark = Path(os.environ["TOY_MARK"])
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 40 and not mark.exists():
            mark.touch()
            raise ConnectionError("the simulator's server is away")
        return super().step(action)


class Nodes(Countdown):
    """Notes what nodes its Ray cluster has, and goes on only when the environment of a second actor has begun too."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        import ray

        if ray.is_initialized():
            mark = Path(os.environ["TOY_MARK"])
            mine = mark.with_suffix(f".{ray.get_runtime_context().get_actor_id()}")
            if not mine.exists():
                nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
                mine.write_text(json.dumps([node["Resources"] for node in nodes]))
                self.meet(mark)
        return super().reset(seed=seed, options=options)

    def meet(self, mark: Path) -> None:
        """Wait for a second actor's mark; RuntimeError after a minute without."""
        end = time.monotonic() + 60
        while len(list(mark.parent.glob(f"{mark.stem}.*"))) < 2:
            if time.monotonic() > end:
                raise RuntimeError("no second trial ran beside this one")
            time.sleep(0.02)


class Slow(Countdown):
    """Quick for as long as the first fragment takes, and then a second a step."""

    def step(self, action: Any) -> Step:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps > 12:
            time.sleep(1.0)
        return super().step(action)


class Parts(gymnasium.Env[Any, Any]):
    """Shows a number, and a pair of a place and an image, which step by step are not as the space says if `fault`."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        places: Any = spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32), spaces.Box(0, 255, (2, 2), np.uint8)])
        self.observation_space = spaces.Dict({"who": spaces.Discrete(3), "where": places})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        image = self.np_random.integers(0, 256, (2, 2), np.uint8)
        return {"who": int(self.np_random.integers(3)), "where": (place, image)}

    def step(self, action: Any) -> Step:
        obs = self.observe()
        if self.fault == "missing":
            del obs["who"]
        if self.fault == "shape":
            obs["where"] = (np.zeros(3, np.float32), obs["where"][1])
        if self.fault == "value":
            obs["who"] = 5
        if self.fault == "tuple":
            obs["where"] = obs["where"][:1]
        return obs, 0.0, False, False, {}


class Threads(Countdown):
    """Knows how many threads its process was given for numerics."""

    @property
    def threads(self) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")


class Corridor(gymnasium.Env[Any, Any]):
    """Shows an image of bytes, where it heads, and two switches."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (84, 84, 4), np.uint8),
            "heading": spaces.Discrete(4),
            "switches": spaces.MultiBinary(2),
        }
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        image = np.full((84, 84, 4), 200, np.uint8)
        return {"image": image, "heading": 2, "switches": np.array([0, 1], np.int8)}

    def step(self, action: Any) -> Step:
        return self.observe(), 0.0, False, False, {}
