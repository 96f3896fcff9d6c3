"""Observation encoders: what turns observations [..., *shape] into features [..., outputs]."""

import math
from collections.abc import Callable, Container, Hashable
from enum import Enum, auto
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
from rltrainer.networks.scaling import Scale, is_bytes, scale_of
from rltrainer.ops.normalization import ObservationNormalizer

MIN_IMAGE_SIDE = 36
"""Pixels of the shorter side below which Nature's convolutions have nothing left to see."""
MIN_PICTURE_SIDE = 4
"""Cells of the shorter side below which an array with three axes is no picture."""
ALL_ELEMENTS = slice(None)


class Flatten(nn.Module):
    """Observations [..., *shape] as floats [..., outputs], brought to size by `scale`, if any."""

    def __init__(self, shape: tuple[int, ...], scale: Scale | None = None) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = shape, scale, math.prod(shape)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features [..., outputs] of observations [..., *shape]."""
        x = obs.float() if self.scale is None else self.scale(obs)
        if len(self.shape) != 1:
            x = x.reshape(*x.shape[: x.dim() - len(self.shape)], self.outputs)
        return x


class OneHot(nn.Module):
    """Discrete observations [...] or [..., k] as concatenated one-hot vectors [..., sum(sizes)]."""

    first: Tensor

    def __init__(self, sizes: list[int], start: list[int], scalar: bool) -> None:
        super().__init__()
        self.sizes, self.scalar, self.outputs = sizes, scalar, sum(sizes)
        self.register_buffer("first", torch.tensor(start), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features [..., sum(sizes)] of observations [...], if `scalar`, or [..., k]."""
        index = (obs.unsqueeze(-1) if self.scalar else obs).long() - self.first
        parts = [nn.functional.one_hot(part, size) for part, size in zip(index.unbind(-1), self.sizes, strict=True)]
        return torch.cat(parts, -1).float()


