"""Encoders: what turns observations [..., *shape] into features [..., outputs]."""

import math
from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from rltrainer.api.options import Options
from rltrainer.core.types import Spaces
from rltrainer.envs.layout import ACTION_MASK, AVAIL_ACTIONS, Part, layout, unsupported_space
from rltrainer.errors import RunError
from rltrainer.networks.layers import orthogonal
from rltrainer.ops.normalization import ObservationNormalizer

SMALLEST_IMAGE = 36
"""Pixels of the shorter side below which Nature's convolutions have nothing left to see."""
SMALLEST_GRID = 4
"""Cells of the shorter side below which an array with three axes is no picture."""
EVERYTHING = slice(None)


class Flatten(nn.Module):
    """Observations [..., *shape] as floats [..., outputs], times `scale`."""

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = shape, scale, math.prod(shape)

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        x = obs if obs.dtype == torch.float32 else obs.float()
        if len(self.shape) != 1:
            x = x.reshape(*x.shape[: x.dim() - len(self.shape)], self.outputs)
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


class Convolutional(nn.Module):
    """Convolutions and one layer over images [..., H, W, C] or [..., C, H, W].

    Images are turned into floats and multiplied by `scale` only here, so they travel and are stored as bytes.
    """

    def __init__(
        self, shape: tuple[int, ...], convolutions: Callable[[int], nn.Module], outputs: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = shape, scale, outputs
        self.channels_last = channels_last(shape)
        channels, height, width = (shape[2], *shape[:2]) if self.channels_last else shape
        self.convolutions = convolutions(channels)
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, channels, height, width)).numel()
        self.last = orthogonal(nn.Linear(size, outputs))

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        images = obs.reshape(-1, *self.shape)
        images = images.movedim(-1, -3) if self.channels_last else images
        images = images.to(torch.float32, memory_format=torch.channels_last)  # convolutions are faster so
        seen = self.convolutions(images * self.scale if self.scale != 1.0 else images)
        features: Tensor = self.last(seen.flatten(1)).relu()
        return features.reshape(*obs.shape[:-3], self.outputs)


def nature(channels: int) -> nn.Module:
    """Three convolutions, followed by a layer of 512: Mnih et al. 2015, doi 10.1038/nature14236, methods."""
    return nn.Sequential(
        *(orthogonal(nn.Conv2d(channels, 32, 8, 4)), nn.ReLU()),
        *(orthogonal(nn.Conv2d(32, 64, 4, 2)), nn.ReLU()),
        *(orthogonal(nn.Conv2d(64, 64, 3, 1)), nn.ReLU()),
    )


def minatar(channels: int) -> nn.Module:
    """One convolution for small grids, followed by a layer of 128: Young and Tian 2019, arXiv 1903.03176."""
    return nn.Sequential(orthogonal(nn.Conv2d(channels, 16, 3, 1)), nn.ReLU())


class Residual(nn.Module):
    """x + f(x), where f is two convolutions that keep the shape [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        change: Tensor = self.second(self.first(x.relu()).relu())
        return x + change


def resnet(channels: int) -> nn.Module:
    """IMPALA's residual network, followed by a layer of 256: Espeholt et al. 2018, arXiv 1802.01561, figure 3, right.

    The weights begin as PyTorch makes them: larger ones would add up over the residual blocks.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        layers += [Residual(outputs), Residual(outputs)]
    return nn.Sequential(*layers, nn.ReLU())


class Normalized(nn.Module):
    """An encoder of observations [..., *shape] that are normalised before."""

    def __init__(self, normalizer: ObservationNormalizer, encoder: Flatten | Convolutional) -> None:
        super().__init__()
        self.normalizer, self.encoder, self.outputs = normalizer, encoder, encoder.outputs

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        features: Tensor = self.encoder(self.normalizer(obs.float()))
        return features


class Composite(nn.Module):
    """The parts [..., n] of one vector [..., N], each by its own encoder, side by side, without those in `omit`."""

    def __init__(self, parts: list[Part], options: Options, omit: Container[tuple[str, ...]]) -> None:
        super().__init__()
        self.places: list[slice] = []
        self.encoders = nn.ModuleList()
        self.outputs = 0
        for likeness, group in groupby(parts, lambda part: None if part.path in omit else _likeness(part, options)):
            if likeness is None:
                continue
            run = list(group)
            where = slice(run[0].elements.start, run[-1].elements.stop)
            encoder, outputs = _part(run[0].space, where, options)
            self.places.append(where)
            self.encoders.append(encoder)
            self.outputs += outputs

    def forward(self, obs: Tensor) -> Tensor:
        """See the class."""
        features = [each(obs[..., where]) for each, where in zip(self.encoders, self.places, strict=True)]
        return features[0] if len(features) == 1 else torch.cat(features, -1)


