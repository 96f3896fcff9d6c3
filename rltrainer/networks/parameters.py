"""Networks in the forms that they are handed on in: one vector for those who act, tensors by name for checkpoints."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rltrainer.core.types import Weights
from rltrainer.errors import RunError

WHOLE = "nets"
"""What a checkpoint calls the part that is all of the networks."""


class FlatParameters:
    """All parameters of a module as views of one vector [P], and their gradients as views of another.

    One vector means one kernel for each of the optimizer's steps, for the clipping and for sending weights, where a
    small network would otherwise spend most of its time on a dozen each.
    """

    def __init__(self, module: nn.Module) -> None:
        """Move the parameters and gradients of `module` into the vectors."""
        self.parameters = list(module.parameters())
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.parameters]))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        begin = 0
        for parameter in self.parameters:
            end = begin + parameter.numel()
            parameter.data = self.vector.data[begin:end].view_as(parameter)
            parameter.grad = self.gradient[begin:end].view_as(parameter)
            begin = end
        self.trainable = [parameter for parameter in self.parameters if parameter.requires_grad]
        """Those that learn. The gradients of all others stay 0, so that no step moves them."""
        self.trainable_ids = frozenset(map(id, self.trainable))
        self.buffers = dict(module.named_buffers())


def load_weights(flat: FlatParameters, weights: Weights) -> None:
    """Copy the learner's `weights` into the module that `flat` was made of."""
    flat.vector.data.copy_(torch.tensor(weights["parameters"]))
    for name, buffer in flat.buffers.items():
        buffer.copy_(torch.tensor(weights["buffers"][name]))


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of parameters and buffers by name, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def target_state_from(policy: dict[str, Tensor], parts: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Return the state of target networks that begin as copies of some `parts` of a `policy`, each tensor by its name.

    Parts and tensors are named as in a learner's state: a part that is all of the networks is called WHOLE.
    """
    prefixes = {part: "" if part == WHOLE else f"{part}." for part in parts}
    return {
        part: {name.removeprefix(prefix): tensor for name, tensor in policy.items() if name.startswith(prefix)}
        for part, prefix in prefixes.items()
    }


def load_policy(nets: nn.Module, policy: dict[str, Tensor]) -> None:
    """Copy the tensors of `policy` into `nets`. Raises RunError, permanent, where they are of different shapes."""
    try:
        nets.load_state_dict(policy)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise RunError(
            "InvalidOption",
            f"the checkpoint does not fit the networks of these options (hiddens, vf_share_layers) and env: {detail}",
            permanent=True,
        ) from None
