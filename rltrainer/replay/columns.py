"""Where replay stores what its batches are made of: a column [slots, ...] for each part of a step.

Slots lie in rows of B environments; the rows of a stream are a ring buffer, in which one row follows another in time.
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

MAX_DEVICE_SHARE = 0.5
"""Of a device's free memory, what columns may take: networks, batches and their passes need the rest."""
FRAME_STACK_AXES, MAX_FRAMES = 3, 16
"""Axes of a stack of frames, and how many frames it has at most: a longer first axis is none of frames."""
MIN_SHIFTED_SHARE = 0.5
"""Share of stacks that are those before them moved on by one frame, above which storing single frames saves memory."""
EMPTY = 255
"""In place of a number of rows: nothing was written yet."""


class Column(Protocol):
    """One part of each step."""

    def write(self, slots: Indices, values: Array, continues: NDArray[np.bool_]) -> None:
        """Write `values` [n, B, ...] into `slots` [n, B], rows that follow one another.

        Where an environment `continues`, [B] of bool, its first value is stored in its slot already.
        """

    def at(self, index: Indices) -> Tensor:
        """Return the values [N, ...] at slots `index` [N], on the column's device."""

    def state(self, first: int, rows: int) -> Any:
        """Return arrays that `load` goes on from, of `rows` rows from slot `first` on, as views where that can be."""

    def load(self, first: int, rows: int, state: Any) -> None:
        """Write the `state` of as many rows."""


