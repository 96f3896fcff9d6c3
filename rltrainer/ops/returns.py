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
    return _accumulate(r_t + discount_t * v_tp1 - v_t, discount_t * trace_t)


@torch.no_grad()
def vtrace(
    log_rho_t: Tensor,
    discount_t: Tensor,
    trace_t: Tensor,
    r_t: Tensor,
    v_t: Tensor,
    v_tp1: Tensor,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace: Espeholt et al. 2018, arXiv 1802.01561, eq. 1, with the lambda of remark 2.

    All [T, B]. `log_rho_t` is log pi(a|s) - log mu(a|s), of the policy that learns and the one that acted, in nats;
    the others are as in `gae`. `clip_rho` and `clip_c` are the largest weights of a temporal difference and of a trace.

    Returns the targets of the values, vs_t, and the advantages of the policy gradient, both [T, B], in units of reward
    and without gradients. The advantages are rho_t (r_t + discount_t vs_{t+1} - v_t), section 4.2, where vs_{t+1} is
    v_{t+1} at an end, and is mixed with it by lambda before: so both are GAE's where pi is mu.
    """
    rho_t = log_rho_t.exp()
    clipped_t = rho_t.clamp(max=clip_rho)
    delta_t = clipped_t * (r_t + discount_t * v_tp1 - v_t)
    error_t = _accumulate(delta_t, discount_t * trace_t * rho_t.clamp(max=clip_c))  # vs_t - v_t
    adv_t = delta_t.clone()
    adv_t[:-1] += clipped_t[:-1] * discount_t[:-1] * trace_t[:-1] * error_t[1:]
    return v_t + error_t, adv_t


def n_step_returns(r_t: Tensor, discount_t: Tensor, trace_t: Tensor, v_tp1: Tensor, n: int) -> Tensor:
    """r_t + gamma r_{t+1} + ... + gamma^n v_{t+n}: Sutton and Barto 2018, eq. 7.1.

    All [T, B], as in `gae`; `trace_t` is 1, or 0 where the episode ended. Returns [T, B], in units of reward. At an end
    of the episode or of the trajectory fewer rewards are summed, and the value of what followed them is used.
    """
    return_t = r_t + discount_t * v_tp1
    for _ in range(n - 1):
        next_t = v_tp1.clone()
        next_t[:-1] = torch.lerp(v_tp1[:-1], return_t[1:], trace_t[:-1])
        return_t = r_t + discount_t * next_t
    return return_t


def _accumulate(x_t: Tensor, carry_t: Tensor) -> Tensor:
    """y_t = x_t + carry_t y_{t+1}, from the last step back; all [T, B]."""
    y_t = torch.empty_like(x_t)
    y = torch.zeros_like(x_t[0])
    for x, carry, out in zip(reversed(x_t.unbind()), reversed(carry_t.unbind()), reversed(y_t.unbind()), strict=True):
        y = torch.addcmul(x, carry, y, out=out)
    return y_t
