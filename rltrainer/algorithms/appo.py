"""Asynchronous PPO: IMPALA's queue with PPO's surrogate, steadied by a target network.

Luo et al. 2020 (IMPACT), arXiv 1912.00167.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.algorithms.impala import IMPALA, corrected
from rltrainer.algorithms.on_policy import Columns, minibatches, predict, samples, whole
from rltrainer.algorithms.ppo import adapted, surrogate_gradient
from rltrainer.api.options.on_policy import APPOOptions
from rltrainer.core.fragment import Batch
from rltrainer.learning.learner import Learner
from rltrainer.networks import ActorCritic
from rltrainer.ops.losses import clipped_surrogate, standardize, value_loss, value_slope
from rltrainer.ops.schedules import at

RHO = 2.0
"""Largest ratio of the worker's policy to the target's, section 3.1."""


@torch.no_grad()
def judge(learner: Learner, batch: Batch, cfg: APPOOptions) -> Columns:
    """The steps of `batch` as the target network sees them; its policy is what V-trace corrects towards.

    Returns obs, a, adv, target, behaviour (log-probabilities of the worker's policy), share (its ratio to the target's
    policy, clipped to RHO) and parameters (of the target's policy).
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
        "behaviour": batch.extras["logp"],
        "share": (batch.extras["logp"] - logp).exp().clamp(max=RHO),
        "parameters": parameters[:-1],
    }
    return samples(batch, columns)


def step(learner: Learner, part: Columns, cfg: APPOOptions, entropy_coeff: float, kl_coeff: float) -> dict[str, Tensor]:
    """One step down eq. 2 with a value loss, an entropy bonus and the KL penalty from the target's policy, over a
    minibatch of [N, ...]. Returns what to report."""
    nets: ActorCritic = learner.nets
    parameters, v = predict(nets, part)
    with torch.no_grad():
        dist, target = nets.action_distribution.make(parameters), nets.action_distribution.make(part["parameters"])
        ratio = part["share"] * (dist.log_prob(part["a"]) - part["behaviour"]).exp()
        adv = standardize(part["adv"]) if cfg.normalize_advantages else part["adv"]
        gradient = surrogate_gradient(dist, target, part["a"], ratio, adv, cfg.clip, entropy_coeff, kl_coeff)
        policy, value = clipped_surrogate(ratio, adv, cfg.clip), value_loss(v, part["target"])
        entropy, kl = dist.entropy().mean(), target.kl(dist).mean()
        by_v = cfg.vf_coeff * value_slope(v, part["target"])
    norm = learner.descend([parameters, v], [gradient, by_v])
    total = policy + cfg.vf_coeff * value - entropy_coeff * entropy
    total = total + kl_coeff * kl if kl_coeff else total
    return {"loss": total, "policy_loss": policy, "vf_loss": value, "entropy": entropy, "kl": kl, "grad_norm": norm}


def update(learner: Learner, batch: Batch, cfg: APPOOptions) -> dict[str, Tensor | float]:
    """Several epochs over one batch, and now and then before one the target network: algorithm 1."""
    updates = learner.counters.get("updates", 0)  # since the target moved
    if updates >= cfg.target_update_freq:
        learner.update_targets(cfg.tau)
        updates = 0
    columns = judge(learner, batch, cfg)
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    kl_coeff = learner.counters.setdefault("kl_coeff", cfg.kl_coeff)
    for _ in range(cfg.epochs):
        for part in minibatches(columns, cfg.minibatch_size, learner.rng):
            found = learner.recorded(step, part, entropy_coeff, kl_coeff)
            updates += 1
    learner.counters["updates"] = updates
    if cfg.kl_coeff:
        learner.counters["kl_coeff"] = adapted(kl_coeff, found["kl"].item(), cfg.kl_target)
    return {**found, "kl_coeff": kl_coeff, "share": whole(columns)["share"].mean()}


APPO = replace(IMPALA, name="APPO", options=APPOOptions, update=update, targets=("",))
