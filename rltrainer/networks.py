"""Networks: encoders of observations, multilayer perceptrons, and the actor-critic made of them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from rltrainer.distributions import Distribution, family
from rltrainer.errors import RunError
from rltrainer.normalize import ObservationNormalizer
from rltrainer.options import ActorCriticOptions

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
SMALLEST_IMAGE = 36
"""Pixels of the shorter side below which Nature's convolutions have nothing left to see."""


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float = math.sqrt(2)) -> nn.Linear | nn.Conv2d:
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


class Flatten(nn.Module):
    """Observations [..., *shape] as floats [..., outputs], scaled to [0, 1] where they are bytes."""

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0) -> None:
        super().__init__()
        self.dims, self.scale, self.outputs = len(shape), scale, math.prod(shape)

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        x = obs.float() if obs.dtype != torch.float32 else obs
        x = x.flatten(-self.dims) if self.dims > 1 else x
        return x * self.scale if self.scale != 1.0 else x


class OneHot(nn.Module):
    """Discrete observations [...] or [..., k] as concatenated one-hot vectors [..., sum(sizes)]."""

    first: Tensor

    def __init__(self, sizes: list[int], start: list[int], scalar: bool) -> None:
        super().__init__()
        self.sizes, self.scalar, self.outputs = sizes, scalar, sum(sizes)
        self.register_buffer("first", torch.tensor(start), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        index = (obs.unsqueeze(-1) if self.scalar else obs).long() - self.first
        parts = [nn.functional.one_hot(part, size) for part, size in zip(index.unbind(-1), self.sizes, strict=True)]
        return torch.cat(parts, -1).float()


class NatureCNN(nn.Module):
    """Three convolutions and a layer of 512: Mnih et al. 2015, doi 10.1038/nature14236, methods.

    Images are bytes [..., H, W, C] or [..., C, H, W], and are scaled here, so they travel and are stored as bytes.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.channels_last = shape[2] < shape[0]
        channels, height, width = (shape[2], *shape[:2]) if self.channels_last else shape
        self.convolutions = nn.Sequential(
            *(orthogonal(nn.Conv2d(channels, 32, 8, 4)), nn.ReLU()),
            *(orthogonal(nn.Conv2d(32, 64, 4, 2)), nn.ReLU()),
            *(orthogonal(nn.Conv2d(64, 64, 3, 1)), nn.ReLU(), nn.Flatten()),
        )
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, channels, height, width)).shape[1]
        self.last = nn.Sequential(orthogonal(nn.Linear(size, 512)), nn.ReLU())
        self.outputs = 512

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        images = obs.flatten(0, -4) if obs.dim() > 4 else obs
        images = images.movedim(-1, -3) if self.channels_last else images
        features: Tensor = self.last(self.convolutions(images.float() * (1 / 255)))
        return features.reshape(*obs.shape[:-3], self.outputs)


def is_image(space: Space[Any]) -> bool:
    """Whether Nature's CNN can read the observations: bytes with three axes, large enough."""
    if not isinstance(space, spaces.Box) or space.dtype != "uint8" or len(space.shape) != 3:
        return False
    return sorted(space.shape)[1] >= SMALLEST_IMAGE


Encoder = NatureCNN | Flatten | OneHot


def encoder(space: Space[Any]) -> Encoder:
    """What turns observations of `space` into features [..., outputs]. Raises RunError where nothing can."""
    match space:
        case spaces.Box() if is_image(space):
            return NatureCNN(space.shape)
        case spaces.Box():
            return Flatten(space.shape, 1 / 255 if space.dtype == "uint8" else 1.0)
        case spaces.MultiBinary():
            return Flatten(space.shape)
        case spaces.Discrete():
            return OneHot([int(space.n)], [int(space.start)], scalar=True)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return OneHot(space.nvec.tolist(), space.start.tolist(), scalar=False)
    raise RunError(
        "InvalidOption",
        f"the observation space {space} is not supported: use Box, Discrete, MultiDiscrete or MultiBinary, "
        "or a wrapper such as gymnasium's FlattenObservation",
        permanent=True,
    )


class ActorCritic(nn.Module):
    """A policy and a value function over one encoder. Their hidden layers are shared where the options say so."""

    def __init__(self, observations: Space[Any], actions: Space[Any], options: ActorCriticOptions) -> None:
        super().__init__()
        self.family = family(actions)
        self.encoder = encoder(observations)
        self.normalizer = None
        if options.normalize_observations and isinstance(self.encoder, Flatten):
            self.encoder.scale = 1.0  # the statistics scale already
            self.normalizer = ObservationNormalizer(observations.shape or ())
        widths: list[int] = list(options.hiddens)
        inputs = self.encoder.outputs
        self.policy_body = mlp(inputs, widths, options.activation)
        self.value_body = self.policy_body if options.vf_share_layers else mlp(inputs, widths, options.activation)
        features = widths[-1] if widths else inputs
        self.policy_head = orthogonal(nn.Linear(features, self.family.outputs), gain=0.01)
        self.value_head = orthogonal(nn.Linear(features, 1), gain=1.0)
        self.log_std = nn.Parameter(torch.zeros(self.family.outputs)) if self.family.gaussian else None

    def encode(self, obs: Tensor) -> Tensor:
        """Features of observations [..., *shape]: [..., F]."""
        features: Tensor = self.encoder(obs if self.normalizer is None else self.normalizer(obs.float()))
        return features

    def parameters_of(self, hidden: Tensor) -> Tensor:
        """Parameters [..., P] of the distributions over actions, from the policy's last hidden layer."""
        outputs: Tensor = self.policy_head(hidden)
        return outputs if self.log_std is None else torch.cat([outputs, self.log_std.expand_as(outputs)], -1)

    def act(self, obs: Tensor) -> Distribution:
        """Distributions over actions for observations [..., *shape]."""
        return self.family.make(self.parameters_of(self.policy_body(self.encode(obs))))

    def value(self, obs: Tensor) -> Tensor:
        """Values [...] of observations [..., *shape], in units of return."""
        values: Tensor = self.value_head(self.value_body(self.encode(obs)))
        return values.squeeze(-1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters [..., P] and values [...] for observations [..., *shape]."""
        features = self.encode(obs)
        hidden = self.policy_body(features)
        valued = hidden if self.value_body is self.policy_body else self.value_body(features)
        return self.parameters_of(hidden), self.value_head(valued).squeeze(-1)
