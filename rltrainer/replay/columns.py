"""Where a replay keeps what its batches are made of: a column [slots, ...] for each part of a step.

Slots are in rows of `width` environments; the rows of a stream are a ring, in which one row follows another in time.
"""

import logging
import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rltrainer.core.types import CPU, Array
from rltrainer.replay.sum_tree import Indices

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of a device's free memory, what columns may take: networks, batches and their passes need the rest."""
IMAGE, MOST_STACKED = 3, 16
"""Axes of a stack of frames, and how many there are at most: a first axis that is longer is none of frames."""
MOSTLY = 0.5
"""Share of stacks that follow those before them, from which on keeping each frame once saves memory."""
EMPTY = 255
"""In place of a number of rows: nothing was written yet."""


class Column(Protocol):
    """One part of each step."""

    def write(self, slots: Indices, values: Array, known: NDArray[np.bool_]) -> None:
        """Puts `values` [n, B, ...] into `slots` [n, B], rows that follow one another. Where an environment is `known`,
        [B], its first observation is there already."""

    def at(self, index: Indices) -> Tensor:
        """What lies at `index` [N]: [N, ...], where the column keeps it."""

    def state(self, first: int, rows: int) -> Any:
        """Arrays that `load` goes on from, of so many rows from the slot `first` on, views where that can be."""

    def load(self, first: int, rows: int, state: Any) -> None:
        """Takes in the `state` of as many rows."""


