"""Integers brought to the size that networks learn from, by the bounds of their space."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from gymnasium.spaces.utils import flatdim
from torch import Tensor, nn

from rltrainer.core.types import Array

UNBOUNDED = 2**31 - 1
"""Size from which on a bound says nothing: it is the limit of a type."""


class Scale(nn.Module):
    """(x - origin) * factor, for each element: 0 is the point of its range nearest to 0, and +-1 the farthest from it.

    That is x / 255 for bytes. It is a part of what was learned: checkpoints carry it. Those from before it was carried
    have `uncarried` factors: all bytes were divided by 255 then, and other integers left as they were.
    """

    origin: Tensor | None
    factor: Tensor

    def __init__(self, origin: Array, factor: Array, uncarried: float) -> None:
        """`origin` and `factor` have the shape of the elements; where all are alike, one number stands for all."""
        super().__init__()
        self.uncarried = uncarried
        self.register_buffer("origin", _tensor(origin, torch.float64) if origin.any() else None)
        self.register_buffer("factor", _tensor(factor, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return floats of `x` [..., *shape], of any type."""
        shifted = x if self.origin is None else x.double() - self.origin
        return shifted.float() * self.factor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}factor" not in state_dict:
            state_dict[f"{prefix}factor"] = torch.full_like(self.factor, self.uncarried)
            if self.origin is not None:
                state_dict[f"{prefix}origin"] = torch.zeros_like(self.origin)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def scale_of(leaves: Sequence[Space[Any]], shape: tuple[int, ...], channels_last: bool = False) -> Scale | None:
    """Make the scale of the elements of some spaces, side by side, as `shape`; None where none needs any.

    Of a picture [H, W, C] it is that of [C, H, W] if `channels_last`. Floats, bits and one-hot vectors are left alone.
    """
    ranges = [range_of(space) for space in leaves]
    origin, factor = (np.concatenate(each).reshape(shape) for each in zip(*ranges, strict=True))
    uncarried = 1 / 255 if any(is_bytes(space) for space in leaves) else 1.0
    if uncarried == 1.0 and not origin.any() and (factor == 1.0).all():
        return None
    if channels_last:
        origin, factor = np.moveaxis(origin, -1, 0), np.moveaxis(factor, -1, 0)
    return Scale(origin, factor, uncarried)


def range_of(space: Space[Any]) -> tuple[Array, Array]:
    """Return the origin and the factor of each element of `space`, [n] each; 0 and 1 where it is to be left alone."""
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "iu":
        return np.zeros(flatdim(space)), np.ones(flatdim(space))
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED)
    origin = np.where(bounded, np.clip(0.0, low, high), 0.0)
    farthest = np.maximum(high - origin, origin - low)
    return origin, 1.0 / np.where(bounded & (farthest > 0), farthest, 1.0)


def is_bytes(space: Space[Any]) -> bool:
    """Return whether `space` is an array of bytes."""
    return isinstance(space, spaces.Box) and space.dtype == "uint8"


def _tensor(values: Array, dtype: torch.dtype) -> Tensor:
    alike = (values == values.flat[0]).all()
    return torch.tensor(values.flat[0] if alike else values, dtype=dtype)
