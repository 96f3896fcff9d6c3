"""Environments that are saved, restored into others that have been elsewhere, and then do the same for good."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.vector import VectorEnv

from rltrainer.envs.chain import NotRestoredError
from rltrainer.envs.source import EnvSource
from rltrainer.envs.state import load, save
from rltrainer.storage import checkpoint as ckpt

pytestmark = pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning", "ignore:Importing from:UserWarning")
HERE = __name__ + ":"
SHIPPED = [
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"),
    *("FrozenLake-v1", "Blackjack-v1", "CliffWalking-v1"),
    *("MinAtar/Breakout-v1", "MinAtar/Asterix-v1", "MinAtar/Freeway-v1", "MinAtar/Seaquest-v1"),
    "MinAtar/SpaceInvaders-v1",
    *("LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5"),
    *("InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
    HERE + "stacked_game",
    HERE + "delayed",
]


def stacked_game() -> gymnasium.Env[Any, Any]:
    """A game of Atari in the wrappers that it is mostly played in."""
    import ale_py

    gymnasium.register_envs(ale_py)
    game = gymnasium.make("ALE/Pong-v5", frameskip=1)
    return wrappers.FrameStackObservation(wrappers.AtariPreprocessing(game, screen_size=42), 4)


def delayed() -> gymnasium.Env[Any, Any]:
    """Wrappers that nobody here knows, with states of their own."""
    return wrappers.StickyAction(wrappers.DelayObservation(gymnasium.make("LunarLander-v3"), 3), 0.25)


class Counter(gymnasium.Env[Any, Any]):
    """Counts its episodes, and shows the count: what it does follows from more than its seed and its actions."""

    observation_space, action_space = spaces.Box(0, 99, (1,), np.float32), spaces.Discrete(2)
    episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes += 1
        return np.array([self.episodes], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([self.episodes], np.float32), 0.0, bool(action), False, {}


def begun(name: str, seed: int, steps: int) -> VectorEnv[Any, Any, Any]:
    """Two environments that have taken random steps."""
    envs = EnvSource(name).vector(2)
    envs.reset(seed=seed)
    envs.action_space.seed(seed)
    for _ in range(steps):
        envs.step(envs.action_space.sample())
    return envs


def stored(state: Any, folder: Path) -> Any:
    """The state as a checkpoint gives it back."""
    assert state is not None
    return ckpt.read(ckpt.write(folder, {"envs": state}, 1, 1, {}))[1]["envs"]


EARLY = ("CartPole-v1", "MinAtar/Breakout-v1", "LunarLander-v3", "HalfCheetah-v5")
"""One of each kind that is saved its own way, for the first steps of an episode too."""


@pytest.mark.parametrize(("name", "steps"), [*((name, 71) for name in SHIPPED), *((name, 2) for name in EARLY)])
def test_a_restored_environment_goes_on_as_the_saved_one(tmp_path: Path, name: str, steps: int) -> None:
    saved, other = begun(name, 1, steps), begun(name, 5, 20)
    other.reset(seed=6)  # as every vector is before it is restored
    load(other, stored(save(saved), tmp_path))
    for _ in range(120):
        actions = saved.action_space.sample()
        for mine, theirs in zip(saved.step(actions)[:4], other.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    load(begun(name, 7, 0), stored(save(other), tmp_path / "again"))
    saved.close()
    other.close()


def test_an_episode_that_comes_out_otherwise_when_it_is_repeated_is_told() -> None:
    saved = begun(HERE + "Counter", 1, 9)
    state = save(saved)
    assert state is not None
    with pytest.raises(NotRestoredError, match=r"environment 0: .* came to another state: give .* state_dict\(\)"):
        load(begun(HERE + "Counter", 1, 0), state)


def test_vectors_that_save_nothing_have_no_state() -> None:
    assert save(begun("ALE/Pong-v5", 1, 2)) is None
