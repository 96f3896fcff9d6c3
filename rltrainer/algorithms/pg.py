"""REINFORCE: Williams 1992, doi 10.1007/BF00992696."""

import torch
from torch import Tensor

from rltrainer.algorithms.on_policy import mode, sample
from rltrainer.api.options.on_policy import PGOptions
from rltrainer.core.algorithm import Algorithm, LearnerAPI, Losses
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
from rltrainer.networks import PolicyNetwork
from rltrainer.ops.distributions import Distribution
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


def loss(dist: Distribution, batch: dict[str, Tensor], cfg: PGOptions, entropy_coeff: float) -> Losses:
    """-log pi(a|s) (R - b), eq. 11 with the mean return as the baseline b, and an entropy bonus.

    `dist` are the policy's distributions of N steps; `batch` has their actions a and advantages adv = R - b, [N].
    """
    policy_loss = policy_gradient(dist.log_prob(batch["a"]), batch["adv"])
    entropy = dist.entropy().mean()
    return {"loss": policy_loss - entropy_coeff * entropy, "policy_loss": policy_loss, "entropy": entropy}


def update(learner: LearnerAPI, batch: Batch, cfg: PGOptions) -> Losses:
    """Take one step along the gradient of the expected return."""
    nets: PolicyNetwork = learner.nets
    to_go, baseline = returns(batch, cfg.gamma)
    adv = (to_go - baseline)[batch.valid]
    dist = nets.action_distribution.make(nets(batch.obs[:-1][batch.valid]))
    samples = {"a": batch.a[batch.valid], "adv": standardize(adv) if cfg.normalize_advantages else adv}
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    return {**learner.minimize(loss, dist, samples, entropy_coeff), "baseline": baseline}


PG = Algorithm(
    name="PG",
    options=PGOptions,
    nets=PolicyNetwork,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam()},
    strategy=synchronous,
)
