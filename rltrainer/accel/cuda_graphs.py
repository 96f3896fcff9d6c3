"""Work on a GPU that is recorded once and then replayed, as a CUDA graph.

A step of small networks is some hundred kernels of a few microseconds each, and Python takes longer to launch one than
the GPU to run it; a graph runs them all at once. What is recorded are kernels and the memory that they read and write.
So recorded work does the same each time: it never waits for the device, branches and numbers that are not in tensors
are part of its key, and random numbers are drawn on the CPU before each replay.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

MOST = 8
"""Recordings that are kept: each has a copy of what it is inputs, and minibatches come in a few sizes."""
Work = Callable[[Any], Any]
"""From tensors, or dictionaries, tuples and dataclasses of them, to the same."""


class NotRecordedError(RuntimeError):
    """Work cannot be recorded; nothing of it was done."""


class Graphs:
    """Recordings by what was done, and the shapes of what it was done with."""

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, Recording | None] = OrderedDict()  # None: was done, but not recorded
        # one for all: autograd goes back on the stream that it came by
        self.stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, name: Hashable, work: Work, inputs: Any, rng: torch.Generator) -> Any:
        """Do `work` on `inputs`: tensors, or dictionaries, tuples and dataclasses of them; returns its result.

        `name` is all that decides what the work does, but for tensors and their shapes. The first time it is done as it
        is, the second time recorded, and replayed from then on. Raises NotRecordedError where that is
        impossible.
        """
        tensors = leaves(inputs)
        key = (name, tuple((each.shape, each.dtype) for each in tensors))
        if key not in self.known:
            self.known[key] = None
            if len(self.known) > MOST:
                self.known.popitem(last=False)
            return self._beside(work, inputs)
        self.known.move_to_end(key)
        recording = self.known[key]
        if recording is None:
            recording = self.known[key] = Recording(work, inputs, self)
        return recording.replay(tensors, rng)

    def _beside(self, work: Work, inputs: Any) -> Any:
        """Does `work` on the stream that it will be recorded on: what it brings up there is not part of a recording."""
        before = torch.cuda.current_stream()
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):
            outputs = work(inputs)
        before.wait_stream(self.stream)
        return outputs


class Recording:
    """Work as it was done once, with memory of its own for its inputs and outputs."""

    def __init__(self, work: Work, inputs: Any, graphs: Graphs) -> None:
        """Records `work`, and does nothing of it. Raises NotRecordedError."""
        self.inputs, self.noise = map_tensors(inputs, torch.clone), list[Tensor]()
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, pool=graphs.pool, stream=graphs.stream), _recording(self):
                self.outputs = work(self.inputs)
        except RuntimeError as error:
            raise NotRecordedError(str(error).partition("\n")[0]) from error
        self.reads = leaves(self.inputs)

    def variates(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Memory for standard normal variates, of the type and on the device of `like`, drawn before each replay."""
        self.noise.append(like.new_empty(shape))
        return self.noise[-1]

    def replay(self, tensors: list[Tensor], rng: torch.Generator) -> Any:
        """Replay on other `leaves`, with noise drawn in the order in which the work draws it."""
        for mine, theirs in zip(self.reads, tensors, strict=True):
            mine.copy_(theirs, non_blocking=True)
        for noise in self.noise:
            fresh = torch.randn(noise.shape, generator=rng, dtype=noise.dtype, device=rng.device)
            noise.copy_(fresh, non_blocking=True)
        self.graph.replay()
        return map_tensors(self.outputs, torch.clone)  # before the next one writes over them


_current: Recording | None = None


@contextmanager
def _recording(recording: Recording) -> Iterator[None]:
    global _current  # noqa: PLW0603 - numbers are drawn by code that knows of no recording
    _current = recording
    try:
        yield
    finally:
        _current = None


def current() -> Recording | None:
    """Return the recording under way, if there is one."""
    return _current


def map_tensors(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply `change` to tensors, or to those in dictionaries, tuples and dataclasses; all else stays as it is."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: map_tensors(value, change) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(map_tensors(value, change) for value in inputs)
    if is_dataclass(inputs) and not isinstance(inputs, type):
        return replace(
            inputs, **{each.name: map_tensors(getattr(inputs, each.name), change) for each in fields(inputs)}
        )
    return inputs


def leaves(inputs: Any) -> list[Tensor]:
    """List the tensors that `map_tensors` would change, in order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    if isinstance(inputs, dict | tuple):
        values = inputs.values() if isinstance(inputs, dict) else inputs
        return [leaf for value in values for leaf in leaves(value)]
    if is_dataclass(inputs):
        return [leaf for each in fields(inputs) for leaf in leaves(getattr(inputs, each.name))]
    return []
