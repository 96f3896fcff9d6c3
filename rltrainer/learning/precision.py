"""Networks that compute in bfloat16, and put out float32."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rltrainer.api.options import Options


def autocast(options: Options, device: torch.device) -> AbstractContextManager[Any]:
    """Within it networks compute in the precision of the options. No copies of weights are kept: steps would miss
    them."""
    if options.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def outputs_in_float32(part: nn.Module) -> None:
    """Have `part`, and its own parts, put out float32, whatever they compute in."""

    def widen(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if isinstance(outputs, tuple):
            return tuple(widen(module, inputs, each) for each in outputs)
        is_narrow = isinstance(outputs, Tensor) and outputs.dtype == torch.bfloat16
        return outputs.float() if is_narrow else outputs

    for module in (part, *part.children()):
        module.register_forward_hook(widen)
