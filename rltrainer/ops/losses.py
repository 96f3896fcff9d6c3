"""Losses as free functions of vectors [N], and the derivatives of some in closed form.

`*_grad` is the derivative by each of the numbers that the loss is a function of. With it at hand no graph is built,
which on small networks takes longer than both.
"""

import torch
from torch import Tensor


def policy_gradient(logp_t: Tensor, adv_t: Tensor) -> Tensor:
    """-E[log pi(a|s) A]: Sutton et al. 1999, eq. 2; Mnih et al. 2016, section 4.3. All [N]; returns a scalar."""
    return -(logp_t * adv_t).mean()


def clipped_surrogate(ratio_t: Tensor, adv_t: Tensor, clip: float) -> Tensor:
    """-L^CLIP: Schulman et al. 2017, arXiv 1707.06347, eq. 7.

    `ratio_t` is pi(a|s) / pi_old(a|s), both [N]; `clip` has no unit. Returns a scalar. The clipped term is the
    smaller one only on the side that the advantage pulls to, where it is (1 +- clip) A, whatever the ratio.
    """
    return -torch.minimum(ratio_t * adv_t, torch.add(adv_t, adv_t.abs(), alpha=clip)).mean()


def clipped_surrogate_grad(ratio_t: Tensor, adv_t: Tensor, clip: float) -> Tensor:
    """Derivative of `clipped_surrogate` by each log-probability of the policy that is learned, [N].

    It is -ratio A / N, and 0 where the clipped term is the smaller one.
    """
    gain_t = ratio_t * adv_t
    counts_t = gain_t < torch.add(adv_t, adv_t.abs(), alpha=clip)
    return gain_t.mul_(counts_t).mul_(-1 / len(ratio_t))


def value_loss(v_t: Tensor, target_t: Tensor) -> Tensor:
    """Half the mean squared error of values against their targets. Both [N]; returns a scalar."""
    return 0.5 * torch.nn.functional.mse_loss(v_t, target_t)


def value_loss_grad(v_t: Tensor, target_t: Tensor) -> Tensor:
    """Derivative of `value_loss` by each value, [N], in units of return."""
    return (v_t - target_t).mul_(1 / len(v_t))


def clipped_value_loss(v_t: Tensor, v_old_t: Tensor, target_t: Tensor, clip: float) -> Tensor:
    """`value_loss`, but a value that has moved by more than `clip` from `v_old_t` gains nothing by moving further.

    The larger of both losses counts, sample by sample, as in OpenAI's baselines (ppo2). All [N]; `clip` in units of
    return. Returns a scalar.
    """
    near_t = v_old_t + (v_t - v_old_t).clamp(-clip, clip)
    return 0.5 * torch.maximum((v_t - target_t).square(), (near_t - target_t).square()).mean()


def clipped_value_loss_grad(v_t: Tensor, v_old_t: Tensor, target_t: Tensor, clip: float) -> Tensor:
    """Derivative of `clipped_value_loss` by each value, [N], in units of return.

    It is that of `value_loss`, and 0 where the value has moved too far and the clipped error is the larger one.
    """
    moved_t, error_t = v_t - v_old_t, v_t - target_t
    near_t = moved_t.clamp(-clip, clip)
    held_t = (near_t != moved_t) & ((v_old_t + near_t - target_t).square() > error_t.square())
    return error_t.masked_fill_(held_t, 0.0).mul_(1 / len(v_t))


def standardize(x_t: Tensor) -> Tensor:
    """`x_t` [N] shifted to mean 0 and scaled to deviation 1. One sample alone becomes 0."""
    return torch.nn.functional.layer_norm(x_t, x_t.shape, eps=1e-16)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """error^2 / 2, but linear beyond `delta`: its gradient is the error clipped to +-delta, as Mnih et al. 2015 clip it
    (doi 10.1038/nature14236, methods). Of any shape and elementwise, to be weighted before the mean."""
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def huber_grad(error: Tensor, delta: float = 1.0) -> Tensor:
    """Derivative of each `huber` by its error, of the same shape."""
    return error.clamp(-delta, delta)
