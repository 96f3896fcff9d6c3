"""Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3 with all actors in step."""

from torch import Tensor

from rltrainer.algorithms.on_policy import (
    Columns,
    advantages,
    explained_variance,
    initial_state,
    mode,
    sample,
)
from rltrainer.api.options import A2COptions
from rltrainer.core.algorithm import Algorithm, LearnerAPI, Losses
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
from rltrainer.networks import ActorCritic
from rltrainer.ops.distributions import Distribution
from rltrainer.ops.schedules import at


def loss(outputs: tuple[Distribution, Tensor], batch: Columns, cfg: A2COptions, entropy_coeff: float) -> Losses:
    """-log pi(a|s) A, half the squared error of V(s), and an entropy bonus: section 4.3 and algorithm S3.

    `outputs` are the policy's distributions and the values, [T, B]; `batch` has the actions a, the advantages adv, the
    returns target and the weight of each step, which sums to 1 over the valid ones. Values are in units of return.
    """
    dist, v = outputs
    weight = batch["weight"]
    policy_loss = -(weight * dist.log_prob(batch["a"]) * batch["adv"]).sum()
    vf_loss = 0.5 * (weight * (v - batch["target"]).square()).sum()
    entropy = (weight * dist.entropy()).sum()
    total = policy_loss + cfg.vf_coeff * vf_loss - entropy_coeff * entropy
    return {"loss": total, "policy_loss": policy_loss, "vf_loss": vf_loss, "entropy": entropy}


def update(learner: LearnerAPI, batch: Batch, cfg: A2COptions) -> Losses:
    """Take one step over a whole batch."""
    parameters, v = learner.nets(batch.obs, batch.state, batch.begins)
    dist = learner.nets.action_distribution.make(parameters[:-1])
    adv = advantages(batch, v.detach(), cfg)
    target, weight = adv + v[:-1].detach(), batch.valid / batch.valid.sum()
    samples = {"a": batch.a, "adv": adv, "target": target, "weight": weight}
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    losses = learner.minimize(loss, (dist, v[:-1]), samples, entropy_coeff)
    explained = explained_variance(v[:-1].detach()[batch.valid], target[batch.valid])
    return {**losses, "explained_variance": explained}


A2C = Algorithm(
    name="A2C",
    options=A2COptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam()},  # the paper's RMSprop takes outsized first steps, until its average has warmed up
    strategy=synchronous,
    initial_state=initial_state,
)
