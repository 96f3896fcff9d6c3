"""What all networks are made of: activation functions and the first weights of layers."""

import math
from collections.abc import Callable
from typing import TypeVar

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "linear": nn.Identity,
}

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """Set orthogonal weights, times `gain`, and no bias: Saxe et al. 2014, arXiv 1312.6120. Returns `layer`."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
