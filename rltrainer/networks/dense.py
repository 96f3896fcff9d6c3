"""Fully connected layers of any kind.

They begin with PyTorch's own weights, uniform within 1 / sqrt(inputs), as in the reference code of DQN, TD3 and SAC;
the policy-gradient networks begin with orthogonal ones instead.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rltrainer.networks.layers import ACTIVATIONS, orthogonal

Layer = Callable[[int, int], nn.Module]
"""Makes a layer from the numbers of its inputs and outputs."""


def dense(
    inputs: int, hiddens: Sequence[int], activation: str, outputs: int | None = None, layer: Layer = nn.Linear
) -> nn.Sequential:
    """Layers [..., inputs] by `layer`, each followed by `activation`, and one of `outputs`, if any, that is not."""
    layers: list[nn.Module] = []
    for width in hiddens:
        layers += [layer(inputs, width), ACTIVATIONS[activation]()]
        inputs = width
    return nn.Sequential(*layers) if outputs is None else nn.Sequential(*layers, layer(inputs, outputs))


def mlp(inputs: int, hiddens: Sequence[int], activation: str) -> nn.Sequential:
    """Fully connected layers [..., inputs] -> [..., hiddens[-1]] with orthogonal weights, `activation` after each."""
    return dense(inputs, hiddens, activation, layer=lambda wide, out: orthogonal(nn.Linear(wide, out)))


class Stacked(nn.Module):
    """`count` linear layers that share nothing, in one kernel: [k, N, inputs] -> [k, N, outputs] of the first k."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = max(1, inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if len(x) < len(self.weight):  # a slice of all would be copied on the way back
            return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])
        return torch.baddbmm(self.bias, x, self.weight)
