"""Several learners that improve the same networks: their collective calls, and how a batch is split among them.

Every learner holds the whole networks and its optimizer, and finds the gradient of its own share of each batch. Before
a step of the optimizer the gradients are averaged, so that all learners take the same step: data parallelism, as in
Li et al. 2020, arXiv 2006.15704, section 2. docs/decisions/0005-several-learners.md says what of this equals one
learner, and what does not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from rltrainer.api.options import Options
from rltrainer.core.fragment import ARRAYS, Fragment
from rltrainer.errors import RunError

TIMEOUT = 300.0
"""Seconds that a learner waits for the others; the end of a process is noticed at once."""
SHARED = ("batch_size", "buffer_size", "minibatch_size", "num_workers")
"""Options of which each learner has its share."""
SomeOptions = TypeVar("SomeOptions", bound=Options)
Address = tuple[str, int]
"""Host and port at which the learners meet."""


class Peers:
    """The learners of a group, as one of them sees it. All must make the same calls in the same order."""

    def __init__(self, rank: int, size: int, device: torch.device, store: Store, timeout: float = TIMEOUT) -> None:
        """Joins as number `rank` of `size`. Waits for the others, and for `timeout` seconds at most."""
        self.rank, self.size, self.device = rank, size, device
        with lost(rank):
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=timeout),
            )
        self.sums: dict[int, Tensor] = {}

    def average(self, gradient: Tensor, weight: float) -> Tensor:
        """Puts the mean of all gradients [P], by their weights, in place of this one. Returns the weights' sum.

        One all-reduce of P + 1 numbers. A gradient of weight 0 is ignored; where all are, what is left means nothing.
        """
        sums = self.sums.setdefault(len(gradient), gradient.new_empty(len(gradient) + 1))
        if weight:
            torch.mul(gradient, weight, out=sums[:-1])
            sums[-1] = weight
        else:
            sums.zero_()
        self._sum(sums)
        torch.div(sums[:-1], sums[-1], out=gradient)
        return sums[-1]

    def total(self, number: int) -> int:
        """The sum of one number of each."""
        return int(self.totals(number)[0])

    def totals(self, *numbers: float) -> list[float]:
        """The sums of some numbers of each."""
        sums: list[float] = self._sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()
        return sums

    def exchange(self, content: Any) -> list[Any]:
        """The contents of all learners, in their order: slow, for what is seldom needed."""
        gathered: list[Any] = [None] * self.size
        with lost(self.rank):
            dist.all_gather_object(gathered, content)
        return gathered

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [N, ...] of all, in the learners' order. N may differ from one to the next, and be 0."""
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(rows)
        counts = self._sum(lengths).tolist()
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        with lost(self.rank):
            dist.all_gather(gathered, padded)
        return torch.cat([each[:count] for each, count in zip(gathered, counts, strict=True)])

    def _sum(self, numbers: Tensor) -> Tensor:
        with lost(self.rank):
            dist.all_reduce(numbers)
        return numbers


@contextmanager
def lost(rank: int) -> Iterator[None]:
    """Says what it means that a collective call fails: raises RunError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError("LearnerLost", f"learner {rank} has lost touch with the others: {reason}") from error


def meeting(address: Address, size: int, host: bool = False, timeout: float = TIMEOUT) -> TCPStore:
    """Where `size` learners meet. The host's port may be 0: the store's `port` is then a free one."""
    wait = timedelta(seconds=timeout)
    return TCPStore(*address, world_size=size, is_master=host, timeout=wait, wait_for_workers=False)


def per_learner_options(options: SomeOptions, size: int) -> SomeOptions:
    """The options of one of `size` learners: its share, rounded up, of what is counted in samples or workers."""
    names = [name for name in SHARED if name in type(options).model_fields]
    return options.model_copy(update={name: -(-getattr(options, name) // size) for name in names})


def partition_envs(count: int, width: int, size: int) -> list[list[tuple[int, slice]]]:
    """For each of `size` learners, its part of `count` fragments of `width` environments each.

    A part is fragments by number, and which environments of them. As many environments as can be go to each learner;
    where `count` is a multiple of `size`, fragments stay whole.
    """
    ends = [i * count * width // size for i in range(size + 1)]
    return [
        [
            (k, slice(max(first - k * width, 0), min(last - k * width, width)))
            for k in range(first // width, max(first, last - 1) // width + 1)
        ]
        for first, last in pairwise(ends)
    ]


def columns(fragment: Fragment, where: slice) -> Fragment:
    """The environments `where` of a fragment. Its arrays are views."""
    if where == slice(0, fragment.r.shape[1]):
        return fragment
    return Fragment(
        **{name: getattr(fragment, name)[:, where] for name in ARRAYS},
        extras={name: array[:, where] for name, array in fragment.extras.items()},
        state={name: array[where] for name, array in fragment.state.items()},
        priorities=None if fragment.priorities is None else fragment.priorities[:, where],
    )
