"""Importance-weighted actor-learner architecture: Espeholt et al. 2018, arXiv 1802.01561."""

import torch
from torch import Tensor

from rltrainer.algorithms.on_policy import (
    Columns,
    explained_variance,
    initial_state,
    mode,
)
from rltrainer.api.options.on_policy import APPOOptions, IMPALAOptions
from rltrainer.core.algorithm import ActContext, Algorithm, LearnerAPI, Losses
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.asynchronous import asynchronous
from rltrainer.networks import ActorCritic
from rltrainer.ops.distributions import Distribution
from rltrainer.ops.returns import vtrace
from rltrainer.ops.schedules import at


def sample(nets: ActorCritic, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw actions, and note their log-probabilities: the learner's policy will be another one by then."""
    dist, context.state = nets.step(obs, context.state)
    action = dist.sample(context.rng)
    return action, {"logp": dist.log_prob(action)}


@torch.no_grad()
def corrected(batch: Batch, logp: Tensor, v: Tensor, cfg: IMPALAOptions | APPOOptions) -> tuple[Tensor, Tensor]:
    """V-trace's value targets and policy-gradient advantages, both [T, B]: eq. 1 and section 4.2.

    `logp` [T, B] are the log-probabilities that the policy learned gives the actions taken, `v` [T + 1, B] the values
    of all observations.
    """
    log_rho = logp - batch.extras["logp"]
    clips = cfg.vtrace_clip_rho, cfg.vtrace_clip_c
    return vtrace(log_rho, batch.discount(cfg.gamma), batch.trace(cfg.lambda_), batch.r, v[:-1], v[1:], *clips)


def loss(outputs: tuple[Distribution, Tensor], batch: Columns, cfg: IMPALAOptions, entropy_coeff: float) -> Losses:
    """The three losses of section 4.2: rho_s log pi(a_s) (r_s + gamma v_(s+1) - V(s)), (v_s - V(s))^2 / 2, entropy.

    `outputs` are the policy's distributions and the values V, [T, B]; `batch` has the actions a, V-trace's advantages
    adv (rho is in them) and targets v_s, and the weight of each step, which sums to 1 over the valid ones.
    """
    dist, v = outputs
    weight = batch["weight"]
    policy_loss = -(weight * dist.log_prob(batch["a"]) * batch["adv"]).sum()
    vf_loss = 0.5 * (weight * (v - batch["target"]).square()).sum()
    entropy = (weight * dist.entropy()).sum()
    total = policy_loss + cfg.vf_coeff * vf_loss - entropy_coeff * entropy
    return {"loss": total, "policy_loss": policy_loss, "vf_loss": vf_loss, "entropy": entropy}


def update(learner: LearnerAPI, batch: Batch, cfg: IMPALAOptions) -> Losses:
    """Take one step over a batch that older policies sampled."""
    parameters, v = learner.nets(batch.obs, batch.state, batch.begins)
    dist = learner.nets.action_distribution.make(parameters[:-1])
    logp = dist.log_prob(batch.a).detach()
    target, adv = corrected(batch, logp, v, cfg)
    samples = {"a": batch.a, "adv": adv, "target": target, "weight": batch.valid / batch.valid.sum()}
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    losses = learner.minimize(loss, (dist, v[:-1]), samples, entropy_coeff)
    explained = explained_variance(v[:-1].detach()[batch.valid], target[batch.valid])
    rho = (logp - batch.extras["logp"])[batch.valid].exp().mean()
    return {**losses, "explained_variance": explained, "rho": rho}


IMPALA = Algorithm(
    name="IMPALA",
    options=IMPALAOptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam()},
    strategy=asynchronous,
    initial_state=initial_state,
)
