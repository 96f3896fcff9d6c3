"""Linear layers and activation functions passed through as one, with gradients that a tape finds without autograd.

The formulas are autograd's: with y = x W + b, a gradient g of y is x' g for W, the sum of its rows for b, and g W' for
x. Views of parameters and gradients are made once: on small networks that takes as long as some of the products.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from rltrainer.accel import tape


class BatchedLinear(nn.Module):
    """`count` linear layers that share nothing, in one kernel: [k, N, inputs] -> [k, N, outputs] of the first k."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = max(1, inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Pass [k, N, inputs] through the first k layers: [k, N, outputs]."""
        if len(x) < len(self.weight):  # a slice of all would be copied on the way back
            return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])
        return torch.baddbmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class Activation:
    """An activation function whose derivative follows from its value."""

    apply_: Callable[[Tensor], Tensor]
    """In place."""
    back: Callable[[Tensor, Tensor], Tensor]
    """The gradient of its input, from the gradient of its value, and the value."""


aten = torch.ops.aten
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: Activation(torch.tanh_, aten.tanh_backward.default),
    nn.ReLU: Activation(torch.relu_, lambda gradient, y: aten.threshold_backward.default(gradient, y, 0)),
    nn.ELU: Activation(nn.functional.elu_, lambda gradient, y: aten.elu_backward.default(gradient, 1, 1, 1, True, y)),
}
Step = tuple[nn.Linear | BatchedLinear, Activation | None]
"""A layer and the activation function after it, if any."""


class DenseStack:
    """Modules [..., inputs] -> [..., outputs] in sequence. They are submodules of others; this only refers to them.

    Where all are layers and activation functions of known kinds, they are passed through as one.
    """

    def __init__(self, *modules: nn.Module, scalar: bool = False) -> None:
        """With `scalar` its one output is a number [...], not a vector of one."""
        self.modules, self.scalar = modules, scalar
        self._steps: list[Step] | None = None
        self._compiled: dict[int, CompiledStack] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Pass [..., inputs] through all modules: [..., outputs], or [...] where `scalar`."""
        steps = self._known()
        if steps and not torch.is_autocast_enabled(x.device.type):
            if not torch.is_grad_enabled():
                return self._shaped(_through(steps, x))
            recorder = tape.current()
            plan = None if recorder is None else self._compile(steps, x)
            if recorder is not None and plan is not None:
                return recorder.add(DenseOp(plan, recorder.leaf(x), self._shaped))
        for module in self.modules:
            x = module(x)
        return self._shaped(x)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy knows the copied modules, and nothing yet of their parameters."""
        return partial(DenseStack, scalar=self.scalar), self.modules

    def _shaped(self, x: Tensor) -> Tensor:
        return x.squeeze(-1) if self.scalar else x

    def _known(self) -> list[Step]:
        if self._steps is None:
            self._steps = steps_of(self.modules)
        return self._steps

    def _compile(self, steps: list[Step], x: Tensor) -> "CompiledStack | None":
        """Compile the stack for `x`; None for layers that no learner has."""
        count = len(x) if isinstance(steps[0][0], BatchedLinear) else 0
        plan = self._compiled.get(count)
        if plan is None or plan.first.grad is not plan.gradient:
            if any(layer.weight.grad is None for layer, _ in steps):
                return None
            plan = self._compiled[count] = CompiledStack(steps, count)
        return plan


def steps_of(modules: Sequence[nn.Module]) -> list[Step]:
    """Pair each layer with the activation after it; none at all where a module is of another kind."""
    steps: list[Step] = []
    for module in modules:
        for layer in module if isinstance(module, nn.Sequential) else [module]:
            if isinstance(layer, nn.Linear | BatchedLinear):
                steps.append((layer, None))
            elif type(layer) in ACTIVATIONS and steps and steps[-1][1] is None:
                steps[-1] = (steps[-1][0], ACTIVATIONS[type(layer)])
            elif not isinstance(layer, nn.Identity):
                return []
    return steps


