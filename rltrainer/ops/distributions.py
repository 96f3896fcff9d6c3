"""Distributions over actions, for many small calls: no argument checks, nothing computed before it is needed.

Each is made from one tensor of parameters [..., P], so that a batch of old policies is one tensor too.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from rltrainer.ops.exploration import standard_normal

LOG_TWO_PI = math.log(2 * math.pi)
ILLEGAL = -1e9
"""Logit of an action that may not be taken: its probability is exactly 0, and yet no entropy or KL is infinite."""
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Bounds of a squashed Gaussian's log standard deviations, before the tanh."""


class Distribution(Protocol):
    """A batch of distributions [...] over actions."""

    parameters: Tensor
    """The parameters that it was made of, [..., P]."""

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw actions with `rng`: [...] for one discrete action, else [..., A]."""

    def mode(self) -> Tensor:
        """Return the likeliest actions, shaped as `sample` shapes them."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability, or log-density, of each action: [...], in nats."""

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate by the parameters, [..., P], a loss whose derivatives by `log_prob(action)` and `entropy()`
        are `dlogp` [...] and `dentropy`, [...] or one for all."""

    def kl_grad(self, other: Self, dkl: float) -> Tensor:
        """Differentiate by the parameters of `other`, [..., P], a loss whose derivative by each `kl` is `dkl`."""


class Categorical:
    """One of n actions, from unnormalized log-probabilities [..., n]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = self.parameters = logits
        self._logp: Tensor | None = None

    @property
    def logp(self) -> Tensor:
        """Normalized log-probabilities [..., n]."""
        known = self._logp
        needs_graph = torch.is_grad_enabled() and self.logits.requires_grad
        if known is None or (needs_graph and not known.requires_grad):
            known = self._logp = self.logits.log_softmax(-1)
        return known

    def sample(self, rng: torch.Generator) -> Tensor:
        """By the Gumbel-max trick, which needs no normalization: -log of an exponential is a Gumbel variate."""
        noise = torch.empty_like(self.logits, device=rng.device).exponential_(generator=rng)
        return (self.logits - noise.log_().to(self.logits.device)).argmax(-1)

    def mode(self) -> Tensor:
        """Return the likeliest actions."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of each action: [...], in nats."""
        return self.logp.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""
        return -self.expectation(self.logp)

    def kl(self, other: "Categorical") -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""
        return self.expectation(self.logp - other.logp)

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate: of log pi(a) by a logit, 1 - p where it is the action's, else -p; of H, -p (log p + H)."""
        p, dlogp = self.logp.exp(), dlogp.unsqueeze(-1)
        gradient = (p * -dlogp).scatter_add_(-1, action.long().unsqueeze(-1), dlogp)
        if isinstance(dentropy, Tensor) or dentropy:
            plogp = p * self.logp
            gradient -= torch.addcmul(plogp, p, plogp.sum(-1, keepdim=True), value=-1) * _each(dentropy)
        return gradient

    def kl_grad(self, other: "Categorical", dkl: float) -> Tensor:
        """Differentiate, from the derivative by each `kl`, by the parameters of `other`: [..., P]."""
        return dkl * (other.logp.exp() - self.logp.exp())

    def expectation(self, x: Tensor) -> Tensor:
        """The mean [...] of what is `x` [..., n] of each action."""
        return (self.logp.exp() * x).sum(-1)


