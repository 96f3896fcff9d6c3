"""Numbers drawn from normal distributions, and noise for exploration with continuous actions made of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rltrainer.accel import cuda_graphs


def standard_normal(shape: Sequence[int], rng: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal variates of the type and on the device of `like`, drawn where `rng` lives, so that every device
    gets the same ones."""
    recording = cuda_graphs.current()
    if recording is not None:
        return recording.variates(shape, like)
    return torch.randn(shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)


def gaussian(like: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Independent normal noise of deviation `sigma`, with the shape, type and device of `like`."""
    return sigma * standard_normal(like.shape, rng, like)


def ornstein_uhlenbeck(x_tm1: Tensor, theta: float, sigma: float, rng: torch.Generator) -> Tensor:
    """One step of noise that is correlated in time: Uhlenbeck and Ornstein 1930, doi 10.1103/PhysRev.36.823.

    x_t = (1 - theta) x_tm1 + sigma N(0, 1), a step being the unit of time, as in Lillicrap et al. 2016,
    arXiv 1509.02971, section 7. `x_tm1` is [B, A], zeros where an episode begins; its deviation settles at
    sigma / sqrt(1 - (1 - theta)^2). Returns x_t.
    """
    return (1 - theta) * x_tm1 + gaussian(x_tm1, sigma, rng)
