"""Asynchronous PPO: IMPALA's queue with PPO's surrogate, steadied by a target network.

Luo et al. 2020 (IMPACT), arXiv 1912.00167.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.algorithms.impala import IMPALA, corrected
from rltrainer.algorithms.on_policy import Columns, minibatches, predict, samples, whole
from rltrainer.algorithms.ppo import Outputs, adapt_kl_coeff
from rltrainer.api.options.on_policy import APPOOptions
from rltrainer.core.algorithm import LearnerAPI, Losses
from rltrainer.core.fragment import Batch
from rltrainer.networks import ActorCritic
from rltrainer.ops.distributions import Distribution
from rltrainer.ops.losses import clipped_surrogate, standardize, value_loss
from rltrainer.ops.schedules import at

RHO = 2.0
"""Largest ratio of the worker's policy to the target's, section 3.1."""


@torch.no_grad()
def target_batch(learner: LearnerAPI, batch: Batch, cfg: APPOOptions) -> Columns:
    """The steps of `batch` as the target network sees them; its policy is what V-trace corrects towards.

    Returns obs, a, adv, target, logp (of the worker's policy), share (its ratio to the target's policy, clipped to RHO)
    and parameters (of the target's policy).
    """
    nets: ActorCritic = learner.targets[""]
    parameters, v = nets(batch.obs, batch.state, batch.begins)
    logp = nets.action_distribution.make(parameters[:-1]).log_prob(batch.a)
    target, adv = corrected(batch, logp, v, cfg)
    columns = {
        "obs": batch.obs[:-1],
        "a": batch.a,
        "adv": adv,
        "target": target,
        "logp": batch.extras["logp"],
        "share": (batch.extras["logp"] - logp).exp().clamp(max=RHO),
        "parameters": parameters[:-1],
    }
    return samples(batch, columns)


def ratio_to_target(dist: Distribution, batch: Columns) -> Tensor:
    """min(worker / target, RHO) pi / worker, [N]: the ratio of eq. 2, pi / max(target, worker / RHO)."""
    ratio: Tensor = batch["share"] * (dist.log_prob(batch["a"]) - batch["logp"]).exp()
    return ratio


def loss(outputs: Outputs, batch: Columns, cfg: APPOOptions, entropy_coeff: float, kl_coeff: float) -> Losses:
    """The clipped surrogate of the ratio to the target's policy, eq. 2, with a value loss, an entropy bonus and the KL
    penalty from the target's policy.

    `batch` has, of each sample [N], what `target_batch` gives, and the target's distributions `old`.
    """
    dist, v = outputs
    policy_loss = clipped_surrogate(ratio_to_target(dist, batch), batch["adv"], cfg.clip)
    vf_loss, entropy = value_loss(v, batch["target"]), dist.entropy().mean()
    kl = batch["old"].kl(dist).mean()
    total = policy_loss + cfg.vf_coeff * vf_loss - entropy_coeff * entropy
    total = total + kl_coeff * kl if kl_coeff else total
    return {"loss": total, "policy_loss": policy_loss, "vf_loss": vf_loss, "entropy": entropy, "kl": kl}


def step(learner: LearnerAPI, part: Columns, cfg: APPOOptions, entropy_coeff: float, kl_coeff: float) -> Losses:
    """Take one step down the loss over a minibatch."""
    make = learner.nets.action_distribution.make
    parameters, v = predict(learner.nets, part)
    batch = {**part, "old": make(part["parameters"])}
    if cfg.normalize_advantages:
        batch["adv"] = standardize(part["adv"])
    return learner.minimize(loss, (make(parameters), v), batch, entropy_coeff, kl_coeff)


def update(learner: LearnerAPI, batch: Batch, cfg: APPOOptions) -> dict[str, Tensor | float]:
    """Learn several epochs from one batch, and now and then before one renew the target network: algorithm 1."""
    if learner.counters.setdefault("updates", 0) >= cfg.target_update_freq:  # since the target moved
        learner.update_targets(cfg.tau)
        learner.counters["updates"] = 0
    columns = target_batch(learner, batch, cfg)
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    kl_coeff = learner.counters.setdefault("kl_coeff", cfg.kl_coeff)
    for _ in range(cfg.epochs):
        for part in minibatches(columns, cfg.minibatch_size, learner.rng):
            losses = learner.recorded(step, part, entropy_coeff, kl_coeff)
            learner.count_update()
    if cfg.kl_coeff:
        adapt_kl_coeff(learner, losses["kl"].item(), cfg)
    return {**losses, "kl_coeff": kl_coeff, "share": whole(columns)["share"].mean()}


APPO = replace(IMPALA, name="APPO", options=APPOOptions, update=update, targets=("",))
