"""Returns and advantages over trajectories laid out [T, B]: time first, then environments."""

import torch
from torch import Tensor


def gae(r_t: Tensor, discount_t: Tensor, v_t: Tensor, v_tp1: Tensor, trace_t: Tensor) -> Tensor:
    """Generalised advantage estimates: Schulman et al. 2016, arXiv 1506.02438, eq. 16.

    All [T, B]. `discount_t` is gamma, or 0 where the episode terminated; `v_tp1` is the value of the observation that
    followed, the final one where the episode was truncated; `trace_t` is lambda, or 0 where the episode ended, either
    way.
    Returns the advantages [T, B], in units of reward; v_t + them are the lambda-returns.
    """
    delta_t = r_t + discount_t * v_tp1 - v_t
    carry_t = discount_t * trace_t
    adv_t = torch.empty_like(delta_t)
    adv = torch.zeros_like(delta_t[0])
    for delta, carry, out in zip(
        reversed(delta_t.unbind()), reversed(carry_t.unbind()), reversed(adv_t.unbind()), strict=True
    ):
        adv = torch.addcmul(delta, carry, adv, out=out)
    return adv_t
