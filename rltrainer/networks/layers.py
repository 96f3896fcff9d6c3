"""What all networks are made of."""

import math
from collections.abc import Callable
from typing import TypeVar

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """`layer` with orthogonal weights and no bias: Saxe et al. 2014, arXiv 1312.6120."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hiddens: list[int], activation: str) -> nn.Sequential:
    """Fully connected layers [..., inputs] -> [..., hiddens[-1]], each followed by `activation`."""
    layers: list[nn.Module] = []
    for width, outputs in zip([inputs, *hiddens], hiddens, strict=False):
        layers += [orthogonal(nn.Linear(width, outputs)), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)
