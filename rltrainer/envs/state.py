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

EnvState = dict[str, Any]
"""Arrays and JSON values by name."""


@dataclass(frozen=True)
class StateHook:
    """How one class of environments is saved and restored."""

    save: Callable[[Any], EnvState]
    load: Callable[[Any, EnvState], None]


def attribute_hook(*names: str) -> StateHook:
    """Return the hook of an environment whose state is these attributes, numbers or arrays, and its random state."""

    def save(env: Any) -> EnvState:
        return {**{name: _storable(getattr(env, name)) for name in names}, "rng": env.np_random.bit_generator.state}

    def load(env: Any, state: EnvState) -> None:
        for name in names:
            setattr(env, name, _restored(state[name], getattr(env, name)))
        env.np_random.bit_generator.state = state["rng"]

    return StateHook(save, load)


def _storable(value: Any) -> Any:
    """Return `value` as JSON or an array can hold it."""
    return np.array(value) if isinstance(value, tuple | list) else value


def _restored(value: Any, current: Any) -> Any:
    """Return a stored `value` in the type of the environment's `current` one."""
    return tuple(value) if isinstance(current, tuple) else np.array(value) if isinstance(value, np.ndarray) else value


HOOKS: dict[type, StateHook] = {
    CartPoleVectorEnv: attribute_hook("state", "steps", "prev_done"),
    CartPoleEnv: attribute_hook("state", "steps_beyond_terminated"),
    AcrobotEnv: attribute_hook("state"),
    MountainCarEnv: attribute_hook("state"),
    Continuous_MountainCarEnv: attribute_hook("state"),
    PendulumEnv: attribute_hook("state"),
}

STATELESS_WRAPPERS: tuple[type, ...] = (
    wrappers.PassiveEnvChecker,
    wrappers.OrderEnforcing,
    wrappers.FlattenObservation,
    wrappers.ClipAction,
    wrappers.RescaleAction,
)


def wrapper_chain(env: Any) -> list[Any]:
    """Return the wrappers of `env` from the outside in, and the environment itself at the end."""
    chain = [env]
    while isinstance(chain[-1], gymnasium.Wrapper):
        chain.append(chain[-1].env)
    return chain


def save(env: Any) -> EnvState | None:
    """Return the state of an environment and its wrappers, or of a vector of them; None where it cannot be had."""
    *outer, inner = wrapper_chain(env)
    state: EnvState = {}
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            state[f"elapsed_{depth}"] = wrapper._elapsed_steps
        elif not isinstance(wrapper, STATELESS_WRAPPERS):
            return None
    if hasattr(inner, "state_dict") and hasattr(inner, "load_state_dict"):
        inner_state = inner.state_dict()
    else:
        hook = HOOKS.get(type(inner))
        inner_state = None if hook is None else hook.save(inner)
    return None if inner_state is None else {**state, "env": inner_state}


def load(env: Any, state: EnvState) -> None:
    """Restore `save(env)` of an equal environment or vector into one that has been reset."""
    *outer, inner = wrapper_chain(env)
    for depth, wrapper in enumerate(outer):
        if isinstance(wrapper, wrappers.TimeLimit):
            wrapper._elapsed_steps = state[f"elapsed_{depth}"]
    if hasattr(inner, "load_state_dict"):
        inner.load_state_dict(state["env"])
    else:
        HOOKS[type(inner)].load(inner, state["env"])