class HostColumn:
    """A column in the machine's memory, which the system gives only as it is written."""

    def __init__(self, slots: int, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.num_envs, self.values = num_envs, np.zeros((slots, *shape), dtype)

    def write(self, slots: Indices, values: Array, continues: NDArray[np.bool_]) -> None:
        """Write `values` [n, B, ...] into `slots` [n, B]."""
        self.values[slots] = values

    def at(self, index: Indices) -> Tensor:
        """Return the values [N, ...] at `index` [N], on the CPU."""
        return torch.from_numpy(self.values.take(index, axis=0))

    def state(self, first: int, rows: int) -> Array:
        """Return a view [rows, B, ...] of the rows from slot `first` on."""
        return self.values[first : first + rows * self.num_envs].reshape(rows, self.num_envs, *self.values.shape[1:])

    def load(self, first: int, rows: int, state: Array) -> None:
        """Write the `state` [rows, B, ...] from slot `first` on."""
        self.state(first, rows)[:] = state


class DeviceColumn:
    """A column in the memory of a device, where batches are gathered."""

    def __init__(
        self, slots: int, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: torch.device
    ) -> None:
        self.num_envs = num_envs
        self.values = torch.zeros(slots, *shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype, device=device)

    def write(self, slots: Indices, values: Array, continues: NDArray[np.bool_]) -> None:
        """Copy `values` [n, B, ...] to the device, into `slots` [n, B]."""
        device = self.values.device
        rows = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        self.values.index_copy_(0, torch.from_numpy(slots.reshape(-1)).to(device), rows.flatten(0, 1))

    def at(self, index: Indices) -> Tensor:
        """Return the values [N, ...] at `index` [N], on the device."""
        return self.values.index_select(0, torch.from_numpy(index).to(self.values.device))

    def state(self, first: int, rows: int) -> Array:
        """Return a copy [rows, B, ...] of the rows from slot `first` on."""
        values = self.values[first : first + rows * self.num_envs].cpu().numpy()
        return values.reshape(rows, self.num_envs, *values.shape[1:])

    def load(self, first: int, rows: int, state: Array) -> None:
        """Copy the `state` [rows, B, ...] to the device, from slot `first` on."""
        values = torch.from_numpy(np.array(state)).to(self.values.device)
        self.values[first : first + rows * self.num_envs].copy_(values.flatten(0, 1))


class FrameStackColumn:
    """A column of stacks [S, ...] of an environment's last S frames, of which each frame is stored once.

    A stack is put together from the newest frames of its row and of those before it. Where that would be another
    stack, as at the beginning of an episode and in the oldest row, a run of stacks begins: the older frames of such a
    first stack are stored beside it.
    """

    def __init__(self, frames: HostColumn | DeviceColumn, depth: int, rows: int) -> None:
        """`frames` is the column [slots, ...] of newest frames, `depth` is S; a stream has `rows` rows."""
        self.frames, self.depth, self.num_envs = frames, depth, frames.num_envs
        self.ring = rows * frames.num_envs
        self.since_first = np.full(len(frames.values), EMPTY, np.uint8)  # rows since a run's first stack, below S
        self.older_frames: dict[int, Array] = {}  # [S - 1, ...] of the first stack of each run, by its slot

    def write(self, slots: Indices, values: Array, continues: NDArray[np.bool_]) -> None:
        """Write stacks [n, B, S, ...] into `slots` [n, B]; where an environment `continues`, so does its run."""
        self._begin_runs(advance(slots[-1], 1, self.ring, self.num_envs))
        shifted = shifted_stacks(values)
        since = np.where(continues, self.since_first[slots[0]], 0)
        self._write_row(slots[0], values[0], since, (since > 0) | continues)
        for i in range(1, len(slots)):
            since = np.where(shifted[i - 1], np.minimum(since + 1, self.depth - 1), 0)
            self._write_row(slots[i], values[i], since, since > 0)
        self.frames.write(slots, values[:, :, -1], continues)

    def _write_row(self, row: Indices, stacks: Array, since: Array, in_run: Array) -> None:
        """Write how many rows `since` [B] the runs of `stacks` [B, S, ...] began; now, unless they are `in_run` [B]."""
        self.since_first[row] = since
        for slot, stack, goes_on in zip(row.tolist(), stacks, in_run.tolist(), strict=True):
            if not goes_on:
                self.older_frames[slot] = stack[:-1].copy()
            elif self.since_first[slot]:
                self.older_frames.pop(slot, None)

    def _begin_runs(self, row: Indices) -> None:
        """Let runs begin in `row` [B], which is to be the oldest: the frames before it will be written over."""
        if self.since_first[row[0]] == EMPTY:
            return
        stacks = self.at(row).cpu().numpy()
        self.older_frames.update(zip(row.tolist(), stacks[:, :-1].copy(), strict=True))
        for rows in range(self.depth - 1):
            later = advance(row, rows, self.ring, self.num_envs)
            written = later[self.since_first[later] != EMPTY]
            self.since_first[written] = np.minimum(self.since_first[written], rows)

    def at(self, index: Indices) -> Tensor:
        """Put together the stacks [N, S, ...] at `index` [N], on the device of the frames."""
        ages = np.arange(1 - self.depth, 1)
        slots = advance(index[:, None], ages, self.ring, self.num_envs)
        frames = self.frames.at(slots.reshape(-1))
        stacks = frames.view(*slots.shape, *frames.shape[1:])
        since = self.since_first[index]
        for i in np.flatnonzero(since < self.depth - 1).tolist():
            rows = int(since[i])
            older = self.older_frames[int(slots[i, -1 - rows])]
            stacks[i, : len(older) - rows] = torch.from_numpy(older[rows:])
        return stacks

    def state(self, first: int, rows: int) -> dict[str, Array]:
        """Return frames, rows since the first stacks, and the first stacks' older frames, of rows from `first` on."""
        last = first + rows * self.num_envs
        began = sorted(slot for slot in self.older_frames if first <= slot < last)
        return {
            "frames": self.frames.state(first, rows),
            "since": self.since_first[first:last],
            "began": np.array(began, np.int64) - first,
            "older": np.stack([self.older_frames[slot] for slot in began]),
        }

    def load(self, first: int, rows: int, state: dict[str, Array]) -> None:
        """Write the `state` of as many rows from slot `first` on."""
        self.frames.load(first, rows, state["frames"])
        self.since_first[first : first + rows * self.num_envs] = state["since"]
        self.older_frames.update(zip((state["began"] + first).tolist(), np.array(state["older"]), strict=True))


def advance(slots: Indices, rows: int | Indices, ring: int, num_envs: int) -> Indices:
    """Return the slots `rows` rows of `num_envs` later, round the stream's ring buffer of `ring` slots."""
    stream = slots // ring * ring
    advanced: Indices = stream + (slots - stream + rows * num_envs) % ring
    return advanced


def shifted_stacks(values: Array) -> NDArray[np.bool_]:
    """Return where stacks [n, B, S, ...] are those of the row before, moved on by one frame: [n - 1, B]."""
    equal = values[1:, :, :-1] == values[:-1, :, 1:]
    shifted: NDArray[np.bool_] = equal.reshape(*equal.shape[:2], -1).all(-1)
    return shifted


class ColumnSpec(NamedTuple):
    """The items that a column stores in each slot."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    depth: int = 0
    """Frames that are stacked, each of `shape`; 0 where none are."""

    @property
    def nbytes(self) -> int:
        """Bytes of one slot."""
        return self.dtype.itemsize * math.prod(self.shape)


def spec_of(values: Array) -> ColumnSpec:
    """Return what suits `values` [n, B, ...]: bytes of which most are shifted stacks are stored as single frames."""
    shape = values.shape[2:]
    may_be_stacks = len(shape) == FRAME_STACK_AXES and values.dtype == np.uint8 and 1 < shape[0] <= MAX_FRAMES
    if may_be_stacks and len(values) > 1 and shifted_stacks(values).mean() > MIN_SHIFTED_SHARE:
        return ColumnSpec(shape[1:], values.dtype, depth=shape[0])
    return ColumnSpec(shape, values.dtype)


def spec_of_state(state: Any) -> ColumnSpec:
    """Return what the column stored that gave `state`."""
    if isinstance(state, dict):
        return ColumnSpec(state["frames"].shape[2:], state["frames"].dtype, depth=state["older"].shape[1] + 1)
    return ColumnSpec(state.shape[2:], state.dtype)


def make_columns(
    specs: dict[str, ColumnSpec], streams: int, rows: int, num_envs: int, device: torch.device
) -> dict[str, Column]:
    """Allocate columns by name, on `device` if it has room for all of them, else in the machine's memory."""
    slots = streams * rows * num_envs
    size = slots * sum(spec.nbytes for spec in specs.values())
    if device != CPU and size > MAX_DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        log.warning("replay is kept in the machine's memory: %.1f GB are too much for the GPU's", size / 1e9)
        device = CPU
    columns: dict[str, Column] = {}
    for name, spec in specs.items():
        values = (slots, num_envs, spec.shape, spec.dtype)
        column = HostColumn(*values) if device == CPU else DeviceColumn(*values, device)
        columns[name] = FrameStackColumn(column, spec.depth, rows) if spec.depth else column
    return columns
