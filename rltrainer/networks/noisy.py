"""Exploration by learned noise on the weights: Fortunato et al. 2018, arXiv 1706.10295."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rltrainer.ops.exploration import standard_normal


class NoisyLinear(nn.Module):
    """A linear layer [..., inputs] -> [..., outputs] with factorized Gaussian noise on its weights and bias.

    Eq. 9: y = (weight + weight_sigma * w) x + bias + bias_sigma * b, where w_ji = f(e_j) f(e_i) and b_j = f(e_j) as in
    eq. 10 and 11. Since w is a product, it needs no matrix: the noise of the inputs is put on x, that of the outputs on
    the result. The first weights are those of section 3.2, their deviation `sigma` / sqrt(inputs).

    The noise is 0 until the first `resample`, and is neither learned nor saved.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        super().__init__()
        bound = max(1, inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(outputs), persistent=False)
        self.noise_enabled = True

    def resample(self, rng: torch.Generator) -> None:
        """Draw the noise anew: f(e) = sgn(e) sqrt(|e|) of standard normal e."""
        inputs, outputs = len(self.noise_in), len(self.noise_out)
        e = standard_normal((inputs + outputs,), rng, self.noise_in)
        noise = e.abs().sqrt_().copysign_(e)
        self.noise_in.copy_(noise[:inputs])
        self.noise_out.copy_(noise[inputs:])

    def forward(self, x: Tensor) -> Tensor:
        """Return y [..., outputs] of x [..., inputs]: eq. 9, or without `noise_enabled` by the mean weights alone."""
        mean = linear(x, self.weight, self.bias)
        if not self.noise_enabled:
            return mean
        return torch.addcmul(mean, self.noise_out, linear(x * self.noise_in, self.weight_sigma, self.bias_sigma))


@contextmanager
def without_noise(layers: Iterable[NoisyLinear]) -> Iterator[None]:
    """Let `layers` use their mean weights alone within it."""
    before = [(layer, layer.noise_enabled) for layer in layers]
    try:
        for layer, _ in before:
            layer.noise_enabled = False
        yield
    finally:
        for layer, enabled in before:
            layer.noise_enabled = enabled