class HostColumn:
    """A column in the machine's memory, which the system gives only as it is written."""

    def __init__(self, slots: int, width: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.width, self.values = width, np.zeros((slots, *shape), dtype)

    def write(self, slots: Indices, values: Array, known: NDArray[np.bool_]) -> None:
        """See Column."""
        self.values[slots] = values

    def at(self, index: Indices) -> Tensor:
        """See Column."""
        return torch.from_numpy(self.values.take(index, axis=0))

    def state(self, first: int, rows: int) -> Array:
        """See Column."""
        return self.values[first : first + rows * self.width].reshape(rows, self.width, *self.values.shape[1:])

    def load(self, first: int, rows: int, state: Array) -> None:
        """See Column."""
        self.state(first, rows)[:] = state


class DeviceColumn:
    """A column in the memory of a device, which batches are gathered in."""

    def __init__(
        self, slots: int, width: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: torch.device
    ) -> None:
        self.width = width
        self.values = torch.zeros(slots, *shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=device)

    def write(self, slots: Indices, values: Array, known: NDArray[np.bool_]) -> None:
        """See Column."""
        device = self.values.device
        given = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        self.values.index_copy_(0, torch.from_numpy(slots.reshape(-1)).to(device), given.flatten(0, 1))

    def at(self, index: Indices) -> Tensor:
        """See Column."""
        return self.values.index_select(0, torch.from_numpy(index).to(self.values.device))

    def state(self, first: int, rows: int) -> Array:
        """See Column."""
        part = self.values[first : first + rows * self.width].cpu().numpy()
        return part.reshape(rows, self.width, *part.shape[1:])

    def load(self, first: int, rows: int, state: Array) -> None:
        """See Column."""
        given = torch.from_numpy(np.array(state)).to(self.values.device)
        self.values[first : first + rows * self.width].copy_(given.flatten(0, 1))


class FrameStackColumn:
    """A column of stacks [S, ...] of an environment's last S frames, of which each frame is kept once.

    A stack is the newest frames of its row and of those before it. Where it is not, as at the beginning of an episode,
    and in the oldest row, it begins anew: what it shows before its newest frame is kept as it is.
    """

    def __init__(self, frames: HostColumn | DeviceColumn, depth: int, rows: int) -> None:
        """`frames` is the column [slots, ...] of newest frames; a stream has `rows` rows."""
        self.frames, self.depth, self.width = frames, depth, frames.width
        self.ring = rows * frames.width
        self.since = np.full(len(frames.values), EMPTY, np.uint8)  # rows since a stack began anew, S - 1 at most
        self.older: dict[int, Array] = {}  # what stacks that begin anew show before their newest frame, by slot

    def write(self, slots: Indices, values: Array, known: NDArray[np.bool_]) -> None:
        """See Column."""
        self._make_oldest(later(slots[-1], 1, self.ring, self.width))
        goes_on = follows(values)
        since = np.where(known, self.since[slots[0]], 0)
        self._note(slots[0], values[0], since, (since > 0) | known)
        for i in range(1, len(slots)):
            since = np.where(goes_on[i - 1], np.minimum(since + 1, self.depth - 1), 0)
            self._note(slots[i], values[i], since, since > 0)
        self.frames.write(slots, values[:, :, -1], known)

    def _note(self, row: Indices, stacks: Array, since: Array, kept: Array) -> None:
        """Notes for a row of slots when their `stacks` [B, S, ...] began anew: now, unless they are `kept` up."""
        self.since[row] = since
        for slot, stack, keeps in zip(row.tolist(), stacks, kept.tolist(), strict=True):
            if not keeps:
                self.older[slot] = stack[:-1].copy()
            elif self.since[slot]:
                self.older.pop(slot, None)

    def _make_oldest(self, row: Indices) -> None:
        """Has the stacks of a row begin anew, for those before it will be written over."""
        if self.since[row[0]] == EMPTY:
            return
        stacks = self.at(row).cpu().numpy()
        self.older.update(zip(row.tolist(), stacks[:, :-1].copy(), strict=True))
        for rows in range(self.depth - 1):
            following = later(row, rows, self.ring, self.width)
            filled = following[self.since[following] != EMPTY]
            self.since[filled] = np.minimum(self.since[filled], rows)

    def at(self, index: Indices) -> Tensor:
        """See Column."""
        back = np.arange(1 - self.depth, 1)
        slots = later(index[:, None], back, self.ring, self.width)
        frames = self.frames.at(slots.reshape(-1))
        stacks = frames.view(*slots.shape, *frames.shape[1:])
        since = self.since[index]
        for i in np.flatnonzero(since < self.depth - 1).tolist():
            rows = int(since[i])
            older = self.older[int(slots[i, -1 - rows])]
            stacks[i, : len(older) - rows] = torch.from_numpy(older[rows:])
        return stacks

    def state(self, first: int, rows: int) -> dict[str, Array]:
        """See Column."""
        last = first + rows * self.width
        began = sorted(slot for slot in self.older if first <= slot < last)
        return {
            "frames": self.frames.state(first, rows),
            "since": self.since[first:last],
            "began": np.array(began, np.int64) - first,
            "older": np.stack([self.older[slot] for slot in began]),
        }

    def load(self, first: int, rows: int, state: dict[str, Array]) -> None:
        """See Column."""
        self.frames.load(first, rows, state["frames"])
        self.since[first : first + rows * self.width] = state["since"]
        self.older.update(zip((state["began"] + first).tolist(), np.array(state["older"]), strict=True))


def later(slots: Indices, rows: int | Indices, ring: int, width: int) -> Indices:
    """The slots so many `rows` of `width` later, round the `ring` of as many slots that is their stream."""
    stream = slots // ring * ring
    moved: Indices = stream + (slots - stream + rows * width) % ring
    return moved


def follows(values: Array) -> NDArray[np.bool_]:
    """Where stacks [n, B, S, ...] are those of the row before, moved on by one frame: [n - 1, B]."""
    same = values[1:, :, :-1] == values[:-1, :, 1:]
    found: NDArray[np.bool_] = same.reshape(*same.shape[:2], -1).all(-1)
    return found


class Kind(NamedTuple):
    """What a column is to keep."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    depth: int = 0
    """Frames that are stacked, each of `shape`; 0 where none are."""

    @property
    def bytes(self) -> int:
        """What one slot takes."""
        return self.dtype.itemsize * math.prod(self.shape)


def kind_of(values: Array) -> Kind:
    """What suits values [n, B, ...] such as these: bytes that mostly follow one another as stacks do are stacks."""
    shape = values.shape[2:]
    could_be = len(shape) == IMAGE and values.dtype == np.uint8 and 1 < shape[0] <= MOST_STACKED and len(values) > 1
    if could_be and follows(values).mean() > MOSTLY:
        return Kind(shape[1:], values.dtype, depth=shape[0])
    return Kind(shape, values.dtype)


def kind_in(state: Any) -> Kind:
    """What the `state` of a column was of."""
    if isinstance(state, dict):
        return Kind(state["frames"].shape[2:], state["frames"].dtype, depth=state["older"].shape[1] + 1)
    return Kind(state.shape[2:], state.dtype)


def make_columns(
    kinds: dict[str, Kind], streams: int, rows: int, width: int, device: torch.device
) -> dict[str, Column]:
    """Columns of all these kinds, empty, on `device` if it has room for them."""
    slots = streams * rows * width
    size = slots * sum(kind.bytes for kind in kinds.values())
    if device != CPU and size > SHARE * torch.cuda.mem_get_info(device)[0]:
        log.warning("replay is kept in the machine's memory: %.1f GB are too much for the GPU's", size / 1e9)
        device = CPU
    columns: dict[str, Column] = {}
    for name, kind in kinds.items():
        given = (slots, width, kind.shape, kind.dtype)
        column = HostColumn(*given) if device == CPU else DeviceColumn(*given, device)
        columns[name] = FrameStackColumn(column, kind.depth, rows) if kind.depth else column
    return columns