class Convolutional(nn.Module):
    """Convolutions and one layer over images [..., H, W, C] or [..., C, H, W].

    Images are turned into floats, and brought to size by a `scale` of [C, H, W], only here, so they travel and are
    stored as bytes.
    """

    def __init__(
        self, shape: tuple[int, ...], convolutions: Callable[[int], nn.Module], outputs: int, scale: Scale | None = None
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
        """Return features [..., outputs] of images [..., *shape]."""
        images = obs.reshape(-1, *self.shape)
        images = images.movedim(-1, -3) if self.channels_last else images
        images = images.to(torch.float32, memory_format=torch.channels_last)  # convolutions are faster so
        maps = self.convolutions(images if self.scale is None else self.scale(images))
        features: Tensor = self.last(maps.flatten(1)).relu()
        return features.reshape(*obs.shape[:-3], self.outputs)


def nature(channels: int) -> nn.Module:
    """Make three convolutions, followed by a layer of 512: Mnih et al. 2015, doi 10.1038/nature14236, methods."""
    return nn.Sequential(
        *(orthogonal(nn.Conv2d(channels, 32, 8, 4)), nn.ReLU()),
        *(orthogonal(nn.Conv2d(32, 64, 4, 2)), nn.ReLU()),
        *(orthogonal(nn.Conv2d(64, 64, 3, 1)), nn.ReLU()),
    )


def minatar(channels: int) -> nn.Module:
    """Make one convolution for small grids, followed by a layer of 128: Young and Tian 2019, arXiv 1903.03176."""
    return nn.Sequential(orthogonal(nn.Conv2d(channels, 16, 3, 1)), nn.ReLU())


class Residual(nn.Module):
    """x + f(x), where f is two convolutions that keep the shape [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + f(x) of feature maps x [N, C, H, W]."""
        change: Tensor = self.second(self.first(x.relu()).relu())
        return x + change


def resnet(channels: int) -> nn.Module:
    """Make IMPALA's residual network, followed by a layer of 256: Espeholt et al. 2018, arXiv 1802.01561, figure 3,
    right.

    The weights begin as PyTorch makes them: larger ones would add up over the residual blocks.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        layers += [Residual(outputs), Residual(outputs)]
    return nn.Sequential(*layers, nn.ReLU())


class Normalized(nn.Module):
    """An encoder of observations [..., *shape] that are normalized first."""

    def __init__(self, normalizer: ObservationNormalizer, encoder: Flatten | Convolutional) -> None:
        super().__init__()
        self.normalizer, self.encoder, self.outputs = normalizer, encoder, encoder.outputs

    def forward(self, obs: Tensor) -> Tensor:
        """Return features [..., outputs] of observations [..., *shape]."""
        features: Tensor = self.encoder(self.normalizer(obs.float()))
        return features


class Composite(nn.Module):
    """The parts [..., n] of flattened observations [..., N], each by its own encoder, side by side.

    Parts whose path is in `omit` are left out; neighbors that are preprocessed alike are encoded as one vector.
    """

    def __init__(self, parts: list[Part], options: Options, omit: Container[tuple[str, ...]]) -> None:
        super().__init__()
        self.elements: list[slice] = []
        self.encoders = nn.ModuleList()
        self.outputs = 0
        for key, group in groupby(parts, lambda part: None if part.path in omit else merge_key(part, options)):
            if key is None:
                continue
            run = list(group)
            elements = slice(run[0].elements.start, run[-1].elements.stop)
            if is_picture(space := run[0].space):
                encoder = space_encoder(space, options, elements)
                self.encoders.append(nn.Sequential(nn.Unflatten(-1, space.shape or ()), encoder))
            else:
                encoder = vector_encoder(run, elements, options)
                self.encoders.append(encoder)
            self.elements.append(elements)
            self.outputs += encoder.outputs

    def forward(self, obs: Tensor) -> Tensor:
        """Return features [..., outputs] of flattened observations [..., N]."""
        features = [encoder(obs[..., part]) for encoder, part in zip(self.encoders, self.elements, strict=True)]
        return features[0] if len(features) == 1 else torch.cat(features, -1)


Encoder = Flatten | OneHot | Convolutional | Normalized | Composite


def observation_encoder(
    spaces: Spaces, options: Options, omit: tuple[str, ...] = (ACTION_MASK, AVAIL_ACTIONS)
) -> Encoder:
    """Make the encoder of an environment's observations, as they are stored.

    Of a Dict the arrays named in `omit` are left out. Raises RunError, permanent, where nothing can read them.
    """
    if spaces.structure is None:
        return space_encoder(spaces.observations, options)
    composite = Composite(layout(spaces.structure), options, {(name,) for name in omit})
    if not composite.outputs:
        raise RunError(
            "InvalidOption",
            f"the observation space {spaces.structure} has nothing to observe beside {', '.join(omit)}",
            permanent=True,
        )
    return composite


def space_encoder(space: Space[Any], options: Options, elements: slice = ALL_ELEMENTS) -> Encoder:
    """Make the encoder of observations [..., *shape] of one `space`, which are these `elements` of what is stored."""
    match space:
        case spaces.Box():
            return box_encoder(space, options, elements)
        case spaces.MultiBinary():
            return Flatten(space.shape)
        case spaces.Discrete():
            return OneHot([int(space.n)], [int(space.start)], scalar=True)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return OneHot(space.nvec.tolist(), space.start.tolist(), scalar=False)
    raise unsupported_space(space)


def is_picture(space: Space[Any]) -> bool:
    """Return whether observations have three axes, two of them long enough for convolutions."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and shorter_side(space.shape) >= MIN_PICTURE_SIDE


def is_image(space: Space[Any]) -> bool:
    """Return whether Nature's convolutions can read the observations: pictures that are large enough."""
    return is_picture(space) and shorter_side(space.shape or ()) >= MIN_IMAGE_SIDE


def channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether a picture [a, b, c] is [H, W, C] and not [C, H, W].

    Sides are alike, and longer than the channels are many.
    """
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):
        return shape[0] == shape[1]
    return shape[2] <= shape[0]


def shorter_side(shape: tuple[int, ...]) -> int:
    """Return the shorter side of a picture [H, W, C] or [C, H, W], in pixels."""
    return min(shape[:2] if channels_last(shape) else shape[1:])


def convolutional(space: spaces.Box, options: Options, scale: Scale | None) -> Convolutional:
    """Make the convolutions that read a picture of this size, brought to size by `scale`."""
    if not is_image(space):
        return Convolutional(space.shape, minatar, 128, scale)
    if options.cnn == "resnet":
        return Convolutional(space.shape, resnet, 256, scale)
    return Convolutional(space.shape, nature, 512, scale)


class Preprocessing(Enum):
    """How observations are brought to one size: by the bounds of their space, or by running statistics."""

    SCALED = auto()
    SCALED_BYTES = auto()
    """The same; checkpoints hold them apart from others."""
    NORMALIZED = auto()

    @classmethod
    def of(cls, space: Space[Any], options: Options) -> "Preprocessing":
        """Return how observations of `space` are preprocessed: pictures of bytes, and bits, are of a known size."""
        if not isinstance(space, spaces.Box) or space.dtype == "bool":
            return cls.SCALED
        if is_bytes(space) and (is_picture(space) or not options.normalize_observations):
            return cls.SCALED_BYTES
        return cls.NORMALIZED if options.normalize_observations else cls.SCALED


def merge_key(part: Part, options: Options) -> Hashable:
    """Return what neighboring parts must have in common to be encoded as one vector; a picture's is its own."""
    return part.path if is_picture(part.space) else Preprocessing.of(part.space, options)


def box_encoder(space: spaces.Box, options: Options, elements: slice) -> Encoder:
    """Make the encoder of arrays [..., *shape], which are these `elements` of what is stored."""
    normalizes = Preprocessing.of(space, options) is Preprocessing.NORMALIZED
    encoder: Flatten | Convolutional
    if is_picture(space):
        scale = None if normalizes else scale_of([space], space.shape, channels_last(space.shape))
        encoder = convolutional(space, options, scale)
    else:
        encoder = Flatten(space.shape, None if normalizes else scale_of([space], space.shape))
    return Normalized(ObservationNormalizer(space.shape, elements), encoder) if normalizes else encoder


def vector_encoder(parts: list[Part], elements: slice, options: Options) -> Encoder:
    """Make the encoder of the `elements` [..., n] of flattened observations that are `parts`, preprocessed alike."""
    shape = (elements.stop - elements.start,)
    if Preprocessing.of(parts[0].space, options) is Preprocessing.NORMALIZED:
        return Normalized(ObservationNormalizer(shape, elements), Flatten(shape))
    return Flatten(shape, scale_of([part.space for part in parts], shape))
