"""The state of environments, saved and restored, so that a restored run goes on as if it had not stopped.

Gymnasium has no interface for this. An environment of one's own takes part by two methods, `state_dict()` and
`load_state_dict(state)`, whose state is made of arrays and JSON values in dicts and lists; so does a vector of one's
own, and so do those of vectorize.py. Gymnasium's classic control is known here. With any other environment or wrapper,
those of Atari, MuJoCo, Box2D, MinAtar and EnvPool among them, a restored run begins new episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

State = dict[str, Any]


@dataclass(frozen=True)
class Hook:
    """How one kind of environment is saved and restored."""

    save: Callable[[Any], State]
    load: Callable[[Any, State], None]


def attributes(*names: str) -> Hook:
    """An environment whose state is these attributes, numbers or arrays, and its random state."""

    def save(env: Any) -> State:
        return {**{name: plain(getattr(env, name)) for name in names}, "rng": env.np_random.bit_generator.state}

    def load(env: Any, state: State) -> None:
        for name in names:
            setattr(env, name, like(state[name], getattr(env, name)))
        env.np_random.bit_generator.state = state["rng"]

    return Hook(save, load)


def plain(value: Any) -> Any:
    """`value` as JSON or an array can hold it."""
    return np.array(value) if isinstance(value, tuple | list) else value


def like(value: Any, present: Any) -> Any:
    """`value` in the type that the environment keeps it in."""
    return tuple(value) if isinstance(present, tuple) else np.array(value) if isinstance(value, np.ndarray) else value


HOOKS: dict[type, Hook] = {
    CartPoleVectorEnv: attributes("state", "steps", "prev_done"),
    CartPoleEnv: attributes("state", "steps_beyond_terminated"),
    AcrobotEnv: attributes("state"),
    MountainCarEnv: attributes("state"),
    Continuous_MountainCarEnv: attributes("state"),
    PendulumEnv: attributes("state"),
}

STATELESS: tuple[type, ...] = (
    wrappers.PassiveEnvChecker,
    wrappers.OrderEnforcing,
    wrappers.FlattenObservation,
    wrappers.ClipAction,
    wrappers.RescaleAction,
)


def layers(env: Any) -> list[Any]:
    """The wrappers of `env` from the outside in, and the environment itself at the end."""
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found


def save(env: Any) -> State | None:
    """The state of an environment and its wrappers, or of a vector of them, or None where it cannot be had."""
    *outer, inner = layers(env)
    state: State = {}
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            state[f"elapsed_{depth}"] = wrapper._elapsed_steps
        elif not isinstance(wrapper, STATELESS):
            return None
    if hasattr(inner, "state_dict") and hasattr(inner, "load_state_dict"):
        own = inner.state_dict()
    else:
        hook = HOOKS.get(type(inner))
        own = None if hook is None else hook.save(inner)
    return None if own is None else {**state, "env": own}


def load(env: Any, state: State) -> None:
    """Goes on from `save(env)` of an equal environment or vector that has been reset."""
    *outer, inner = layers(env)
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            wrapper._elapsed_steps = state[f"elapsed_{depth}"]
    if hasattr(inner, "load_state_dict"):
        inner.load_state_dict(state["env"])
    else:
        HOOKS[type(inner)].load(inner, state["env"])
