"""Gradients of dense layers, found without PyTorch's engine.

On networks as small as those of classic control, the engine takes longer to keep its books of a layer than the layer's
products take. Where a tape records, dense layers note what they were given and put out, and hand on a leaf, at which
the engine's graph begins; `Tape.backward` has the engine go back to the leaves, and goes on from there by hand. What is
found is the same. All else, a loss, a convolution, a recurrent layer, stays with the engine, before dense layers and
after them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

ParameterIds = frozenset[int]
"""The parameters whose gradients are asked for, by identity."""


class Entry(Protocol):
    """Something that was computed."""

    out: Tensor
    """A leaf: what it was handed on as."""

    def back(self, tape: "Tape", gradient: Tensor, parameter_ids: ParameterIds) -> None:
        """Adds what the gradient of `out` means for the parameters wanted, and for what it was computed from."""


class GraphBoundary:
    """A place where the engine's graph ends, and dense layers follow."""

    def __init__(self, source: Tensor) -> None:
        self.source, self.out = source, source.detach().requires_grad_()

    def back(self, tape: "Tape", gradient: Tensor, parameter_ids: ParameterIds) -> None:
        """See Entry."""
        with torch.enable_grad():
            tape.autograd([self.source], [gradient])


class Tape:
    """What was computed since it began to record, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._cuts: dict[int, GraphBoundary] = {}
        self._inputs: list[Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within it, dense layers are recorded here. Nothing is kept of it."""
        global _current  # noqa: PLW0603 - layers are called by networks that know of no tape
        before, _current = _current, self
        try:
            yield
        finally:
            _current = before
            self.forget()

    def forget(self) -> None:
        """Drops all that was recorded."""
        self.entries, self._cuts = [], {}

    def add(self, entry: Entry) -> Tensor:
        """Records what was computed; returns the leaf that it is handed on as."""
        self.entries.append(entry)
        return entry.out

    def leaf(self, x: Tensor) -> Tensor:
        """`x` for dense layers to read: itself, or where it came out of the engine's graph, a leaf in its place."""
        if x.is_leaf:
            return x
        cut = self._cuts.get(id(x))
        if cut is None:
            cut = self._cuts[id(x)] = GraphBoundary(x)
            self.entries.append(cut)
        return cut.out

    def backward(
        self,
        of: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        parameter_ids: ParameterIds,
    ) -> None:
        """Adds to the gradients of `parameters`, whose identities are `parameter_ids`, what follows from those of `of`.

        None stands for the gradient of a loss, 1. What does not lead to any of them stays recorded, for another loss.
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
        """Goes back through what was recorded, as far as there are gradients."""
        later: list[Entry] = []
        with torch.no_grad():
            for entry in reversed(self.entries):
                gradient, entry.out.grad = entry.out.grad, None
                if gradient is None:
                    later.append(entry)
                else:
                    entry.back(self, gradient, parameter_ids)
        self.entries = later[::-1]
        if self._cuts:
            self._cuts = {key: cut for key, cut in self._cuts.items() if cut in later}

    def autograd(self, of: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Has the engine go back from `of` as far as it knows. Where there are cuts it may come by again."""
        torch.autograd.backward(of, gradients, retain_graph=bool(self._cuts), inputs=self._inputs)

    def give(self, leaf: Tensor, gradient: Tensor) -> None:
        """Adds `gradient` to that of `leaf`, which may have none yet."""
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


_current: Tape | None = None


def current() -> Tape | None:
    """The tape that records, if any does."""
    return _current
