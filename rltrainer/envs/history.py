"""An episode lived through again: the state of environments that neither save it themselves nor show it.

What an environment of Gymnasium does follows from its random state at the beginning of an episode, a seed where it is
given one, and the actions since. Where that holds, a new environment that takes the same actions comes to the same
state, whatever it and its wrappers keep inside, such as Box2D's worlds, which cannot be copied. Where it does not, the
last observation or the sum of the rewards differs, and that is an error, not another episode in its place.
"""

import hashlib
from time import monotonic
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, Space, spaces
from gymnasium.utils import seeding

from rltrainer.envs.chain import EnvState, NotRestoredError, wrapper_chain
from rltrainer.envs.observations import reward_of
from rltrainer.foreign import caught

LONGEST = 100_000
"""Steps of an episode up to which it is recorded."""
PATIENCE_S = 60.0
"""Seconds that living through an episode again may take."""
RECORDED_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class History:
    """The beginning of an episode of `env`, and the actions since."""

    def __init__(self, env: Env[Any, Any]) -> None:
        self.env = env
        self.recordable = isinstance(env.action_space, RECORDED_ACTIONS)
        self.first: EnvState = {}
        self.actions: list[Any] = []
        self.rewards, self.obs = 0.0, None

    def begin(self, seed: int | None) -> None:
        """Note that an episode is about to begin with `seed`, or without one."""
        renew_world(self.env)
        self.first = {"seed": seed, "random": random_states(self.env)}
        self.actions = []
        self.rewards = 0.0

    def add(self, action: Any, obs: Any, reward: Any) -> None:
        """Note a step that was taken, and what came of it."""
        if self.recordable and len(self.actions) < LONGEST:
            self.actions.append(np.array(action))
        else:
            self.recordable = False
            self.actions = []
        self.rewards += reward_of(reward)
        self.obs = obs

    def state(self) -> EnvState | None:
        """Return what `relive` goes on from; None where the episode is too long, or its actions are no arrays."""
        if not (self.recordable and self.first):
            return None
        actions = np.stack(self.actions) if self.actions else np.zeros(0)
        return {**self.first, "actions": actions, "rewards": self.rewards, "seen": digest(self.obs)}

    def relive(self, state: EnvState) -> None:
        """Live through the episode of `state()` again. Raises NotRestoredError where another one comes of it."""
        deadline = monotonic() + PATIENCE_S
        set_random_states(self.env, state["random"])
        self.begin(state["seed"])
        try:
            self.obs, _ = self.env.reset(seed=state["seed"])
            for action in taken(state["actions"], self.env.action_space):
                obs, reward, *_ = self.env.step(action)
                self.add(action, obs, reward)
                check_patience(deadline)
        except NotRestoredError:
            raise
        except BaseException as error:
            raise NotRestoredError(f"its episode, repeated, failed: {caught(error)}") from error
        if (self.rewards, digest(self.obs)) != (state["rewards"], state["seen"]):
            raise NotRestoredError(
                "its episode, repeated from its seed, came to another state: give the environment state_dict() and "
                "load_state_dict()"
            )


def check_patience(deadline: float) -> None:
    """Raise NotRestoredError once it is later than `deadline`, in seconds of the monotonic clock."""
    if monotonic() > deadline:
        raise NotRestoredError(f"to repeat the steps of its episode takes more than {PATIENCE_S:.0f} s")


def renew_world(env: Env[Any, Any]) -> None:
    """Give an environment of Gymnasium's Box2D an empty world for its next episode, as most make one by themselves.

    A world in which bodies have come and gone keeps their places, and solves the contacts of new ones in their order:
    then an episode would depend on those before it.
    """
    inner: Any = env.unwrapped
    if type(inner).__module__.startswith("gymnasium.envs.box2d.") and getattr(inner, "world", None) is not None:
        from Box2D import b2World  # noqa: PLC0415 - an extra

        inner._destroy()
        inner.world = b2World(gravity=inner.world.gravity)


def taken(actions: Any, space: Space[Any]) -> Any:
    """Return the actions of a history as the environment took them: numbers where the space is Discrete."""
    return [action[()] for action in np.asarray(actions)] if isinstance(space, spaces.Discrete) else list(actions)


def random_states(env: Env[Any, Any]) -> list[Any]:
    """Return the random states of an environment's wrappers and its own, from the outside in; None for one without."""
    generators = [vars(each).get("_np_random") for each in wrapper_chain(env)]
    return [None if each is None else each.bit_generator.state for each in generators]


def set_random_states(env: gymnasium.Env[Any, Any], states: list[Any]) -> None:
    """Restore `random_states()` of an equal environment."""
    for each, state in zip(wrapper_chain(env), states, strict=True):
        if state is not None:
            each._np_random, _ = seeding.np_random(0)
            each._np_random.bit_generator.state = state


def digest(obs: Any) -> str:
    """Return a checksum of an observation, of several parts too."""
    found = hashlib.sha256()
    pending = [obs]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += [part[name] for name in sorted(part)]
        elif isinstance(part, tuple | list):
            pending += part
        else:
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
