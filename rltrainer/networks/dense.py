"""Fully connected layers of any kind.

They begin with PyTorch's own weights, uniform within 1 / sqrt(inputs), as in the reference code of DQN, TD3 and SAC;
the policy-gradient networks begin with orthogonal ones instead.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from rltrainer.accel.dense_stack import DenseStack
from rltrainer.networks.layers import ACTIVATIONS, orthogonal

MakeLayer = Callable[[int, int], nn.Module]
"""Makes a layer from the numbers of its inputs and outputs."""


class Dense(nn.Sequential):
    """Layers [..., inputs] -> [..., outputs], and activation functions after them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.stack = DenseStack(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [..., outputs] of x [..., inputs]."""
        return self.stack(x)


def dense(
    inputs: int, hiddens: Sequence[int], activation: str, outputs: int | None = None, layer: MakeLayer = nn.Linear
) -> Dense:
    """Make layers by `layer` of these widths, `activation` after each, and one of `outputs`, if any, without it."""
    layers: list[nn.Module] = []
    for width in hiddens:
        layers += [layer(inputs, width), ACTIVATIONS[activation]()]
        inputs = width
    return Dense(*layers) if outputs is None else Dense(*layers, layer(inputs, outputs))


def mlp(inputs: int, hiddens: Sequence[int], activation: str) -> Dense:
    """Make layers [..., inputs] -> [..., hiddens[-1]] with orthogonal weights, `activation` after each."""
    return dense(inputs, hiddens, activation, layer=lambda wide, out: orthogonal(nn.Linear(wide, out)))
