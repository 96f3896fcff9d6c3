"""A simulated accelerator: tensors on the CPU that are counted as being on a device `cuda`, with its rules.

No GPU computes anything here. What is shown is where tensors live: an operation on tensors of both sides, a random
number of the CPU drawn into the device's memory, or NumPy reading it, is the error that it would be on a GPU; and each
time that the program would wait for the device is noted.

A simulated CUDA graph notes the operations that are done while it records, puts the tensors' contents back, and does
the same operations on the same memory when it is replayed. What a GPU would refuse to record is refused: to wait for
the device, and to copy to it from memory that it does not have.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda")
CPU = torch.device("cpu")
aten = torch.ops.aten
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}
"""Operations whose result, or its shape, the program has to know before it goes on."""
MIXED = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}
"""Operations that take tensors of both sides: copies, and an index from the CPU, which may be copied."""
MAKERS = {"empty", "zeros", "ones", "full", "arange", "linspace", "eye"}
"""Functions that make tensors where they are to be."""
_DEVICE, _IS_CUDA = (getattr(torch.Tensor, name).__get__ for name in ("device", "is_cuda"))


class DeviceError(AssertionError):
    """What a device would have refused."""


class CaptureError(RuntimeError):
    """What a device would have refused to record."""


Operation = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
"""What was called, with what, and what came of it."""


@contextmanager
def _unobserved() -> Iterator[None]:
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


class SimulatedGraph:
    """Operations that were recorded."""

    def __init__(self) -> None:
        self.operations, self.replays = list[Operation](), 0

    def replay(self) -> None:
        """Does them again, on the memory that they were recorded with."""
        self.replays += 1
        with _unobserved(), torch.no_grad():
            for func, args, kwargs, out in self.operations:
                again = func(*args, **kwargs)
                for mine, theirs in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(mine, Tensor) and mine.data_ptr() != theirs.data_ptr():
                        mine.copy_(theirs)


class SimulatedStream:
    """One of the device's queues, of which the simulated one has no use."""

    def wait_stream(self, other: "SimulatedStream") -> None:
        """Nothing is ever under way."""