Encoder = Flatten | OneHot | Convolutional | Normalized | Composite


def encoder(spaces: Spaces, options: Options, omit: tuple[str, ...] = (ACTION_MASK, AVAIL_ACTIONS)) -> Encoder:
    """What turns the observations of an environment, as they are stored, into features.

    Of a Dict the arrays named in `omit` are left out. Raises RunError, permanent, where nothing can read them.
    """
    if spaces.structure is None:
        return encoder_of(spaces.observations, options)
    composite = Composite(layout(spaces.structure), options, {(name,) for name in omit})
    if not composite.outputs:
        raise RunError(
            "InvalidOption",
            f"the observation space {spaces.structure} has nothing to observe beside {', '.join(omit)}",
            permanent=True,
        )
    return composite


def encoder_of(space: Space[Any], options: Options, part: slice = EVERYTHING) -> Encoder:
    """The encoder of observations [..., *shape] of one `space`, which lie at `part` of what is stored."""
    match space:
        case spaces.Box() if is_picture(space):
            how = _treatment(space, options)
            return _treated(_convolutional(space, options, how.scale), space.shape, how, part)
        case spaces.Box():
            how = _treatment(space, options)
            return _treated(Flatten(space.shape, how.scale), space.shape, how, part)
        case spaces.MultiBinary():
            return Flatten(space.shape)
        case spaces.Discrete():
            return OneHot([int(space.n)], [int(space.start)], scalar=True)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return OneHot(space.nvec.tolist(), space.start.tolist(), scalar=False)
    raise unsupported_space(space)


def is_picture(space: Space[Any]) -> bool:
    """Whether observations have three axes, two of them long enough to look for neighbours in."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and shorter_side(space.shape) >= SMALLEST_GRID


def is_image(space: Space[Any]) -> bool:
    """Whether Nature's convolutions can read the observations: pictures that are large enough."""
    return is_picture(space) and shorter_side(space.shape or ()) >= SMALLEST_IMAGE


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a picture [a, b, c] is [H, W, C] and not [C, H, W]: sides are alike, and longer than the channels are."""
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):
        return shape[0] == shape[1]
    return shape[2] <= shape[0]


def shorter_side(shape: tuple[int, ...]) -> int:
    """Of a picture [H, W, C] or [C, H, W], in pixels."""
    return min(shape[:2] if channels_last(shape) else shape[1:])


def _convolutional(space: spaces.Box, options: Options, scale: float) -> Convolutional:
    if not is_image(space):
        return Convolutional(space.shape, minatar, 128, scale)
    if options.cnn == "resnet":
        return Convolutional(space.shape, resnet, 256, scale)
    return Convolutional(space.shape, nature, 512, scale)


@dataclass(frozen=True)
class Treatment:
    """How numbers of unlike size are made alike: by a factor that is known, or by what is measured."""

    scale: float = 1.0
    measured: bool = False


def _treatment(space: Space[Any], options: Options) -> Treatment:
    if not isinstance(space, spaces.Box) or space.dtype == "bool":
        return Treatment()
    if space.dtype == "uint8" and (is_picture(space) or not options.normalize_observations):
        return Treatment(scale=1 / 255)
    return Treatment(measured=options.normalize_observations)


def _treated(encoder: Flatten | Convolutional, shape: tuple[int, ...], how: Treatment, where: slice) -> Encoder:
    return Normalized(ObservationNormalizer(shape, where), encoder) if how.measured else encoder


def _likeness(part: Part, options: Options) -> Hashable:
    """What neighbours must have in common to be read as one vector. A picture is like nothing else."""
    return part.path if is_picture(part.space) else _treatment(part.space, options)


def _part(space: Space[Any], where: slice, options: Options) -> tuple[nn.Module, int]:
    """What reads the elements at `where` of a vector, [..., n]: a picture, or vectors like `space`. And its outputs."""
    if is_picture(space):
        picture = encoder_of(space, options, where)
        return nn.Sequential(nn.Unflatten(-1, space.shape or ()), picture), picture.outputs
    size, how = where.stop - where.start, _treatment(space, options)
    return _treated(Flatten((size,), how.scale), (size,), how, where), size
