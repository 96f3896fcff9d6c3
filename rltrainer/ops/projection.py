"""Distributions over returns on fixed atoms: Bellemare et al. 2017, arXiv 1707.06887 (C51)."""

import torch
from torch import Tensor


def support(v_min: float, v_max: float, num_atoms: int) -> Tensor:
    """The returns z_i that the atoms stand for, equally far apart: [A], in units of return."""
    return torch.linspace(v_min, v_max, num_atoms)


def project(probabilities: Tensor, r: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """The distribution of r + discount z, with z as in `probabilities`, brought back to the support: algorithm 1.

    `probabilities` [N, A] of what follows; `r` and `discount` [N], the discount 0 where the episode terminated;
    `support` [A], of two atoms or more, equally far apart. Returns probabilities [N, A]; each atom's mass goes to its
    two neighbors by nearness, and all of it to an atom that it meets exactly.
    """
    low, high = support[0], support[-1]
    width = (high - low) / (len(support) - 1)
    z = torch.addcmul(r[:, None], discount[:, None], support).clamp(low, high)
    position = (z - low) / width
    below = position.floor()
    upper_mass = probabilities * (position - below)
    lower = below.long().clamp(max=len(support) - 1)  # rounding may lead past the last atom
    upper = (lower + 1).clamp(max=len(support) - 1)
    projected = torch.zeros_like(probabilities).scatter_add_(1, lower, probabilities - upper_mass)
    return projected.scatter_add_(1, upper, upper_mass)
