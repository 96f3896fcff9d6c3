"""Replay: a ring buffer of past steps, from which transitions over n steps are drawn."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rltrainer.accel.cuda_graphs import map_tensors
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, Array
from rltrainer.replay.columns import Column, ColumnSpec, advance, make_columns, spec_of, spec_of_state
from rltrainer.replay.sum_tree import Floats, Indices, SumTree

EXTRA = "extra."
"""What the names of a fragment's extras begin with, among the columns."""
HOST_FIELDS = ("r", "terminated", "valid")
"""Fields of a step that say which are drawn, and what n of them return: read for every draw, on the CPU."""


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
    """Slots of the first steps in the replay, [N]."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """What the policy noted of each action, [N, ...], by name."""

    def to(self, device: torch.device) -> "Transitions":
        """Return the same on `device`; nothing is copied that is there already."""
        if self.obs.device == self.r.device == device:  # columns lie where obs does, all else where r does
            return self
        moved: Transitions = map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved


class Replay:
    """The newest valid steps, drawn uniformly, or by priority as in Schaul et al. 2016, arXiv 1511.05952, algorithm 1.

    Steps lie in a ring buffer [streams, rows, B]; a stream is what one worker's B environments do, whose fragments
    follow one another. An observation is stored once: the row after a step's holds what followed it. The row that is
    written next (the head) holds the newest observation alone and is not valid, so no window of n steps ever leads
    across it.

    What a batch is made of is stored and gathered on `device`, if there is room; HOST_FIELDS are on the CPU.
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
        self.rows, self.num_envs = 0, 0  # of a stream; B
        self.columns: dict[str, Column] = {}  # what batches are made of, by name
        self.host: dict[str, Array] = {}  # HOST_FIELDS, [streams * rows * B] by name
        self.head_obs: dict[int, Array] = {}  # observations [B, *shape] at the head of each stream
        self.head = np.zeros(streams, np.int64)
        self.written = np.zeros(streams, np.int64)  # rows that hold anything, the head among them
        self.valid_steps = 0
        self.tree: SumTree | None = None
        self.max_priority = 1.0  # so far, as the tree holds it

    def __len__(self) -> int:
        """Valid steps: those that can be drawn."""
        return self.valid_steps

    def add(self, fragment: Fragment, stream: int = 0, priorities: Array | None = None) -> None:
        """Write the steps of `fragment` over the oldest of `stream`.

        `priorities` [T, B] are |TD errors|; without them the steps come in with the largest so far, so that each
        is soon drawn. Raises ValueError where the fragment is as long as the ring, or of other B than those before.
        """
        steps, num_envs = fragment.r.shape
        columns = columns_of(fragment)
        if not self.columns:
            self._allocate({name: spec_of(values) for name, values in columns.items()}, num_envs)
        if steps >= self.rows or num_envs != self.num_envs:
            raise ValueError(
                f"a fragment of {steps} steps of {num_envs} environments does not fit a replay stream "
                f"of {self.rows - 1} steps of {self.num_envs}"
            )
        continues = self._continue_stream(fragment, stream)
        rows = (self.head[stream] + np.arange(steps + 1)) % self.rows
        slots = self._slots(stream, rows)
        for name, values in columns.items():
            self.columns[name].write(slots[: len(values)], values, continues)
        self._write_host_fields(slots, fragment)
        self._write_priorities(slots, fragment.valid, priorities)
        self.head_obs[stream] = fragment.obs[-1].copy()
        self.written[stream] = min(self.rows, max(self.written[stream], self.head[stream] + steps + 1))
        self.head[stream] = rows[-1]

    def sample(self, count: int, rng: torch.Generator, beta: float) -> Transitions:
        """Draw `count` transitions from all streams, with replacement.

        The same state of `rng`, on the CPU, draws the same. `beta` is the exponent of the importance weights, section
        3.4; it means nothing where sampling is uniform. A transition has fewer than n steps where its episode ends
        before, and at the newest step. Raises ValueError if there is none.
        """
        if not self.valid_steps:
            raise ValueError("there is no valid step to draw")
        if self.tree is None:
            index, weight = self._sample_uniformly(count, rng)
        else:
            index, weight = sample_by_priority(self.tree, count, rng, beta)
        r, discount, next_index = self._n_step_returns(index)
        extras = [name for name in self.columns if name.startswith(EXTRA)]
        return Transitions(
            obs=self.columns["obs"].at(index),
            a=self.columns["a"].at(index),
            r=torch.from_numpy(r),
            discount=torch.from_numpy(discount),
            next_obs=self.columns["obs"].at(next_index),
            weight=torch.from_numpy(weight),
            index=index,
            extras={name.removeprefix(EXTRA): self.columns[name].at(index) for name in extras},
        )

    def update_priorities(self, index: Indices, priorities: Array) -> None:
        """Set the `priorities` [N], |TD errors|, of the steps at `index` [N], as drawn. Does nothing if uniform.

        Steps that are not valid any more are left out; one that was overwritten since passes its priority on to the
        step in its place, until that is drawn itself.
        """
        if self.tree is not None:
            self.tree.set(index, self._tree_weights(priorities, self.host["valid"][index]))

    def state(self) -> dict[str, Any]:
        """Return arrays and JSON values that `load` goes on from. Arrays are views: read them before the next `add`."""
        return {
            "rows": self.rows,
            "width": self.num_envs,
            "largest": self.max_priority,
            "streams": [self._stream_state(stream) for stream in range(self.streams)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on, empty as yet, from `state()` of a replay of the same capacity, streams and B.

        Raises ValueError where they differ. From one that was uniform all steps begin with the same priority.
        """
        saved = state["streams"]
        filled = [stream for stream in saved if stream["written"]]
        if not filled:
            return
        columns = {name: column for name, column in filled[0]["columns"].items() if name not in HOST_FIELDS}
        self._allocate({name: spec_of_state(column) for name, column in columns.items()}, state["width"])
        if (len(saved), state["rows"]) != (self.streams, self.rows):
            raise ValueError(
                f"the saved replay has {len(saved)} streams of {state['rows'] - 1} steps, "
                f"and this one {self.streams} of {self.rows - 1}"
            )
        weights = np.zeros((self.streams, self.rows, self.num_envs))
        for stream, stream_state in enumerate(saved):
            self._load_stream(stream, stream_state)
            written = stream_state["written"]
            equal = state["largest"] * self._host_rows(stream, "valid")[:written]  # if it was uniform
            weights[stream, :written] = stream_state.get("priorities", equal)
        self.valid_steps, self.max_priority = int(np.count_nonzero(self.host["valid"])), state["largest"]
        if self.tree is not None:
            self.tree.load(weights.reshape(-1))

    def _load_stream(self, stream: int, state: dict[str, Any]) -> None:
        first, written = stream * self.rows * self.num_envs, state["written"]
        self.head[stream], self.written[stream] = state["head"], written
        for name, column in state["columns"].items():
            if name in HOST_FIELDS:
                self._host_rows(stream, name)[:written] = column
            else:
                self.columns[name].load(first, written, column)
        if written:
            head = self._slots(stream, self.head[[stream]])[0]
            self.head_obs[stream] = self.columns["obs"].at(head).cpu().numpy()

    def _stream_state(self, stream: int) -> dict[str, Any]:
        first, written = stream * self.rows * self.num_envs, int(self.written[stream])
        columns = {name: column.state(first, written) for name, column in self.columns.items()} if written else {}
        columns |= {name: self._host_rows(stream, name)[:written] for name in self.host}
        state = {"head": int(self.head[stream]), "written": written, "columns": columns}
        if self.tree is not None:
            weights = self.tree.weights().reshape(self.streams, self.rows, self.num_envs)
            state["priorities"] = weights[stream, :written]
        return state

    def _host_rows(self, stream: int, name: str) -> Array:
        """Return one of HOST_FIELDS of a stream, [rows, B]: a view."""
        rows: Array = self.host[name].reshape(self.streams, self.rows, self.num_envs)[stream]
        return rows

    def _allocate(self, specs: dict[str, ColumnSpec], num_envs: int) -> None:
        """Make room for columns of these specs."""
        self.num_envs = num_envs
        self.rows = self.capacity // (self.streams * num_envs) + 1  # one row more, for the head
        slots = self.streams * self.rows * num_envs
        flags = {name: np.zeros(slots, np.bool_) for name in HOST_FIELDS[1:]}
        self.host = {"r": np.zeros(slots, np.float32), **flags}
        self.columns = make_columns(specs, self.streams, self.rows, num_envs, self.device)
        self.tree = SumTree(slots) if self.prioritized else None

    def _continue_stream(self, fragment: Fragment, stream: int) -> NDArray[np.bool_]:
        """Drop the newest steps of environments whose fragment does not begin with what followed those steps.

        Returns which environments begin with the observation that is at the head, [B].
        """
        if not self.written[stream]:
            return np.zeros(self.num_envs, np.bool_)
        newest = (self.head[stream] - 1) % self.rows
        valid = self._host_rows(stream, "valid")[newest]
        same: NDArray[np.bool_] = (self.head_obs[stream] == fragment.obs[0]).reshape(self.num_envs, -1).all(1)
        # where the first and the last observations are alike, only this shows another episode
        restarts = self._host_rows(stream, "terminated")[newest] & fragment.valid[0]
        dropped = valid & (~same | restarts)
        if dropped.any():
            valid[dropped] = False
            self.valid_steps -= int(np.count_nonzero(dropped))
            if self.tree is not None:
                slots = self._slots(stream, np.array([newest]))[0, dropped]
                self.tree.set(slots, np.zeros(len(slots)))
        return same

    def _write_host_fields(self, slots: Indices, fragment: Fragment) -> None:
        """Write HOST_FIELDS of a fragment's steps into `slots` [T + 1, B], the last row of which is the head."""
        valid = self.host["valid"]
        self.valid_steps += int(np.count_nonzero(fragment.valid)) - int(np.count_nonzero(valid[slots]))
        for name in HOST_FIELDS:
            self.host[name][slots[:-1]] = getattr(fragment, name)
        valid[slots[-1]] = False

    def _write_priorities(self, slots: Indices, valid: Array, priorities: Array | None) -> None:
        """Write the first priorities of steps, `valid` [T, B] or not, into `slots` [T + 1, B]; 0 for the head."""
        if self.tree is None:
            return
        weights = self.max_priority * valid if priorities is None else self._tree_weights(priorities, valid)
        self.tree.set(slots[:-1].reshape(-1), weights.reshape(-1))
        self.tree.set(slots[-1], np.zeros(self.num_envs))

    def _slots(self, stream: int, rows: Indices) -> Indices:
        """Return the slots [n, B] of `rows` [n] of `stream`."""
        slots: Indices = (stream * self.rows + rows)[:, None] * self.num_envs + np.arange(self.num_envs)
        return slots

    def _tree_weights(self, priorities: Array, valid: Array) -> Floats:
        """Return (priority + epsilon)^alpha, eq. 1 and section 3.3, as the tree holds it; 0 for steps not `valid`."""
        weights: Floats = np.where(valid, (priorities.astype(np.float64) + self.epsilon) ** self.alpha, 0.0)
        self.max_priority = max(self.max_priority, float(weights.max(initial=0.0)))
        return weights

    def _sample_uniformly(self, count: int, rng: torch.Generator) -> tuple[Indices, Array]:
        """Draw from all that was written until `count` steps are valid; return their slots and weights of 1, [N]."""
        ends = self.written.cumsum() * self.num_envs
        begins = ends - self.written * self.num_envs
        shifts = np.arange(self.streams) * self.rows * self.num_envs - begins
        index = np.zeros(0, np.int64)
        while len(index) < count:
            drawn = torch.randint(int(ends[-1]), (count + count // 8 + 8,), generator=rng).numpy()
            drawn += shifts[ends.searchsorted(drawn, side="right")]
            index = np.concatenate([index, drawn[self.host["valid"][drawn]]])
        return index[:count], np.ones(count, np.float32)

    def _n_step_returns(self, index: Indices) -> tuple[Array, Array, Indices]:
        """Sum the discounted rewards of up to n steps from each at `index` [N].

        Returns the sums, the discounts after them, and the slots of what followed; each [N]. After the end of an
        episode, and at the head, the next row is not valid: there a window ends.
        """
        rewards, valid = self.host["r"], self.host["valid"]
        r, discount = rewards[index], np.full(len(index), self.gamma, np.float32)
        last, next_index = index, self._next(index)
        for _ in range(1, self.n_step):
            goes_on = valid[next_index]
            r = np.where(goes_on, r + discount * rewards[next_index], r)
            discount = np.where(goes_on, discount * self.gamma, discount)
            last = np.where(goes_on, next_index, last)
            next_index = self._next(last)
        return r, discount * ~self.host["terminated"][last], next_index

    def _next(self, index: Indices) -> Indices:
        """Return the slots [N] of the steps after those at `index` [N]."""
        return advance(index, 1, self.rows * self.num_envs, self.num_envs)


def columns_of(fragment: Fragment) -> dict[str, Array]:
    """Return what of a fragment batches are made of, [T, B, ...] by name; the observations are one row more."""
    extras = {EXTRA + name: values for name, values in fragment.extras.items()}
    return {"obs": fragment.obs, "a": fragment.a, **extras}


def sample_by_priority(tree: SumTree, count: int, rng: torch.Generator, beta: float) -> tuple[Indices, Array]:
    """Draw once from each of `count` equal parts of the total, section 3.3.

    Returns the slots and the importance weights of section 3.4, both [N].
    """
    parts = np.arange(count) + torch.rand(count, generator=rng, dtype=torch.float64).numpy()
    index = tree.sample(parts * (tree.total / count))
    priorities = tree.get(index)
    weight = (priorities.min() / priorities) ** beta  # (N P(i))^-beta over the largest: N and the total cancel
    return index, weight.astype(np.float32)