def _through(steps: Sequence[Step], x: Tensor) -> Tensor:
    """Pass `x` through the steps where nothing is learned from it."""
    for layer, activation in steps:
        x = layer.forward(x)
        if activation is not None:
            activation.apply_(x)
    return x


class CompiledLayer(NamedTuple):
    """One layer of a compiled stack: views of its parameters and of their gradients, and its activation function."""

    weight: Tensor
    """[..., inputs, outputs]"""
    transposed: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor
    """[..., 1, outputs]"""
    weight_id: int
    bias_id: int
    """Of the parameters, by `id`: a layer may be frozen, or only half of it."""
    activation: Activation | None


class CompiledStack:
    """A dense stack with all that passing through it, forward and back, needs."""

    def __init__(self, steps: Sequence[Step], count: int) -> None:
        """Through the first `count` layers of each BatchedLinear; 0 where layers are plain."""
        self.batched = bool(count)
        self.affine = torch.baddbmm if self.batched else torch.addmm
        self.product = torch.bmm if self.batched else torch.mm
        self.gather: Any = Tensor.baddbmm_ if self.batched else Tensor.addmm_
        self.first = steps[0][0].weight
        self.gradient = self.first.grad
        self.layers = [_compiled_layer(layer, activation, count) for layer, activation in steps]


def _compiled_layer(layer: nn.Linear | BatchedLinear, activation: Activation | None, count: int) -> CompiledLayer:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    weight_gradient, bias_gradient = cast(Tensor, layer.weight.grad), cast(Tensor, layer.bias.grad)
    if count:
        weight, bias = weight[:count], bias[:count]
        weight_gradient, bias_gradient = weight_gradient[:count], bias_gradient[:count]
    else:  # PyTorch has these as [outputs, inputs]
        weight, weight_gradient, bias_gradient = weight.t(), weight_gradient.t(), bias_gradient[None]
    ids = id(layer.weight), id(layer.bias)
    return CompiledLayer(weight, weight.mT, bias, weight_gradient, bias_gradient, *ids, activation)


class DenseOp:
    """One pass through a dense stack, and the way back: an entry of a tape."""

    def __init__(self, stack: CompiledStack, source: Tensor, shaped: Callable[[Tensor], Tensor]) -> None:
        """Pass `source` [..., inputs], or [k, N, inputs] where layers are batched; `shaped` shapes the output."""
        self.stack, self.source = stack, source
        with torch.no_grad():
            x = source.detach()
            if x.dim() != 2 and not stack.batched:
                x = x.reshape(-1, x.shape[-1])
            self.read = [x]
            for layer in stack.layers:
                x = stack.affine(layer.bias, x, layer.weight)
                if layer.activation is not None:
                    layer.activation.apply_(x)
                self.read.append(x)
            if source.dim() != x.dim():
                x = x.view(*source.shape[:-1], -1)
            self.out = shaped(x).requires_grad_()

    def back(self, tape: tape.Tape, gradient: Tensor, parameter_ids: tape.ParameterIds) -> None:
        """Add to the gradients of the layers, where requested, and to that of the source."""
        stack, read, further = self.stack, self.read, self.source.requires_grad
        if gradient.shape != read[-1].shape:
            gradient = gradient.reshape(read[-1].shape)
        ones = gradient.new_ones(*gradient.shape[:-2], 1, gradient.shape[-2])  # a sum of rows, quicker than by `sum`
        for i in range(len(stack.layers) - 1, -1, -1):
            layer = stack.layers[i]
            if layer.activation is not None:
                gradient = layer.activation.back(gradient, read[i + 1])
            if layer.weight_id in parameter_ids:
                stack.gather(layer.weight_gradient, read[i].mT, gradient)
            if layer.bias_id in parameter_ids:
                stack.gather(layer.bias_gradient, ones, gradient)
            if i or further:
                gradient = stack.product(gradient, layer.transposed)
        if further:
            tape.give(self.source, gradient.view(self.source.shape))
