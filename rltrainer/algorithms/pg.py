"""REINFORCE: Williams 1992, doi 10.1007/BF00992696."""

import torch
from torch import Tensor

from rltrainer.algorithms.on_policy import mode, sample
from rltrainer.api.options.on_policy import PGOptions
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks import PolicyNetwork
from rltrainer.ops.losses import policy_gradient, standardize
from rltrainer.ops.returns import gae
from rltrainer.ops.schedules import at


def returns(batch: Batch, gamma: float) -> tuple[Tensor, Tensor]:
    """Rewards to go [T, B], and the constant b that is their mean over the valid steps.

    Where a fragment or a time limit cuts an episode, the rewards after the cut are unknown: b stands in for them, as
    the value function of a critic that knows nothing of the state. A return is x_t + c_t b then, with x_t the rewards
    up to the cut, discounted, and c_t the discount of what follows it, so that b = mean(x) / (1 - mean(c)).
    """
    none, trace, discount = torch.zeros_like(batch.r), batch.trace(), batch.discount(gamma)
    cut = batch.truncated.to(batch.r.dtype)
    cut[-1] = 1.0
    x = gae(batch.r, discount, none, none, trace)
    c = gae(none, discount, none, cut, trace)
    b = x[batch.valid].mean() / (1 - c[batch.valid].mean()).clamp_min(1e-3)
    return x + c * b, b


def update(learner: Learner, batch: Batch, cfg: PGOptions) -> dict[str, Tensor]:
    """One step along the gradient of the expected return, with the mean return as its baseline: eq. 11."""
    nets: PolicyNetwork = learner.nets
    to_go, baseline = returns(batch, cfg.gamma)
    adv = (to_go - baseline)[batch.valid]
    dist = nets.action_distribution.make(nets(batch.obs[:-1][batch.valid]))
    adv = standardize(adv) if cfg.normalize_advantages else adv
    policy = policy_gradient(dist.log_prob(batch.a[batch.valid]), adv)
    entropy = dist.entropy().mean()
    total = policy - at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps) * entropy
    norm = learner.minimise(total)
    return {"loss": total, "policy_loss": policy, "entropy": entropy, "baseline": baseline, "grad_norm": norm}


PG = Algorithm(
    name="PG",
    options=PGOptions,
    nets=PolicyNetwork,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},
    strategy=synchronous,
)
