"""The parts of the networks that have an optimizer each, their gradients, and the target copies that follow them."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rltrainer.api.options import Options
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.optimizer import Optimizer
from rltrainer.networks.parameters import WHOLE, FlatParameters, load_policy, module_state


class ParameterGroups:
    """By the name of a part, a submodule of the networks ("" is all of them): its parameters and their gradient as one
    vector each, its optimizer, and where the algorithm asks for one its target copy."""

    def __init__(self, algorithm: Algorithm, nets: nn.Module, options: Options) -> None:
        self.nets, self.options, self.grad_clip = nets, options, options.grad_clip
        parts: Mapping[str, Callable[[nn.Parameter, Any], Optimizer]] = algorithm.optimizers
        self.flats = {part: FlatParameters(nets.get_submodule(part)) for part in parts}
        self.optimizers = {part: make(self.flats[part].vector, options) for part, make in parts.items()}
        self.targets: dict[str, Any] = {part: copy.deepcopy(nets.get_submodule(part)) for part in algorithm.targets}
        self.target_flats = {
            part: FlatParameters(target.requires_grad_(False)) for part, target in self.targets.items()
        }

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next steps: `<part>_lr` where the options have one, else `lr`."""
        for part, optimizer in self.optimizers.items():
            optimizer.lr = self.options.own_lr(part) or lr

    def step(self, part: str, apply_updates: bool = True) -> Tensor:
        """Clip the gradient of `part` and take one step of its optimizer. Returns the norm before clipping.

        Without `apply_updates` the gradient is clipped and nothing moves.
        """
        gradient = self.flats[part].gradient
        norm: Tensor = torch.linalg.vector_norm(gradient)
        if self.grad_clip:
            gradient.mul_((self.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        if apply_updates:
            self.optimizers[part].step()
        return norm

    @torch.no_grad()
    def update_targets(self, tau: float) -> None:
        """Move the targets by the share `tau` of the way to the parts that they follow; 1 copies them."""
        for part, target in self.targets.items():
            self.target_flats[part].vector.data.lerp_(self.flats[part].vector.data, tau)
            for mine, theirs in zip(target.buffers(), self.nets.get_submodule(part).buffers(), strict=True):
                mine.copy_(theirs)

    def state(self) -> dict[str, Any]:
        """The optimizers' states and the targets, by part, as a checkpoint has them."""
        return {
            "optimizer": {
                part or WHOLE: {name: value.clone() for name, value in optimizer.state.items()}
                for part, optimizer in self.optimizers.items()
            },
            "targets": {part or WHOLE: module_state(target) for part, target in self.targets.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`. Raises RunError, permanent, where targets are of other shapes."""
        for part, optimizer in self.optimizers.items():
            optimizer.load(state["optimizer"][part or WHOLE])
        self.load_targets(state["targets"])

    def load_targets(self, state: Mapping[str, dict[str, Tensor]]) -> None:
        """Take over the targets of `state()`. Raises RunError, permanent, where they are of other shapes."""
        for part, target in self.targets.items():
            load_policy(target, state[part or WHOLE])