class MultiCategorical:
    """Several independent choices, from their logits side by side [..., sum(sizes)]."""

    def __init__(self, logits: Tensor, sizes: list[int]) -> None:
        self.parameters = logits
        self.parts = [Categorical(part) for part in torch.split(logits, sizes, -1)]

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw actions with `rng`."""
        return torch.stack([part.sample(rng) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """Return the likeliest actions."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of each action: [...], in nats."""
        return torch.stack([p.log_prob(a) for p, a in zip(self.parts, action.unbind(-1), strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "MultiCategorical") -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""
        return torch.stack([p.kl(q) for p, q in zip(self.parts, other.parts, strict=True)]).sum(0)

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate, from the derivatives by log-probabilities and entropies: [..., P]."""
        pairs = zip(self.parts, action.unbind(-1), strict=True)
        return torch.cat([part.grad(a, dlogp, dentropy) for part, a in pairs], -1)

    def kl_grad(self, other: "MultiCategorical", dkl: float) -> Tensor:
        """Differentiate, from the derivative by each `kl`, by the parameters of `other`: [..., P]."""
        return torch.cat([p.kl_grad(q, dkl) for p, q in zip(self.parts, other.parts, strict=True)], -1)


class Bernoullis:
    """Several independent bits, from the logits [..., k] of their being 1."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = self.parameters = logits

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw actions with `rng`."""
        noise = torch.empty_like(self.logits, device=rng.device).uniform_(generator=rng)
        return (noise.to(self.logits.device) < self.logits.sigmoid()).to(torch.int8)

    def mode(self) -> Tensor:
        """Return the likeliest actions."""
        return (self.logits > 0).to(torch.int8)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of each action: [...], in nats."""
        return logsigmoid(self.logits * (2 * action - 1)).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""
        return (self.logits.sigmoid() * -self.logits - logsigmoid(-self.logits)).sum(-1)

    def kl(self, other: "Bernoullis") -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""
        shift = self.logits.sigmoid() * (self.logits - other.logits)
        return (shift + logsigmoid(-self.logits) - logsigmoid(-other.logits)).sum(-1)

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate: of log pi(a) by a logit, a - p; of H, -logit p (1 - p)."""
        p = self.logits.sigmoid()
        return dlogp.unsqueeze(-1) * (action - p) - _each(dentropy) * (self.logits * p * (1 - p))

    def kl_grad(self, other: "Bernoullis", dkl: float) -> Tensor:
        """Differentiate, from the derivative by each `kl`, by the parameters of `other`: [..., P]."""
        return dkl * (other.logits.sigmoid() - self.logits.sigmoid())


class DiagonalGaussian:
    """Independent normal variates, from means and log standard deviations side by side [..., 2 A]."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, self.log_std = parameters.chunk(2, -1)

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw actions with `rng`."""
        return self.mean + standard_normal(self.mean.shape, rng, self.mean) * self.log_std.exp()

    def mode(self) -> Tensor:
        """Return the likeliest actions."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of each action: [...], in nats."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * LOG_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""
        return (self.log_std + 0.5 + 0.5 * LOG_TWO_PI).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""
        spread = ((2 * self.log_std).exp() + (self.mean - other.mean).square()) * (-2 * other.log_std).exp()
        return (other.log_std - self.log_std + 0.5 * spread - 0.5).sum(-1)

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate: with z = (a - mean) / std, of log pi(a), z / std and z^2 - 1; of H, 0 and 1."""
        precision, dlogp = (-self.log_std).exp(), dlogp.unsqueeze(-1)
        z = (action - self.mean) * precision
        return torch.cat([dlogp * z * precision, dlogp * (z.square() - 1) + _each(dentropy)], -1)

    def kl_grad(self, other: "DiagonalGaussian", dkl: float) -> Tensor:
        """Differentiate, from the derivative by each `kl`, by the parameters of `other`: [..., P]."""
        precision, apart = (-2 * other.log_std).exp(), other.mean - self.mean
        spread = ((2 * self.log_std).exp() + apart.square()) * precision
        return dkl * torch.cat([apart * precision, 1 - spread], -1)


def _each(weight: Tensor | float) -> Tensor | float:
    """One weight for all, or one for each distribution [...], as all of its parameters [..., P] take it."""
    return weight.unsqueeze(-1) if isinstance(weight, Tensor) else weight


class SquashedGaussian:
    """tanh of independent normal variates, from their means and log standard deviations side by side [..., 2 A].

    Haarnoja et al. 2018, arXiv 1812.05905, appendix C. Actions are in [-1, 1]^A, and densities are over that cube.
    The entropy has no closed form: it is the mean of -log_prob. Log standard deviations are kept within LOG_STD_MIN and
    LOG_STD_MAX, as in the reference code of SAC.
    """

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, log_std = parameters.chunk(2, -1)
        self.log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, rng: torch.Generator) -> Tensor:
        """Actions [..., A] drawn with `rng`."""
        return (self.mean + standard_normal(self.mean.shape, rng, self.mean) * self.log_std.exp()).tanh()

    def mode(self) -> Tensor:
        """The tanh of the means [..., A], which is the median of each action."""
        return self.mean.tanh()

    def drawn(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The actions [..., A] that standard normal variates [..., A] stand for, and their log-densities [...], in
        nats; both differentiable in the parameters."""
        u = self.mean + noise * self.log_std.exp()
        return u.tanh(), self._log_density(noise, u)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [...] of actions [..., A], in nats. Those on the edge of the cube count as just inside it."""
        limit = 1 - torch.finfo(action.dtype).eps
        u = action.clamp(-limit, limit).atanh()
        return self._log_density((u - self.mean) * (-self.log_std).exp(), u)

    def _log_density(self, z: Tensor, u: Tensor) -> Tensor:
        """Of tanh(u), where z is u in standard deviations from the mean: eq. 26."""
        return (-0.5 * z.square() - self.log_std - 0.5 * LOG_TWO_PI - log_tanh_grad(u)).sum(-1)


def log_tanh_grad(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), elementwise. With 1 - tanh(u)^2 = 4 / (e^u + e^-u)^2 nothing cancels, however large u is."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def masked(logits: Tensor, legal: Tensor) -> Tensor:
    """`logits` [..., n] with ILLEGAL where `legal` [..., n], of any dtype, is 0. Nothing legal leaves all alike."""
    return logits.masked_fill(legal == 0, ILLEGAL)


class Product:
    """Independent distributions, whose actions are floats side by side [..., A]."""

    def __init__(
        self,
        parameters: Tensor,
        parts: Sequence[Distribution],
        shapes: Sequence[tuple[int, ...]],
        outputs: Sequence[int],
    ) -> None:
        """All `parameters`, the `parts` made of them, their actions' shapes, and how many of each one's parameters the
        network puts out."""
        self.parameters, self.parts, self.shapes, self.outputs = parameters, parts, shapes, outputs

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw actions with `rng`."""
        return self._join([part.sample(rng) for part in self.parts])

    def mode(self) -> Tensor:
        """Return the likeliest actions."""
        return self._join([part.mode() for part in self.parts])

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of each action: [...], in nats."""
        return torch.stack([p.log_prob(a) for p, a in self._each(action)]).sum(0)

    def entropy(self) -> Tensor:
        """Return the entropy of each distribution: [...], in nats."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "Product") -> Tensor:
        """Return KL(self || other) of each pair: [...], in nats."""
        return torch.stack([p.kl(q) for p, q in zip(self.parts, other.parts, strict=True)]).sum(0)

    def grad(self, action: Tensor, dlogp: Tensor, dentropy: Tensor | float) -> Tensor:
        """Differentiate, from the derivatives by log-probabilities and entropies: [..., P]."""
        return self._in_order([p.grad(a, dlogp, dentropy) for p, a in self._each(action)])

    def kl_grad(self, other: "Product", dkl: float) -> Tensor:
        """Differentiate, from the derivative by each `kl`, by the parameters of `other`: [..., P]."""
        return self._in_order([p.kl_grad(q, dkl) for p, q in zip(self.parts, other.parts, strict=True)])

    def _each(self, action: Tensor) -> Iterator[tuple[Distribution, Tensor]]:
        """The parts with their actions."""
        pieces = torch.split(action, [math.prod(shape) for shape in self.shapes], -1)
        actions = (piece if shape else piece.squeeze(-1) for piece, shape in zip(pieces, self.shapes, strict=True))
        return zip(self.parts, actions, strict=True)

    def _in_order(self, gradients: list[Tensor]) -> Tensor:
        """Put the parts' gradients in the order of `ActionDistribution.make`: log standard deviations last."""
        pieces = [each.tensor_split([outputs], -1) for each, outputs in zip(gradients, self.outputs, strict=True)]
        return torch.cat([piece[i] for i in range(2) for piece in pieces], -1)

    def _join(self, actions: list[Tensor]) -> Tensor:
        columns = [a if shape else a.unsqueeze(-1) for a, shape in zip(actions, self.shapes, strict=True)]
        return torch.cat([column.float() for column in columns], -1)
