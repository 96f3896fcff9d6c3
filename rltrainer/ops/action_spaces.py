"""Which distributions the actions of a space have, and how they are stored and handed to its environment."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Tensor

from rltrainer.errors import RunError
from rltrainer.ops.distributions import (
    Bernoullis,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
    SquashedGaussian,
)

D_co = TypeVar("D_co", covariant=True)


@dataclass(frozen=True)
class ActionDistribution(Generic[D_co]):
    """How actions of one space are distributed, stored and handed to its environment."""

    outputs: int
    """Numbers that the policy network puts out for one observation."""
    make: Callable[[Tensor], D_co]
    """A batch of distributions from parameters [..., P]: the outputs, then the log standard deviations."""
    shape: tuple[int, ...]
    """Shape of one action as those distributions give it."""
    dtype: np.dtype[Any]
    """As what actions are stored."""
    to_env: Callable[[NDArray[Any]], Any]
    """A batch of actions [B, *shape] as a vector of environments takes them: an array, for a Tuple a tuple of them."""
    log_stds: int = 0
    """Log standard deviations that follow the outputs in the parameters; the policy learns them by themselves."""

    def to_single_env(self, action: NDArray[Any]) -> Any:
        """One action [*shape] as one environment takes it."""
        return _of_single(self.to_env(action[None]))


def _of_single(batch: Any) -> Any:
    return tuple(_of_single(part) for part in batch) if isinstance(batch, tuple) else batch[0]


ENDLESS = 1e18
"""Bounds of actions from which on nothing is learned: their squares have no room in single precision."""
INTEGER, BIT, FLOAT = np.dtype(np.int64), np.dtype(np.int8), np.dtype(np.float32)


def action_distribution(space: Space[Any]) -> ActionDistribution[Distribution]:
    """Choose the distributions for an action space. Raises RunError, permanent, for a space that is not supported."""
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) and 0 in space.shape:
        raise RunError("InvalidOption", f"the action space {space} has no elements: there is nothing to choose", True)
    match space:
        case spaces.Discrete():
            start, dtype = space.start, space.dtype
            return ActionDistribution(
                int(space.n), Categorical, (), INTEGER, lambda a: (a + start).astype(dtype, copy=False)
            )
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return _choices(space)
        case spaces.MultiBinary():
            bits, shape = math.prod(space.shape), space.shape
            return ActionDistribution(
                bits, Bernoullis, (bits,), BIT, lambda a: a.reshape(-1, *shape).astype(np.int8, copy=False)
            )
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            size = math.prod(space.shape)
            return ActionDistribution(size, DiagonalGaussian, (size,), FLOAT, _clipped(space), log_stds=size)
        case spaces.Tuple() if space.spaces:
            return _product([action_distribution(part) for part in space.spaces])
    raise RunError(
        "InvalidOption",
        f"the action space {space} is not supported: use Discrete, MultiDiscrete (one-dimensional), MultiBinary, "
        "a Box of floats, or a Tuple of these",
        permanent=True,
    )


def squashed_action_distribution(space: Space[Any]) -> ActionDistribution[SquashedGaussian]:
    """Choose the distributions for a bounded Box of floats. Actions are in [-1, 1] until the environment takes them.

    The network puts out means and log standard deviations. Raises RunError, permanent, for any other space.
    """
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating) or not space.is_bounded():
        raise RunError(
            "InvalidOption",
            f"the action space {space} is not supported: use a Box of floats with finite bounds",
            permanent=True,
        )
    if 0 in space.shape:
        raise RunError("InvalidOption", f"the action space {space} has no elements: there is nothing to choose", True)
    size, shape, dtype = math.prod(space.shape), space.shape, space.dtype
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)  # half precision has no room for their sum
    if (endless := max(np.abs(low).max(), np.abs(high).max())) >= min(ENDLESS, float(np.finfo(dtype).max)):
        raise RunError(
            "InvalidOption",
            f"the action space {space} is not supported: its bounds, up to {endless:g}, are infinite in all but name, "
            "and actions are scaled to them. Give it bounds that mean something, or use PPO, which needs none",
            permanent=True,
        )
    middle, reach = (high + low) / 2, (high - low) / 2

    def to_env(action: NDArray[Any]) -> NDArray[Any]:
        scaled: NDArray[Any] = middle + reach * action.reshape(-1, *shape)
        within: NDArray[Any] = np.clip(scaled, low, high).astype(dtype)  # rounding may lead past a bound
        return within

    return ActionDistribution(2 * size, SquashedGaussian, (size,), FLOAT, to_env)


def _choices(space: spaces.MultiDiscrete) -> ActionDistribution[Distribution]:
    sizes, start, dtype = space.nvec.tolist(), space.start, space.dtype

    def to_env(action: NDArray[Any]) -> NDArray[Any]:
        return (action + start).astype(dtype, copy=False)

    return ActionDistribution(
        sum(sizes), lambda logits: MultiCategorical(logits, sizes), (len(sizes),), INTEGER, to_env
    )


def _clipped(space: spaces.Box) -> Callable[[NDArray[Any]], NDArray[Any]]:
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    return lambda action: np.asarray(np.clip(action.reshape(-1, *shape), low, high), dtype)


def _product(parts: list[ActionDistribution[Distribution]]) -> ActionDistribution[Distribution]:
    shapes, sizes = [part.shape for part in parts], [math.prod(part.shape) for part in parts]
    sections = [part.outputs for part in parts] + [part.log_stds for part in parts]
    ends = np.cumsum(sizes)[:-1].tolist()

    def make(parameters: Tensor) -> Product:
        pieces = torch.split(parameters, sections, -1)
        own = [torch.cat(both, -1) for both in zip(pieces[: len(parts)], pieces[len(parts) :], strict=True)]
        made = [part.make(each) for part, each in zip(parts, own, strict=True)]
        return Product(parameters, made, shapes, sections[: len(parts)])

    def to_env(action: NDArray[Any]) -> tuple[Any, ...]:
        pieces = np.split(action, ends, -1)
        return tuple(part.to_env(each.reshape(-1, *part.shape)) for part, each in zip(parts, pieces, strict=True))

    stds = sum(part.log_stds for part in parts)
    return ActionDistribution(sum(part.outputs for part in parts), make, (sum(sizes),), FLOAT, to_env, log_stds=stds)
