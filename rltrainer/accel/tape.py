"""Gradients of dense layers without autograd, whose overhead for each layer of a small network exceeds its products.

Where a tape records, dense layers note their inputs and outputs, and hand on a leaf, at which autograd's graph begins.
`Tape.backward` has autograd go back to the leaves, and goes on from there by hand; the gradients are the same. All
else, a loss, a convolution, a recurrent layer, stays with autograd, before dense layers and after them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

ParameterIds = frozenset[int]
"""Parameters whose gradients are requested, by `id`."""


class Entry(Protocol):
    """A recorded computation."""

    out: Tensor
    """Its output, as a leaf."""

    def back(self, tape: "Tape", gradient: Tensor, parameter_ids: ParameterIds) -> None:
        """Add what follows from the gradient of `out` to the gradients of its inputs and of requested parameters."""


class GraphBoundary:
    """Where autograd's graph ends, and dense layers follow."""

    def __init__(self, source: Tensor) -> None:
        self.source, self.out = source, source.detach().requires_grad_()

    def back(self, tape: "Tape", gradient: Tensor, parameter_ids: ParameterIds) -> None:
        """Have autograd go back from what the dense layers read."""
        with torch.enable_grad():
            tape.autograd([self.source], [gradient])


class Tape:
    """The computations since it began to record, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._boundaries: dict[int, GraphBoundary] = {}
        self._inputs: list[Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record dense layers here, and forget all of it at the end."""
        global _current  # noqa: PLW0603 - layers are called by networks that know of no tape
        before, _current = _current, self
        try:
            yield
        finally:
            _current = before
            self.forget()

    def forget(self) -> None:
        """Drop all records."""
        self.entries, self._boundaries = [], {}

    def add(self, entry: Entry) -> Tensor:
        """Record a computation; returns its output, a leaf."""
        self.entries.append(entry)
        return entry.out

    def leaf(self, x: Tensor) -> Tensor:
        """Return `x` for dense layers to read: itself, or a leaf in its place where it came out of autograd's graph."""
        if x.is_leaf:
            return x
        boundary = self._boundaries.get(id(x))
        if boundary is None:
            boundary = self._boundaries[id(x)] = GraphBoundary(x)
            self.entries.append(boundary)
        return boundary.out

    def backward(
        self,
        of: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        parameter_ids: ParameterIds,
    ) -> None:
        """Add to the gradients of `parameters`, whose ids are `parameter_ids`, what follows from `gradients` of `of`.

        None stands for the gradient of a loss, 1. Records that lead to none of `of` stay, for another loss.
        """
        self._inputs = [*parameters, *(entry.out for entry in self.entries)]
        outs = {id(entry.out) for entry in self.entries}
        inner = [(each, gradient) for each, gradient in zip(of, gradients, strict=True) if id(each) not in outs]
        if inner:
            self.autograd(*zip(*inner, strict=True))
        for each, gradient in zip(of, gradients, strict=True):
            if id(each) in outs and gradient is not None:
                self.give(each, gradient)
        self._unwind(parameter_ids)

    def _unwind(self, parameter_ids: ParameterIds) -> None:
        """Go back through the records, as far as there are gradients."""
        later: list[Entry] = []
        with torch.no_grad():
            for entry in reversed(self.entries):
                gradient, entry.out.grad = entry.out.grad, None
                if gradient is None:
                    later.append(entry)
                else:
                    entry.back(self, gradient, parameter_ids)
        self.entries = later[::-1]
        if self._boundaries:
            self._boundaries = {key: each for key, each in self._boundaries.items() if each in later}

    def autograd(self, of: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Have autograd go back from `of` as far as its graph reaches; with boundaries it may come by again."""
        torch.autograd.backward(of, gradients, retain_graph=bool(self._boundaries), inputs=self._inputs)

    def give(self, leaf: Tensor, gradient: Tensor) -> None:
        """Add `gradient` to that of `leaf`, which may have none yet."""
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


_current: Tape | None = None


def current() -> Tape | None:
    """Return the tape that records, if any does."""
    return _current
