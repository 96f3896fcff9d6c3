"""The state of environments, saved and restored, so that a restored run goes on as if it had not stopped.

Gymnasium has no interface for this. An environment of one's own takes part by two methods, `state_dict()` and
`load_state_dict(state)`, whose state is made of arrays and JSON values in dicts and lists; so does a vector of one's
own, and so do those of vectorize.py. Known here are Gymnasium's classic control and MuJoCo, single games of ALE,
MinAtar, and the wrappers that these are played in. Any other environment that vectorize.py steps lives through its
episode again (history.py). The vectors of ALE and EnvPool, and others that save nothing, begin new episodes.
"""

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import wrappers
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.wrappers import vector as vector_wrappers

from rltrainer.envs.chain import EnvState, wrapper_chain


@dataclass(frozen=True)
class StateHook:
    """How one class of environments or wrappers is saved and restored."""

    save: Callable[[Any], EnvState]
    load: Callable[[Any, EnvState], None]


def attribute_hook(*names: str, rng: bool = True) -> StateHook:
    """Return the hook of what has its state in these attributes, numbers or arrays, and with `rng` in its random
    state."""

    def save(env: Any) -> EnvState:
        random = {"rng": env.np_random.bit_generator.state} if rng else {}
        return {**{name: _storable(getattr(env, name)) for name in names}, **random}

    def load(env: Any, state: EnvState) -> None:
        for name in names:
            setattr(env, name, _restored(state[name], getattr(env, name)))
        if rng:
            env.np_random.bit_generator.state = state["rng"]

    return StateHook(save, load)


def _storable(value: Any) -> Any:
    """Return a copy of `value` as JSON or an array can hold it."""
    if isinstance(value, deque) or (isinstance(value, tuple | list) and any(isinstance(v, np.ndarray) for v in value)):
        return [_storable(each) for each in value]
    return np.array(value) if isinstance(value, tuple | list) else copy.deepcopy(value)


def _restored(value: Any, current: Any) -> Any:
    """Return a stored `value` in the type of the environment's `current` one."""
    if isinstance(current, deque):
        return deque(value, current.maxlen)
    if isinstance(value, list):
        return [np.array(each) for each in value]
    return tuple(value) if isinstance(current, tuple) else np.array(value) if isinstance(value, np.ndarray) else value


def _save_mujoco(env: Any) -> EnvState:
    """Return all that a simulation goes on from, and all that it has derived.

    A step's reward may read where bodies were before it, and MuJoCo leaves them one substep behind the state.
    """
    import mujoco  # noqa: PLC0415 - an extra

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    physics = np.empty(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, physics, kind)
    derived = [getattr(env.data, name).ravel() for name in _mujoco_arrays(env.model)]
    return {"physics": physics, "derived": np.concatenate(derived), "rng": env.np_random.bit_generator.state}


