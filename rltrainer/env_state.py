"""The state of environments, saved and restored, so that a restored run goes on as if it had not stopped.

Gymnasium has no interface for this. An environment of one's own takes part by two methods, `state_dict()` and
`load_state_dict(state)`, whose state is made of arrays and JSON values in dicts and lists. Gymnasium's classic control
is known here. With any other environment or wrapper, a restored run begins new episodes.
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
from gymnasium.vector import SyncVectorEnv

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


def save(envs: Any) -> State | None:
    """The state of a vector of environments, or None where it cannot be had."""
    if isinstance(envs, SyncVectorEnv):
        states = [save_one(env) for env in envs.envs]
        return None if any(state is None for state in states) else {str(i): state for i, state in enumerate(states)}
    return save_one(envs)


def load(envs: Any, state: State) -> None:
    """Goes on from `save(envs)` of an equal vector that has been reset."""
    if isinstance(envs, SyncVectorEnv):
        for i, env in enumerate(envs.envs):
            load_one(env, state[str(i)])
    else:
        load_one(envs, state)


def layers(env: Any) -> list[Any]:
    """The wrappers of `env` from the outside in, and the environment itself at the end."""
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found


def save_one(env: Any) -> State | None:
    """The state of one environment and its wrappers, or None where it cannot be had."""
    *outer, inner = layers(env)
    state: State = {}
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            state[f"elapsed_{depth}"] = wrapper._elapsed_steps
        elif not isinstance(wrapper, STATELESS):
            return None
    if hasattr(inner, "state_dict") and hasattr(inner, "load_state_dict"):
        return {**state, "env": inner.state_dict()}
    hook = HOOKS.get(type(inner))
    return None if hook is None else {**state, "env": hook.save(inner)}


def load_one(env: Any, state: State) -> None:
    """Goes on from `save_one(env)` of an equal environment that has been reset."""
    *outer, inner = layers(env)
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            wrapper._elapsed_steps = state[f"elapsed_{depth}"]
    if hasattr(inner, "load_state_dict"):
        inner.load_state_dict(state["env"])
    else:
        HOOKS[type(inner)].load(inner, state["env"])
