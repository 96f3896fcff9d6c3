"""One environment of a vector: what it gives is checked, and what goes wrong in it is its failure alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import gymnasium

from rltrainer.envs.chain import EnvState, NotRestoredError
from rltrainer.envs.history import History
from rltrainer.envs.observations import check_observation, flag_of, reward_of, unpacked
from rltrainer.envs.state import is_known, load, save
from rltrainer.foreign import Failure, caught


class EnvWorker(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Environment `index` of a vector, whose state can be had and set. Raises Failure for whatever it does wrong."""

    episode_over = False
    not_restored = ""
    """Why it has not taken the last state that was set; nothing where it has."""
    closes_silently = False
    """Whether a failure in closing it is nobody's business: it was only looked at."""

    def __init__(self, env: gymnasium.Env[Any, Any], index: int = 0) -> None:
        super().__init__(env)
        self.index = index
        self.history = None if is_known(env) else History(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. Nobody reads the environment's info, and so it is not sent."""
        self.episode_over = False
        if self.history is not None:
            self.history.begin(seed)
        with self._failing():
            obs, _ = unpacked(self.env.reset(seed=seed, options=options), "reset()", "observation, info")
            if self.history is not None:
                self.history.obs = obs
            return check_observation(self.observation_space, obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step, or begin the next episode where a restored one was over."""
        if self.episode_over:
            return self.reset()[0], 0.0, False, False, {}
        try:
            returned = self.env.step(action)
            if type(returned) is not tuple or len(returned) != 5:
                returned = unpacked(returned, "step()", "observation, reward, terminated, truncated, info")
            obs, reward, terminated, truncated, _ = returned
            obs = check_observation(self.observation_space, obs)
            terminated, truncated = flag_of(terminated, "terminated"), flag_of(truncated, "truncated")
            reward, self.episode_over = reward_of(reward), terminated or truncated
        except BaseException as error:
            raise caught(error).at(self.index) from error
        if self.history is not None:
            self.history.add(action, obs, reward)
        return obs, reward, terminated, truncated, {}

    def close(self) -> None:
        """Close the environment."""
        with suppress(Failure) if self.closes_silently else nullcontext(), self._failing():
            self.env.close()

    @property
    def env_state(self) -> EnvState | None:
        """The environment's state, or None where it cannot be had."""
        with self._failing():
            state = save(self.env) if self.history is None else self.history.state()
        return None if state is None else {**state, "over": self.episode_over}

    @env_state.setter
    def env_state(self, state: EnvState) -> None:
        self.not_restored = ""
        try:
            with self._failing():
                if self.history is not None and "actions" in state:
                    self.history.relive(state)
                else:
                    load(self.env, state)
        except NotRestoredError as error:
            self.not_restored = str(error)
        self.episode_over = bool(state["over"])

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except NotRestoredError:
            raise
        except BaseException as error:
            raise caught(error).at(self.index) from error
