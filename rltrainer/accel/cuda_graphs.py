"""Work on a GPU that is recorded once and then replayed, as a CUDA graph.

A step of small networks is some hundred kernels of a few microseconds each, and Python takes longer to ask for one than
the GPU to run it; a graph runs them all at once. What is recorded are kernels and the memory that they read and write.
So work that is to be recorded does the same each time: it never waits for the device, branches and numbers that are not
in tensors are part of its name, and what it draws at random is drawn on the CPU before each replay.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

MOST = 8
"""Recordings that are kept: each has a copy of what it is given, and minibatches come in a few sizes."""
Work = Callable[[Any], Any]
"""From tensors, or dictionaries, tuples and dataclasses of them, to the same."""


class NotRecordedError(RuntimeError):
    """Work cannot be recorded; nothing of it was done."""


class Graphs:
    """Recordings by what was done, and the shapes of what it was done with."""

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, Recording | None] = OrderedDict()  # None: was done, but not recorded
        # one for all, for PyTorch's engine goes back on the stream that it came by
        self.stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, name: Hashable, work: Work, given: Any, rng: torch.Generator) -> Any:
        """What `work` finds of `given`: tensors, or dictionaries and dataclasses of them.

        `name` is all that decides what the work does, but for tensors and their shapes. It is done as it is when it is
        met first, recorded when it is met again, and replayed from then on. Raises NotRecordedError where that is
        impossible.
        """
        tensors = leaves(given)
        key = (name, tuple((each.shape, each.dtype) for each in tensors))
        if key not in self.known:
            self.known[key] = None
            if len(self.known) > MOST:
                self.known.popitem(last=False)
            return self._beside(work, given)
        self.known.move_to_end(key)
        recording = self.known[key]
        if recording is None:
            recording = self.known[key] = Recording(work, given, self)
        return recording.replay(tensors, rng)

    def _beside(self, work: Work, given: Any) -> Any:
        """Does `work` on the stream that it will be recorded on: what it brings up there is not part of a recording."""
        before = torch.cuda.current_stream()
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):
            found = work(given)
        before.wait_stream(self.stream)
        return found


class Recording:
    """Work as it was done once, with memory of its own for what it reads and finds."""

    def __init__(self, work: Work, given: Any, graphs: Graphs) -> None:
        """Records `work`, and does nothing of it. Raises NotRecordedError."""
        self.given, self.drawn = map_tensors(given, torch.clone), list[Tensor]()
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, pool=graphs.pool, stream=graphs.stream), _recording(self):
                self.found = work(self.given)
        except RuntimeError as error:
            raise NotRecordedError(str(error).partition("\n")[0]) from error
        self.reads = leaves(self.given)

    def variates(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Memory for standard normal variates, of the type and on the device of `like`, drawn before each replay."""
        self.drawn.append(like.new_empty(shape))
        return self.drawn[-1]

    def replay(self, tensors: list[Tensor], rng: torch.Generator) -> Any:
        """What the work finds of these `leaves`, and of numbers drawn in the order in which it asks for them."""
        for mine, theirs in zip(self.reads, tensors, strict=True):
            mine.copy_(theirs, non_blocking=True)
        for noise in self.drawn:
            drawn = torch.randn(noise.shape, generator=rng, dtype=noise.dtype, device=rng.device)
            noise.copy_(drawn, non_blocking=True)
        self.graph.replay()
        return map_tensors(self.found, torch.clone)  # before the next one writes over them


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
    """What is being recorded, if anything is."""
    return _current


def map_tensors(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Tensors, or dictionaries and dataclasses of them, after `change`; all else in them as it is."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, dict):
        return {name: map_tensors(value, change) for name, value in given.items()}
    if isinstance(given, tuple):
        return tuple(map_tensors(value, change) for value in given)
    if is_dataclass(given) and not isinstance(given, type):
        return replace(given, **{each.name: map_tensors(getattr(given, each.name), change) for each in fields(given)})
    return given


def leaves(given: Any) -> list[Tensor]:
    """The tensors that `map_tensors` would change, in order."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict | tuple):
        values = given.values() if isinstance(given, dict) else given
        return [leaf for value in values for leaf in leaves(value)]
    if is_dataclass(given):
        return [leaf for each in fields(given) for leaf in leaves(getattr(given, each.name))]
    return []
