"""Checks of what environments give: numbers that are numbers, and what is odd and yet no fault."""

from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from rltrainer.api.options import Options
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import Array
from rltrainer.envs.observations import warn_once
from rltrainer.foreign import Failure

ENDLESS = 10_000
"""Steps of each environment after which it is odd that no episode has ended."""


def first_not_finite(fragment: Fragment, steps: int) -> tuple[int, int, str] | None:
    """Find an observation or reward among the first `steps` steps that is not finite.

    Returns its step, its environment and a description of it; None where all are finite.
    """
    for name, values in (("an observation", fragment.obs[1 : steps + 1]), ("a reward", fragment.r[:steps])):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            t, b = np.argwhere(~np.isfinite(values))[0, :2]
            return int(t), int(b), f"{name} of environment {b} is NaN, infinite or beyond single precision"
    return None


def checked_state(state: Any, path: str = "") -> Any:
    """Return the state of environments. Raises Failure that names a part of it that no checkpoint can hold."""
    if isinstance(state, dict):
        for name, part in state.items():
            checked_state(part, f"{path}.{name}" if path else str(name))
    elif isinstance(state, list | tuple):
        for position, part in enumerate(state):
            checked_state(part, f"{path}.{position}")
    elif not _is_storable(state):
        kind = f"an array of {state.dtype}" if isinstance(state, np.ndarray) else type(state).__name__
        raise Failure(f"{path} is {kind}: a checkpoint holds arrays of numbers and JSON values, in dicts and lists")
    return state


def _is_storable(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufc"
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


class Oddities:
    """Oddities of an environment that are worth one warning: observations out of bounds, episodes that never end."""

    def __init__(self, env: str, space: Space[Any]) -> None:
        self.env, self.space, self.bounds, self.any_ended = env, space, bounds_of(space), False

    def look(self, fragment: Fragment, lengths: Array) -> None:
        """Look at a fragment, and at the lengths so far of the episodes under way, [B]."""
        if self.bounds is not None and self._is_outside(fragment.obs[1:], *self.bounds):
            self.bounds = None
        if self.any_ended:
            return
        self.any_ended = bool((fragment.terminated | fragment.truncated).any())
        if not self.any_ended and lengths.min() >= ENDLESS:
            self.any_ended = True  # told
            warn_once(
                f"environment {self.env}: no episode has ended in {ENDLESS:,} steps of each environment. If none ever "
                "does, there are no returns to see: give it a limit, as gymnasium.wrappers.TimeLimit does, or "
                "max_episode_steps in the env_config of a registered one"
            )

    def _is_outside(self, obs: Array, low: Array, high: Array) -> bool:
        outside = (obs < low) | (obs > high)
        if not outside.any():
            return False
        where = tuple(np.argwhere(outside)[0])
        element = "".join(f"[{i}]" for i in where[2:])
        least, greatest = (np.broadcast_to(bound, obs.shape)[where] for bound in (self.space.low, self.space.high))  # type: ignore[attr-defined]
        warn_once(
            f"environment {self.env}: observation{element} is out of the bounds of its space: {obs[where]:g}, where "
            f"that says {least:g} to {greatest:g}. It is learned from as it is; bounds that hold help to scale it"
        )
        return True


class ReturnsBeyond:
    """Returns beyond the bounds of the distribution that is to hold them, which is worth a warning for each bound.

    What is beyond v_min or v_max counts as that bound, so that all actions which lead there are worth the same.
    """

    def __init__(self, env: str, options: Options, num_envs: int) -> None:
        """Without a distribution on atoms there are no bounds."""
        self.env, self.gamma = env, options.gamma
        holds_atoms = getattr(options, "num_atoms", 1) > 1
        self.bounds = {name: getattr(options, name) for name in ("v_min", "v_max")} if holds_atoms else {}
        self.returns, self.weights = np.zeros(num_envs), np.ones(num_envs)

    def look(self, fragment: Fragment) -> None:
        """Add a fragment, with rewards as they are learned from, to the discounted returns of the episodes under way,
        [B]; a run that goes on in the middle of an episode counts from there."""
        if not self.bounds:
            return
        for r, valid, ended in zip(fragment.r, fragment.valid, fragment.terminated | fragment.truncated, strict=True):
            self.returns += self.weights * r
            self.weights[valid] *= self.gamma
            if ended.any():
                self._compare("v_min", "smallest", self.returns[ended].min())
                self._compare("v_max", "largest", self.returns[ended].max())
                self.returns[ended], self.weights[ended] = 0.0, 1.0

    def _compare(self, name: str, farthest: str, value: float) -> None:
        bound = self.bounds.get(name, value)
        if value == bound or (value < bound) != (name == "v_min"):
            return
        del self.bounds[name]
        warn_once(
            f"environment {self.env}: an episode has returned {value:g}, discounted, and the distribution of returns "
            f"ends at {name}: {bound:g}. What is beyond counts as that, so actions that lead there look alike: set "
            f"{name} to the {farthest} discounted return that a good policy may reach",
            topic=f"{self.env} {name}",
        )


def bounds_of(space: Space[Any]) -> tuple[Array, Array] | None:
    """Return the bounds of a Box, a little more than rounding wide; None where nothing can be out of them."""
    if not isinstance(space, spaces.Box) or space.dtype.kind == "b":
        return None
    if space.dtype.kind in "iu":
        limits = np.iinfo(space.dtype)
        inside = bool((space.low == limits.min).all() and (space.high == limits.max).all())
        return None if inside else (space.low, space.high)
    if not (np.isfinite(space.low).any() or np.isfinite(space.high).any()):
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    margin = 1e-5
    return (
        (low - margin * np.maximum(1, np.abs(low))).astype(np.float32),
        (high + margin * np.maximum(1, np.abs(high))).astype(np.float32),
    )
