"""Replay: a ring of past steps, from which transitions over n steps are drawn."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rltrainer.accel.cuda_graphs import map_tensors
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, Array
from rltrainer.replay.columns import Column, Kind, kind_in, kind_of, later, make_columns
from rltrainer.replay.sum_tree import Floats, Indices, SumTree

EXTRA = "extra."
"""What the names of a fragment's extras begin with, among the columns of the ring."""
ORDER = ("r", "terminated", "valid")
"""What says which steps are drawn, and how far a window goes: read for every draw, on the CPU."""


@dataclass
class Transitions:
    """Transitions over up to n steps, as tensors [N, ...]."""

    obs: Tensor
    """Observations [N, *shape] that the actions were chosen by."""
    a: Tensor
    """Actions [N, *action_shape]."""
    r: Tensor
    """Discounted sums of the rewards of these steps, [N]."""
    discount: Tensor
    """gamma^k after k steps, or 0 where the episode terminated in them: [N], the weight of the value of next_obs."""
    next_obs: Tensor
    """Observations [N, *shape] that followed the last of these steps; an episode's last one where it was truncated."""
    weight: Tensor
    """Importance weights [N], the largest 1; all 1 where sampling is uniform."""
    index: Indices
    """Where they lie in the replay, [N]."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """What the policy noted of each action, [N, ...], by name."""

    def to(self, device: torch.device) -> "Transitions":
        """The same on `device`; nothing is copied where they are there already."""
        if self.obs.device == self.r.device == device:  # columns lie where obs does, all else where r does
            return self
        moved: Transitions = map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved


class Replay:
    """The newest valid steps, drawn uniformly, or by priority as in Schaul et al. 2016, arXiv 1511.05952, algorithm 1.

    Steps lie in a ring [streams, rows, B]; a stream is one worker's columns, whose fragments follow one another. An
    observation is stored once: the row after a step's holds what followed it. The row that is written next (the head)
    holds the newest observation alone and is not valid, so no window of n steps ever leads across it.

    What a batch is made of lies on `device`, if there is room, and is gathered there; what decides on it
    does not.
    """

    def __init__(
        self,
        capacity: int,
        gamma: float,
        n_step: int,
        prioritized: bool,
        alpha: float,
        epsilon: float,
        streams: int = 1,
        device: torch.device = CPU,
    ) -> None:
        """`capacity` is in environment steps over all streams; nothing is allocated before the first `add`.

        `alpha` is the exponent of priorities and `epsilon` what is added to them, eq. 1 and section 3.3; without
        `prioritized` neither means anything.
        """
        self.capacity, self.gamma, self.n_step, self.streams = capacity, gamma, n_step, streams
        self.prioritized, self.alpha, self.epsilon, self.device = prioritized, alpha, epsilon, device
        self.rows, self.width = 0, 0  # of a stream, and of a row
        self.columns: dict[str, Column] = {}  # what batches are made of, by name
        self.order: dict[str, Array] = {}  # what decides on them, [streams * rows * width] by name
        self.newest: dict[int, Array] = {}  # observations [width, *shape] at the head of each stream
        self.head = np.zeros(streams, np.int64)
        self.written = np.zeros(streams, np.int64)  # rows that hold anything, the head among them
        self.count = 0
        self.tree: SumTree | None = None
        self.largest = 1.0  # priority so far, as the tree holds it

    def __len__(self) -> int:
        """Valid steps: those that can be drawn."""
        return self.count

    def add(self, fragment: Fragment, stream: int = 0, priorities: Array | None = None) -> None:
        """Writes the steps of `fragment` over the oldest of `stream`.

        `priorities` [T, B] are |TD errors|; without them the steps come in with the largest so far, so that each
        is soon drawn. Raises ValueError where the fragment is as long as the ring, or not as wide as those before.
        """
        steps, width = fragment.r.shape
        columns = _columns(fragment)
        if not self.columns:
            self._allocate({name: kind_of(values) for name, values in columns.items()}, width)
        if steps >= self.rows or width != self.width:
            raise ValueError(
                f"a fragment of {steps} steps of {width} environments does not fit a replay stream "
                f"of {self.rows - 1} steps of {self.width}"
            )
        known = self._connect(fragment, stream)
        rows = (self.head[stream] + np.arange(steps + 1)) % self.rows
        slots = self._slots(stream, rows)
        held = self.order["valid"]
        self.count += int(np.count_nonzero(fragment.valid)) - int(np.count_nonzero(held[slots]))
        for name, values in columns.items():
            self.columns[name].write(slots[: len(values)], values, known)
        for name in ORDER:
            self.order[name][slots[:-1]] = getattr(fragment, name)
        held[slots[-1]] = False
        self.newest[stream] = fragment.obs[-1].copy()
        if self.tree is not None:
            valid = fragment.valid
            first = self.largest * valid if priorities is None else self._raised(priorities, valid)
            self.tree.set(slots[:-1].reshape(-1), first.reshape(-1))
            self.tree.set(slots[-1], np.zeros(width))
        self.written[stream] = min(self.rows, max(self.written[stream], self.head[stream] + steps + 1))
        self.head[stream] = rows[-1]

    def sample(self, count: int, rng: torch.Generator, beta: float) -> Transitions:
        """`count` transitions from all streams, with replacement. The same state of `rng`, on the CPU, draws the same.

        `beta` is the exponent of the importance weights, section 3.4; it means nothing where sampling is uniform.
        A window ends before its n steps where the episode does, and at the newest step. Raises ValueError if empty.
        """
        if not self.count:
            raise ValueError("there is no valid step to draw")
        if self.tree is None:
            index, weight = self._uniform(count, rng)
        else:
            index, weight = proportional(self.tree, count, rng, beta)
        r, discount, following = self._windows(index)
        names = [name for name in self.columns if name.startswith(EXTRA)]
        return Transitions(
            obs=self.columns["obs"].at(index),
            a=self.columns["a"].at(index),
            r=torch.from_numpy(r),
            discount=torch.from_numpy(discount),
            next_obs=self.columns["obs"].at(following),
            weight=torch.from_numpy(weight),
            index=index,
            extras={name.removeprefix(EXTRA): self.columns[name].at(index) for name in names},
        )

    def update_priorities(self, index: Indices, priorities: Array) -> None:
        """Gives the steps at `index` [N], as drawn, new `priorities` [N]: |TD errors|. Nothing happens if uniform.

        Steps that are not valid any more are left out; one that was overwritten since passes its priority on to the
        step in its place, until that is drawn itself.
        """
        if self.tree is not None:
            self.tree.set(index, self._raised(priorities, self.order["valid"][index]))

    def state(self) -> dict[str, Any]:
        """Arrays and JSON values that `load` goes on from. The arrays are views: read them before the next `add`."""
        return {
            "rows": self.rows,
            "width": self.width,
            "largest": self.largest,
            "streams": [self._stream_state(stream) for stream in range(self.streams)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on, empty as yet, from `state()` of a replay of the same capacity, streams and width.

        Raises ValueError where they differ. From one that was uniform all steps begin with the same priority.
        """
        saved = state["streams"]
        shape = (len(saved), state["rows"])
        filled = [each for each in saved if each["written"]]
        if not filled:
            return
        kinds = {name: kind_in(column) for name, column in filled[0]["columns"].items() if name not in ORDER}
        self._allocate(kinds, state["width"])
        if shape != (self.streams, self.rows):
            raise ValueError(
                f"the saved replay has {shape[0]} streams of {shape[1] - 1} steps, "
                f"and this one {self.streams} of {self.rows - 1}"
            )
        weights = np.zeros((self.streams, self.rows, self.width))
        for stream, each in enumerate(saved):
            self._load_stream(stream, each)
            written = each["written"]
            first = state["largest"] * self._order(stream, "valid")[:written]  # if it was uniform
            weights[stream, :written] = each.get("priorities", first)
        self.count, self.largest = int(np.count_nonzero(self.order["valid"])), state["largest"]
        if self.tree is not None:
            self.tree.load(weights.reshape(-1))

    def _load_stream(self, stream: int, state: dict[str, Any]) -> None:
        first, written = stream * self.rows * self.width, state["written"]
        self.head[stream], self.written[stream] = state["head"], written
        for name, column in state["columns"].items():
            if name in ORDER:
                self._order(stream, name)[:written] = column
            else:
                self.columns[name].load(first, written, column)
        if written:
            head = first + state["head"] * self.width + np.arange(self.width)
            self.newest[stream] = self.columns["obs"].at(head).cpu().numpy()

    def _stream_state(self, stream: int) -> dict[str, Any]:
        first, written = stream * self.rows * self.width, int(self.written[stream])
        columns = {name: column.state(first, written) for name, column in self.columns.items()} if written else {}
        columns |= {name: self._order(stream, name)[:written] for name in self.order}
        state = {"head": int(self.head[stream]), "written": written, "columns": columns}
        if self.tree is not None:
            state["priorities"] = self.tree.weights().reshape(self.streams, self.rows, self.width)[stream, :written]
        return state

    def _order(self, stream: int, name: str) -> Array:
        """A column of ORDER as its stream's rows, [rows, width]: a view."""
        rows: Array = self.order[name].reshape(self.streams, self.rows, self.width)[stream]
        return rows

    def _allocate(self, kinds: dict[str, Kind], width: int) -> None:
        """Makes room for columns of these kinds."""
        self.width, self.rows = width, self.capacity // (self.streams * width) + 1  # one row more, for the head
        slots = self.streams * self.rows * width
        self.order = {"r": np.zeros(slots, np.float32), **{name: np.zeros(slots, np.bool_) for name in ORDER[1:]}}
        self.columns = make_columns(kinds, self.streams, self.rows, width, self.device)
        self.tree = SumTree(slots) if self.prioritized else None

    def _connect(self, fragment: Fragment, stream: int) -> NDArray[np.bool_]:
        """Gives up the newest steps of environments whose fragment does not begin with what followed those steps.

        Returns which environments begin with the observation that is at the head, [B].
        """
        if not self.written[stream]:
            return np.zeros(self.width, np.bool_)
        last = (self.head[stream] - 1) % self.rows
        valid = self._order(stream, "valid")[last]
        known: NDArray[np.bool_] = (self.newest[stream] == fragment.obs[0]).reshape(self.width, -1).all(1)
        # where the first and the last observations are alike, only this shows another episode
        restarts = self._order(stream, "terminated")[last] & fragment.valid[0]
        lost = valid & (~known | restarts)
        if lost.any():
            valid[lost] = False
            self.count -= int(np.count_nonzero(lost))
            if self.tree is not None:
                slots = self._slots(stream, np.array([last]))[0, lost]
                self.tree.set(slots, np.zeros(len(slots)))
        return known

    def _slots(self, stream: int, rows: Indices) -> Indices:
        """Indices [n, width] of all steps in `rows` [n] of `stream`."""
        slots: Indices = (stream * self.rows + rows)[:, None] * self.width + np.arange(self.width)
        return slots

    def _raised(self, priorities: Array, valid: Array) -> Floats:
        """(priority + epsilon)^alpha, eq. 1 and section 3.3, as the tree holds it; 0 for steps that are not valid."""
        weights: Floats = np.where(valid, (priorities.astype(np.float64) + self.epsilon) ** self.alpha, 0.0)
        self.largest = max(self.largest, float(weights.max(initial=0.0)))
        return weights

    def _uniform(self, count: int, rng: torch.Generator) -> tuple[Indices, Array]:
        """Draws from all that was written until enough of it is valid."""
        ends = self.written.cumsum() * self.width
        begins = ends - self.written * self.width
        shifts = np.arange(self.streams) * self.rows * self.width - begins
        index = np.zeros(0, np.int64)
        while len(index) < count:
            drawn = torch.randint(int(ends[-1]), (count + count // 8 + 8,), generator=rng).numpy()
            drawn += shifts[ends.searchsorted(drawn, side="right")]
            index = np.concatenate([index, drawn[self.order["valid"][drawn]]])
        return index[:count], np.ones(count, np.float32)

    def _windows(self, index: Indices) -> tuple[Array, Array, Indices]:
        """Up to n steps from each at `index` [N]: the sum of their rewards, the discount after them, where what
        followed lies; each [N].

        After the end of an episode, and at the head, the next row is not valid: there a window ends.
        """
        rewards, valid = self.order["r"], self.order["valid"]
        r, discount = rewards[index], np.full(len(index), self.gamma, np.float32)
        following = self._after(index)
        last = index
        for _ in range(1, self.n_step):
            goes_on = valid[following]
            r = np.where(goes_on, r + discount * rewards[following], r)
            discount = np.where(goes_on, discount * self.gamma, discount)
            last = np.where(goes_on, following, last)
            following = self._after(last)
        return r, discount * ~self.order["terminated"][last], following

    def _after(self, index: Indices) -> Indices:
        """Where the steps after those at `index` [N] lie: one row on, round the ring of their stream."""
        return later(index, 1, self.rows * self.width, self.width)


def _columns(fragment: Fragment) -> dict[str, Array]:
    """What of a fragment batches are made of, [T, B, ...] by name; the observations are one row more."""
    return {
        "obs": fragment.obs,
        "a": fragment.a,
        **{EXTRA + name: values for name, values in fragment.extras.items()},
    }


def proportional(tree: SumTree, count: int, rng: torch.Generator, beta: float) -> tuple[Indices, Array]:
    """One draw from each of `count` equal parts of the total, section 3.3, and the weights of section 3.4; both [N]."""
    parts = np.arange(count) + torch.rand(count, generator=rng, dtype=torch.float64).numpy()
    index = tree.sample(parts * (tree.total / count))
    chosen = tree.get(index)
    weight = (chosen.min() / chosen) ** beta  # (N P(i))^-beta over the largest: N and the total cancel
    return index, weight.astype(np.float32)
