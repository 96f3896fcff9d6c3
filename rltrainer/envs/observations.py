"""Observations, rewards and flags, checked on their way in: nothing is cast to what it is not, or repeated to fit."""

import logging
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rltrainer.foreign import Failure

log = logging.getLogger(__name__)

Batch = tuple[int, ...]
"""Axes before those of the space: () for one environment, (B,) for a vector of them."""
NUMBERS = {"f": "fiub", "i": "iub", "u": "iub", "b": "iub"}
"""Kinds of NumPy's types that may be given where a space is of the kind of the key."""


def check_observation(space: Space[Any], obs: Any, batch: Batch = ()) -> Any:
    """Return `obs`, in the type of `space` where that is a Box of integers.

    Raises Failure, which names the part, unless it has the parts, shapes, kinds and choices that `space` says. Bounds
    of a Box are not looked at: many environments overstep theirs, and nothing breaks by that.
    """
    is_plain = type(obs) is np.ndarray and type(space) is spaces.Box
    if is_plain and obs.dtype == space.dtype and obs.shape == (*batch, *(space.shape or ())):
        return obs  # at once, as nearly always
    if faults := list(observation_faults(space, obs, batch)):
        raise Failure("; ".join(faults))
    return np.asarray(obs, space.dtype) if isinstance(space, spaces.Box) and space.dtype.kind != "f" else obs


def check_finite(obs: Any, what: str = "an observation") -> None:
    """Raise Failure if any number of an array, or of one of its parts, is NaN or infinite."""
    if isinstance(obs, dict | tuple):
        for part in obs.values() if isinstance(obs, dict) else obs:
            check_finite(part, what)
    elif (values := np.asarray(obs)).dtype.kind == "f" and not np.isfinite(values).all():
        raise Failure(f"{what} is NaN or infinite")


def observation_faults(space: Space[Any], obs: Any, batch: Batch = (), path: str = "observation") -> Iterator[str]:
    """Yield each part of `obs` that is not as `space` says, and how."""
    match space:
        case spaces.Dict():
            if not isinstance(obs, dict) or not obs.keys() >= space.spaces.keys():
                has = sorted(map(str, obs)) if isinstance(obs, dict) else type(obs).__name__
                yield f"{path} has {has}, where its space says {sorted(space.spaces)}"
                return
            if more := sorted(str(name) for name in obs.keys() - space.spaces.keys()):
                warn_once(f"{path} has parts that its space does not name, and they are left out: {', '.join(more)}")
            for name, part in space.spaces.items():
                yield from observation_faults(part, obs[name], batch, f"{path}.{name}")
        case spaces.Tuple():
            if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
                has = f"a {type(obs).__name__} of {len(obs)}" if isinstance(obs, tuple | list) else type(obs).__name__
                yield f"{path} is {has}, where its space says a tuple of {len(space.spaces)}"
                return
            for position, part in enumerate(space.spaces):
                yield from observation_faults(part, obs[position], batch, f"{path}.{position}")
        case _:
            yield from _array_faults(space, obs, batch, path)


def _array_faults(space: Space[Any], obs: Any, batch: Batch, path: str) -> Iterator[str]:
    try:
        values = np.asarray(obs)
    except ValueError:
        yield f"{path} is {reprlib.repr(obs)}, which is no array"
        return
    shape = space.shape or ()
    if values.shape != (*batch, *shape):
        yield f"{path} has shape {values.shape[len(batch) :]}, where its space says {shape}"
    elif values.dtype.kind not in NUMBERS.get(np.dtype(space.dtype).kind, ""):
        yield f"{path} is {reprlib.repr(obs)}, of {values.dtype}, where its space says {space.dtype}"
    else:
        low, high = choices(space, values.dtype)
        outside = (values < low) | (values > high)
        if outside.any():
            whose = f" of environment {np.argwhere(outside)[0, 0]}" if batch else ""
            first = values[np.argwhere(outside)[0, 0]] if batch else values
            yield f"{path}{whose} is {reprlib.repr(first.tolist())}, which is not in {space}"


def choices(space: Space[Any], dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest that values of `dtype` can be in `space`; of a Box, what its own type holds."""
    match space:
        case spaces.Discrete():
            return space.start, space.start + space.n - 1
        case spaces.MultiDiscrete():
            return space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            return 0, 1
    own = np.dtype(space.dtype)
    if own.kind == "f" or own == dtype:
        return -np.inf, np.inf
    return (0, 1) if own.kind == "b" else (np.iinfo(own).min, np.iinfo(own).max)


def reward_of(value: Any) -> float:
    """Return the reward that a step has given. Raises Failure unless it is one number."""
    if type(value) is float:
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise Failure(f"step() returned {reprlib.repr(value)} as the reward, which must be one number")
    return float(array.reshape(()))


def flag_of(value: Any, name: str) -> bool:
    """Return whether an episode has ended, as a step has said. Raises Failure unless it is true or false."""
    if type(value) is bool:
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iub":
        raise Failure(f"step() returned {reprlib.repr(value)} as {name}, which must be True or False")
    return bool(array.reshape(()))


def unpacked(returned: Any, call: str, names: str) -> tuple[Any, ...]:
    """Return what `call` returned. Raises Failure unless it is a tuple of as many as `names` lists."""
    count = names.count(",") + 1
    if isinstance(returned, tuple | list) and len(returned) == count:
        return tuple(returned)
    has = f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
    raise Failure(f"{call} returned {has}, where Gymnasium says {count}: {names}")


_warned: set[str] = set()


def warn_once(message: str, topic: str = "") -> None:
    """Log a warning, unless it, or another of the same `topic`, has been logged in this process."""
    if (topic or message) not in _warned:
        _warned.add(topic or message)
        log.warning("%s", message)
