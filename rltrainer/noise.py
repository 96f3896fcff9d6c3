"""Noise for exploration with continuous actions."""

import torch
from torch import Tensor


def gaussian(like: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Independent normal noise of deviation `sigma`, with the shape, type and device of `like`."""
    return sigma * torch.randn(like.shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)


def ornstein_uhlenbeck(x_tm1: Tensor, theta: float, sigma: float, rng: torch.Generator) -> Tensor:
    """One step of noise that is correlated in time: Uhlenbeck and Ornstein 1930, doi 10.1103/PhysRev.36.823.

    x_t = (1 - theta) x_tm1 + sigma N(0, 1), a step being the unit of time, as in Lillicrap et al. 2016,
    arXiv 1509.02971, section 7. `x_tm1` is [B, A], zeros where an episode begins; its deviation settles at
    sigma / sqrt(1 - (1 - theta)^2). Returns x_t.
    """
    return (1 - theta) * x_tm1 + gaussian(x_tm1, sigma, rng)
