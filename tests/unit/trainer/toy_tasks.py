"""Small tasks that need more than a look at one number: masks, described actions, memory, actions of several parts."""

import contextlib
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Task(gymnasium.Env[Any, Any], ABC):
    """Poses a problem anew in each step, and says what an answer is worth. Truncated after `length` steps."""

    length = 10

    @abstractmethod
    def pose(self) -> Any:
        """The next observation."""

    @abstractmethod
    def worth(self, action: Any) -> float:
        """The reward of answering the last observation by `action`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.posed = self.pose()
        return self.posed, {}

    def step(self, action: Any) -> Step:
        reward = self.worth(action)
        self.t += 1
        self.posed = self.pose()
        return self.posed, reward, False, self.t >= self.length, {}

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t, "posed": self.posed, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t, self.posed = state["t"], state["posed"]
        self.np_random.bit_generator.state = state["rng"]


class Numbers(Task):
    """Shows one of 3 numbers, and pays 1 for naming it."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3)

    def pose(self) -> Any:
        return int(self.np_random.integers(3))

    def worth(self, action: Any) -> float:
        return float(action == self.posed)


class Reach(Task):
    """Shows a number in [-1, 1]; costs the distance of the answer, in [-2, 2], from twice that number."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def pose(self) -> Any:
        return self.np_random.uniform(-1, 1, 1).astype(np.float32)

    def worth(self, action: Any) -> float:
        return -float(abs(action[0] - 2 * self.posed[0]))


class ReachImage(Task):
    """Shows an image of 36 x 36 in one gray, and costs the distance of the answer from it; black is -1, white 1."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def pose(self) -> Any:
        return np.full((36, 36, 1), self.np_random.integers(256), np.uint8)

    def worth(self, action: Any) -> float:
        return -float(abs(action[0] - (self.posed[0, 0, 0] / 127.5 - 1)))


class Clock(Task):
    """Goes round 0, 1, 2 and pays 1 a step, whatever is done. The episode ends after 3 steps, by `end`."""

    observation_space = spaces.Box(0, 2, (1,), np.float32)

    def __init__(self, end: str = "truncated", continuous: bool = False) -> None:
        self.length, self.end = 3, end
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)

    def pose(self) -> Any:
        return np.array([self.t % 3], np.float32)

    def worth(self, action: Any) -> float:
        return 1.0

    def step(self, action: Any) -> Step:
        obs, reward, _, ended, info = super().step(action)
        return obs, reward, ended and self.end == "terminated", ended and self.end == "truncated", info


class Masked(Task):
    """Shows one of 4 numbers, and pays 1 for naming its successor, else half as much for naming it.

    The successor is legal every other time. An illegal answer is a fault, not a bad answer.
    """

    n = 4
    observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(n), "shown": spaces.Discrete(n)})
    action_space = spaces.Discrete(n)

    def pose(self) -> Any:
        shown = int(self.np_random.integers(self.n))
        mask = self.np_random.integers(2, size=self.n).astype(np.int8)
        mask[shown] = 1
        return {"action_mask": mask, "shown": shown}

    def worth(self, action: Any) -> float:
        shown, mask = self.posed["shown"], self.posed["action_mask"]
        if not mask[action]:
            raise ValueError(f"action {action} is illegal under {mask}")
        if action == (shown + 1) % self.n:
            return 1.0
        return 0.5 * float(action == shown)


class Described(Task):
    """Offers 4 actions, each described by one of 3 kinds, and pays 1 for one of the kind that is wanted.

    An action's number says nothing: what is on offer is drawn anew each time. Only some may be chosen.
    """

    n, kinds = 4, 3
    observation_space = spaces.Dict(
        {
            "action_mask": spaces.MultiBinary(n),
            "avail_actions": spaces.Box(0, 1, (n, kinds), np.float32),
            "wanted": spaces.Discrete(kinds),
        }
    )
    action_space = spaces.Discrete(n)

    def pose(self) -> Any:
        offered = self.np_random.integers(self.kinds, size=self.n)
        mask = self.np_random.integers(2, size=self.n).astype(np.int8)
        chosen = int(self.np_random.integers(self.n))
        mask[chosen] = 1
        rows = np.eye(self.kinds, dtype=np.float32)[offered]
        return {"action_mask": mask, "avail_actions": rows, "wanted": int(offered[chosen])}

    def worth(self, action: Any) -> float:
        if not self.posed["action_mask"][action]:
            raise ValueError(f"action {action} is illegal under {self.posed['action_mask']}")
        return float(self.posed["avail_actions"][action, self.posed["wanted"]])


class Both(Task):
    """Shows a number of 3 and one in [-1, 1]; pays for naming the first, and costs the distance from the second."""

    observation_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32)))
    action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32)))

    def pose(self) -> Any:
        return int(self.np_random.integers(3)), self.np_random.uniform(-1, 1, 1).astype(np.float32)

    def worth(self, action: Any) -> float:
        named, reached = action
        return float(named == self.posed[0]) - float(abs(reached[0] - self.posed[1][0]))


class OneIsSlow(Numbers):
    """Of all processes the first to take a step makes file `claim`, and takes a second for it and each one after."""

    def __init__(self, claim: str) -> None:
        self.claim, self.slow = Path(claim), False

    def step(self, action: Any) -> Step:
        with contextlib.suppress(FileExistsError):
            self.claim.touch(exist_ok=False)
            self.slow = True
        if self.slow:
            time.sleep(1)
        return super().step(action)


class Recall(Task):
    """Shows a bit in the first step and nothing after it; pays 1 in the last step for naming it, and costs 1 else.

    The last step is announced. Whoever remembers nothing earns 0 on average.
    """

    length = 4
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def pose(self) -> Any:
        if self.t == 0:
            self.bit = int(self.np_random.integers(2))
        return np.array([2 * self.bit - 1 if self.t == 0 else 0, self.t == self.length - 1], np.float32)

    def worth(self, action: Any) -> float:
        if self.t < self.length - 1:
            return 0.0
        return 1.0 if action == self.bit else -1.0

    def step(self, action: Any) -> Step:
        obs, reward, _, ended, info = super().step(action)
        return obs, reward, ended, False, info

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "bit": self.bit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.bit = state["bit"]