def _load_mujoco(env: Any, state: EnvState) -> None:
    import mujoco  # noqa: PLC0415 - an extra

    mujoco.mj_setState(env.model, env.data, np.asarray(state["physics"]), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(env.model, env.data)
    begin = 0
    for name in _mujoco_arrays(env.model):
        array = getattr(env.data, name)
        array[...] = state["derived"][begin : begin + array.size].reshape(array.shape)
        begin += array.size
    env.np_random.bit_generator.state = state["rng"]


def _mujoco_arrays(model: Any) -> list[str]:
    """Return the names of a simulation's arrays of numbers whose size is the model's, and not that of its contacts."""
    import mujoco  # noqa: PLC0415 - an extra

    fresh = mujoco.MjData(model)
    arrays = {name: getattr(fresh, name) for name in dir(fresh) if not name.startswith("_")}
    return [
        name
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.dtype == np.float64 and array.size and array.flags.writeable
    ]


def _save_atari(env: Any) -> EnvState:
    machine = np.frombuffer(env.ale.cloneState(include_rng=True).serialize(), np.uint8)
    return {"machine": machine.copy(), "rng": env.np_random.bit_generator.state}


def _load_atari(env: Any, state: EnvState) -> None:
    import ale_py  # noqa: PLC0415 - an extra

    env.ale.restoreState(ale_py.ALEState(np.asarray(state["machine"]).tobytes()))
    env.np_random.bit_generator.state = state["rng"]


CONSTANTS_OF_MINATAR = ("random", "channels", "action_map")
"""Attributes of a game that are not its state, or are saved apart from it."""


def _save_minatar(env: Any) -> EnvState:
    _, keys, *position = env.game.random.get_state()
    game = {name: value for name, value in vars(env.game.env).items() if name not in CONSTANTS_OF_MINATAR}
    random = {"keys": keys.astype(np.int64), "position": position}
    return {"game": copy.deepcopy(game), "last_action": env.game.last_action, "random": random}


def _load_minatar(env: Any, state: EnvState) -> None:
    vars(env.game.env).update(copy.deepcopy(state["game"]))
    env.game.last_action = state["last_action"]
    keys = np.asarray(state["random"]["keys"]).astype(np.uint32)
    env.game.random.set_state(("MT19937", keys, *state["random"]["position"]))
    env.game.env.random = env.game.random


HOOKS: dict[type, StateHook] = {
    CartPoleVectorEnv: attribute_hook("state", "steps", "prev_done"),
    CartPoleEnv: attribute_hook("state", "steps_beyond_terminated"),
    AcrobotEnv: attribute_hook("state"),
    MountainCarEnv: attribute_hook("state"),
    Continuous_MountainCarEnv: attribute_hook("state"),
    PendulumEnv: attribute_hook("state"),
    wrappers.TimeLimit: attribute_hook("_elapsed_steps", rng=False),
    wrappers.AtariPreprocessing: attribute_hook("obs_buffer", "lives", "game_over", rng=False),
    wrappers.FrameStackObservation: attribute_hook("obs_queue", rng=False),
}
HOOKS_OF_EXTRAS = {
    "gymnasium.envs.mujoco.": StateHook(_save_mujoco, _load_mujoco),
    "ale_py.env.AtariEnv": StateHook(_save_atari, _load_atari),
    "minatar.gym.BaseEnv": StateHook(_save_minatar, _load_minatar),
}
"""By what the full name of a class begins with: their packages may not be installed."""

STATELESS = (
    wrappers.PassiveEnvChecker,
    wrappers.OrderEnforcing,
    wrappers.FlattenObservation,
    wrappers.ClipAction,
    wrappers.RescaleAction,
    wrappers.GrayscaleObservation,
    wrappers.ResizeObservation,
    wrappers.DtypeObservation,
    wrappers.ClipReward,
    vector_wrappers.FlattenObservation,
)
HOOKS |= dict.fromkeys(STATELESS, StateHook(lambda env: {}, lambda env, state: None))


def hook_of(env: Any) -> StateHook | None:
    """Return how an environment, a vector or a wrapper is saved; None where that is not known."""
    if hasattr(type(env), "state_dict") and hasattr(type(env), "load_state_dict"):
        return StateHook(lambda env: env.state_dict(), lambda env, state: env.load_state_dict(state))
    ours = type(env).__module__.startswith(("gymnasium.", "rltrainer."))  # others may add to what they inherit from
    for kind in type(env).__mro__ if ours else (type(env),):
        if (hook := HOOKS.get(kind)) is not None:
            return hook
    name = f"{type(env).__module__}.{type(env).__qualname__}"
    return next((hook for prefix, hook in HOOKS_OF_EXTRAS.items() if name.startswith(prefix)), None)


def is_known(env: Any) -> bool:
    """Return whether `save` knows the environment and all of its wrappers."""
    return all(hook_of(each) is not None for each in wrapper_chain(env))


def save(env: Any) -> EnvState | None:
    """Return the state of an environment and its wrappers, or of a vector of them; None where it cannot be had."""
    state: EnvState = {}
    for depth, each in enumerate(wrapper_chain(env)):
        hook = hook_of(each)
        saved = None if hook is None else hook.save(each)
        if saved is None:
            return None
        state[str(depth)] = saved
    return state


def load(env: Any, state: EnvState) -> None:
    """Restore `save(env)` of an equal environment or vector into one that has been reset."""
    if "env" in state:
        state = _by_depth(env, state)
    for depth, each in enumerate(wrapper_chain(env)):
        hook = hook_of(each)
        if hook is not None:
            hook.load(each, state[str(depth)])


def _by_depth(env: Any, state: EnvState) -> EnvState:
    """Return a state as checkpoints had it before wrappers had states of their own, in today's form."""
    depths = range(len(wrapper_chain(env)) - 1)
    outer = {str(depth): {"_elapsed_steps": state.get(f"elapsed_{depth}")} for depth in depths}
    return {**outer, str(len(outer)): state["env"]}
