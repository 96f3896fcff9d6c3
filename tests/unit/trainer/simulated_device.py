"""A simulated accelerator: tensors on the CPU that are counted as being on a device `cuda`, with its rules.

No GPU computes anything here. What is shown is where tensors live: an operation on tensors of both sides, a random
number of the CPU drawn into the device's memory, or NumPy reading it, is the error that it would be on a GPU; and each
time that the program would wait for the device is noted.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda")
CPU = torch.device("cpu")
aten = torch.ops.aten
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}
"""Operations whose result, or its shape, the program has to know before it goes on."""
MIXED = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}
"""Operations that take tensors of both sides: copies, and an index from the CPU, which may be copied."""
_DEVICE, _IS_CUDA = (getattr(torch.Tensor, name).__get__ for name in ("device", "is_cuda"))


class DeviceError(AssertionError):
    """What a device would have refused."""


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
        }
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
            self.waits["copy to the CPU"] += 1
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
            self.device.waits["tolist"] += 1
        device = kwargs.pop("device", None)
        out = func(*args, **kwargs)
        if device is not None:
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
                self.device.waits[name] += 1
            elif name in {"index", "index_put_"} and any(tensor.dtype == torch.bool for tensor in given[1:]):
                self.device.waits["boolean index"] += 1
            self.device.take(tree_leaves(out))
        return out

    def _judge(self, name: str, given: list[Tensor], there: list[bool], kwargs: dict[str, Any]) -> None:
        strangers = [tensor for tensor, here in zip(given, there, strict=True) if not here and tensor.dim()]
        if strangers and name not in MIXED:
            raise DeviceError(f"{name} of tensors on the device and {tuple(strangers[0].shape)} on the CPU")
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise DeviceError(f"{name} draws numbers of the CPU on the device")
        if name == "copy_" and there == [False, True]:
            self.device.waits["copy to the CPU"] += 1
