"""Distributions over actions, for many small calls: no argument checks, nothing computed before it is asked for.

Each is made from one tensor of parameters [..., P], so that a batch of old policies is one tensor too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Tensor

from rltrainer.errors import RunError

LOG_TWO_PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """A batch of distributions [...] over actions."""

    def sample(self, rng: torch.Generator) -> Tensor:
        """Actions drawn with `rng`: [...] for one discrete action, else [..., A]."""

    def mode(self) -> Tensor:
        """The likeliest actions, shaped as `sample` shapes them."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability, or log-density, of each action: [...], in nats."""

    def entropy(self) -> Tensor:
        """Entropy of each distribution: [...], in nats."""

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) of each pair: [...], in nats."""


class Categorical:
    """One of n actions, from unnormalised log-probabilities [..., n]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self._logp: Tensor | None = None

    @property
    def logp(self) -> Tensor:
        """Normalised log-probabilities [..., n]."""
        if self._logp is None:
            self._logp = self.logits.log_softmax(-1)
        return self._logp

    def sample(self, rng: torch.Generator) -> Tensor:
        """By the Gumbel-max trick, which needs no normalisation: -log of an exponential is a Gumbel variate."""
        noise = torch.empty_like(self.logits).exponential_(generator=rng)
        return (self.logits - noise.log_()).argmax(-1)

    def mode(self) -> Tensor:
        """See Distribution."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """See Distribution."""
        return self.logp.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """See Distribution."""
        return -(self.logp.exp() * self.logp).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """See Distribution."""
        return (self.logp.exp() * (self.logp - other.logp)).sum(-1)


class MultiCategorical:
    """Several independent choices, from their logits side by side [..., sum(sizes)]."""

    def __init__(self, logits: Tensor, sizes: list[int]) -> None:
        self.parts = [Categorical(part) for part in torch.split(logits, sizes, -1)]

    def sample(self, rng: torch.Generator) -> Tensor:
        """See Distribution."""
        return torch.stack([part.sample(rng) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """See Distribution."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """See Distribution."""
        return torch.stack([p.log_prob(a) for p, a in zip(self.parts, action.unbind(-1), strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """See Distribution."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "MultiCategorical") -> Tensor:
        """See Distribution."""
        return torch.stack([p.kl(q) for p, q in zip(self.parts, other.parts, strict=True)]).sum(0)


class DiagonalGaussian:
    """Independent normal variates, from means and log standard deviations side by side [..., 2 A]."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, self.log_std = parameters.chunk(2, -1)

    def sample(self, rng: torch.Generator) -> Tensor:
        """See Distribution."""
        noise = torch.empty_like(self.mean).normal_(generator=rng)
        return self.mean + noise * self.log_std.exp()

    def mode(self) -> Tensor:
        """See Distribution."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """See Distribution."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * LOG_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        """See Distribution."""
        return (self.log_std + 0.5 + 0.5 * LOG_TWO_PI).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """See Distribution."""
        spread = ((2 * self.log_std).exp() + (self.mean - other.mean).square()) * (-2 * other.log_std).exp()
        return (other.log_std - self.log_std + 0.5 * spread - 0.5).sum(-1)


@dataclass(frozen=True)
class Family:
    """How actions of one space are distributed and handed to its environment."""

    outputs: int
    """Numbers that the policy network puts out for one observation."""
    gaussian: bool
    """Whether parameters are those outputs as means, followed by as many log standard deviations."""
    make: Callable[[Tensor], "Distribution"]
    """A batch of distributions from parameters [..., P]."""
    shape: tuple[int, ...]
    """Shape of one action as `make`'s distributions give it."""
    to_env: Callable[[NDArray[Any]], NDArray[Any]]
    """A batch of actions [B, *shape] as the environment takes them."""


def family(space: Space[Any]) -> Family:
    """The family for an action space. Raises RunError for one that no algorithm here can act in."""
    match space:
        case spaces.Discrete():
            start, dtype = space.start, space.dtype
            return Family(int(space.n), False, Categorical, (), lambda a: (a + start).astype(dtype, copy=False))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            sizes, first, kind = space.nvec.tolist(), space.start, space.dtype
            return Family(
                sum(sizes),
                False,
                lambda logits: MultiCategorical(logits, sizes),
                (len(sizes),),
                lambda a: (a + first).astype(kind, copy=False),
            )
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            return _gaussian(space)
    raise RunError(
        "InvalidOption",
        f"the action space {space} is not supported: use Discrete, MultiDiscrete (one-dimensional) or a Box of floats",
        permanent=True,
    )


def _gaussian(space: spaces.Box) -> Family:
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    size = int(np.prod(shape))

    def to_env(action: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.clip(action.reshape(-1, *shape), low, high), dtype)

    return Family(size, True, DiagonalGaussian, (size,), to_env)