class SimulatedDevice:
    """Within it, `torch.device("cuda")` can be used. `waits` counts what the program would have waited for."""

    def __init__(self, memory: int = 1 << 30) -> None:
        """`memory` is what it says that it has, in bytes, all of it free."""
        self.waits: Counter[str] = Counter()
        self._cuda = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_name": lambda: "simulated",
            "get_device_capability": lambda index: (9, 0),
            "mem_get_info": lambda device: (memory, memory),
            "CUDAGraph": self._new_graph,
            "graph": self._record,
            "graph_pool_handle": lambda: (0, 0),
            "Stream": SimulatedStream,
            "current_stream": SimulatedStream,
            "stream": nullcontext,
        }
        self.graphs: list[SimulatedGraph] = []
        self.recording: SimulatedGraph | None = None
        self._there: dict[int, Any] = {}  # storages by address; held, so that no other one gets the same
        self._modes = (_Functions(self), _Operations(self))
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        for name, answer in self._cuda.items():
            self._entered.enter_context(patch.object(torch.cuda, name, answer))
        for mode in self._modes:
            self._entered.enter_context(mode)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._entered.close()

    def _new_graph(self) -> SimulatedGraph:
        self.graphs.append(SimulatedGraph())
        return self.graphs[-1]

    @contextmanager
    def _record(self, graph: SimulatedGraph, pool: Any, stream: SimulatedStream) -> Iterator[None]:
        with _unobserved():
            before = [(storage, storage.clone()) for storage in self._there.values()]
        self.recording = graph
        try:
            yield
        finally:
            self.recording = None
            with _unobserved():
                for storage, content in before:
                    storage.copy_(content)

    def wait(self, what: str) -> None:
        """Notes that the program waits. Raises CaptureError while a graph is recorded."""
        if self.recording is not None:
            raise CaptureError(f"{what}: operation not permitted when stream is capturing")
        self.waits[what] += 1

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor counts as being on the device."""
        return tensor.untyped_storage()._cdata in self._there

    def take(self, tensors: Iterable[Any]) -> None:
        """Counts what is new among the tensors as being there."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._there[storage._cdata] = storage

    def moved(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor on `device`: itself, or a copy."""
        if self.holds(tensor) == (device.type == DEVICE.type):
            return tensor
        if device.type == CPU.type:
            self.wait("copy to the CPU")
        elif self.recording is not None:
            raise CaptureError("copy to the device: operation not permitted when stream is capturing")
        with torch._C.DisableTorchFunction():
            copy = tensor.clone()
        self._there.pop(copy.untyped_storage()._cdata, None)
        if device.type == DEVICE.type:
            self.take([copy])
        return copy


class _Functions(TorchFunctionMode):
    """What is asked of tensors in Python: their device, to be moved, to be read."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        there = first is not None and self.device.holds(first)
        if func == _DEVICE:
            return DEVICE if there else CPU
        if func == _IS_CUDA:
            return there
        if first is not None and name in {"to", "cpu", "cuda"}:
            return self._to(first, name, args[1:], kwargs)
        if there and name in {"numpy", "__array__"}:
            raise DeviceError("NumPy cannot read what is on the device")
        if there and name == "tolist":
            self.device.wait("tolist")
        device = kwargs.pop("device", None)
        out = func(*args, **kwargs)
        if name in MAKERS and device is not None and torch.device(device).type == DEVICE.type:
            self.device.take([out])
        elif device is not None:
            return self.device.moved(out, torch.device(device))
        return out

    def _to(self, tensor: Tensor, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        goal = {"cpu": CPU, "cuda": DEVICE}.get(name) or kwargs.pop("device", None)
        if goal is None and args and isinstance(args[0], str | torch.device):
            goal, args = args[0], args[1:]
        for option in ("non_blocking", "memory_format"):
            kwargs.pop(option, None)
        args = tuple(arg for arg in args if not isinstance(arg, bool))
        moved = tensor if goal is None else self.device.moved(tensor, torch.device(goal))
        return moved.type(args[0]) if args and args[0] is not None else _typed(moved, kwargs)


def _typed(tensor: Tensor, kwargs: dict[str, Any]) -> Tensor:
    return tensor.type(kwargs["dtype"]) if kwargs.get("dtype") is not None else tensor


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is done with tensors, PyTorch's own engine included."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if name == "_cudnn_rnn_flatten_weight":  # only moves weights about, and only a GPU's library can
            return args[0][0]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [self.device.holds(tensor) for tensor in given]
        where = there[0] if name in {"copy_", "index_put_", "index"} and there else any(there)
        if any(there):
            self._judge(name, given, there, kwargs)
        out = func(*args, **kwargs)
        if where:
            if name in WAITS:
                self.device.wait(name)
            elif name in {"index", "index_put_"} and any(tensor.dtype == torch.bool for tensor in given[1:]):
                self.device.wait("boolean index")
            self.device.take(tree_leaves(out))
        if self.device.recording is not None and "empty" not in name:
            self.device.recording.operations.append((func, args, kwargs, out))
        return out

    def _judge(self, name: str, given: list[Tensor], there: list[bool], kwargs: dict[str, Any]) -> None:
        strangers = [tensor for tensor, here in zip(given, there, strict=True) if not here and tensor.dim()]
        if strangers and self.device.recording is not None:
            raise CaptureError(f"{name} from the CPU's memory: operation not permitted when stream is capturing")
        if strangers and name not in MIXED:
            raise DeviceError(f"{name} of tensors on the device and {tuple(strangers[0].shape)} on the CPU")
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise DeviceError(f"{name} draws numbers of the CPU on the device")
        if name == "copy_" and there == [False, True]:
            self.device.wait("copy to the CPU")
