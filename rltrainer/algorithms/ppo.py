"""Proximal policy optimization: Schulman et al. 2017, arXiv 1707.06347."""

from typing import Any

import torch
from torch import Tensor

from rltrainer.algorithms.on_policy import (
    Columns,
    evaluate,
    explained_variance,
    initial_state,
    minibatches,
    mode,
    predict,
    sample,
    whole,
)
from rltrainer.api.options import PPOOptions
from rltrainer.api.options.groups import ClippedSurrogate
from rltrainer.core.algorithm import Algorithm, LearnerAPI, Losses
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.core.types import Metrics
from rltrainer.execution.synchronous import synchronous
from rltrainer.networks import ActorCritic
from rltrainer.ops.distributions import Distribution
from rltrainer.ops.losses import (
    clipped_surrogate,
    clipped_surrogate_grad,
    clipped_value_loss,
    clipped_value_loss_grad,
    standardize,
    value_loss,
    value_loss_grad,
)
from rltrainer.ops.schedules import at

KEPT = ("a", "logp", "target", "v", "parameters")
"""What a minibatch's report is made of, beside what the step returns."""
Outputs = tuple[Distribution, Tensor]
"""The policy's distributions and the values, in units of return, of N observations."""


def loss(
    outputs: Outputs, batch: Columns, cfg: PPOOptions, clip: float, entropy_coeff: float, kl_coeff: float
) -> Losses:
    """-L^(CLIP+VF+S), eq. 9, with the KL penalty of eq. 8.

    `batch` has, of each sample [N]: the action a, its log-probability logp when it was taken, the advantage adv, the
    lambda-return target and the value v of that time, and the distributions `old` that the action was drawn from.
    """
    dist, v = outputs
    ratio = (dist.log_prob(batch["a"]) - batch["logp"]).exp()
    policy_loss = clipped_surrogate(ratio, batch["adv"], clip)
    if cfg.vf_clip is None:
        vf_loss = value_loss(v, batch["target"])
    else:
        vf_loss = clipped_value_loss(v, batch["v"], batch["target"], cfg.vf_clip)
    entropy = dist.entropy().mean()
    total = policy_loss + cfg.vf_coeff * vf_loss - entropy_coeff * entropy
    if kl_coeff:
        total = total + kl_coeff * batch["old"].kl(dist).mean()
    return {"loss": total, "policy_loss": policy_loss, "vf_loss": vf_loss, "entropy": entropy}


def loss_grad(
    outputs: Outputs, batch: Columns, cfg: PPOOptions, clip: float, entropy_coeff: float, kl_coeff: float
) -> tuple[Tensor, Tensor]:
    """Derivative of `loss` in closed form, by the distributions' parameters [N, P] and the values [N]."""
    dist, v = outputs
    ratio = (dist.log_prob(batch["a"]) - batch["logp"]).exp()
    dlogp = clipped_surrogate_grad(ratio, batch["adv"], clip)
    d_parameters = dist.grad(batch["a"], dlogp, -entropy_coeff / len(ratio))
    if kl_coeff:
        d_parameters = d_parameters + batch["old"].kl_grad(dist, kl_coeff / len(ratio))
    if cfg.vf_clip is None:
        dv = value_loss_grad(v, batch["target"])
    else:
        dv = clipped_value_loss_grad(v, batch["v"], batch["target"], cfg.vf_clip)
    return d_parameters, cfg.vf_coeff * dv


def step(
    learner: LearnerAPI, part: Columns, cfg: PPOOptions, clip: float, entropy_coeff: float, kl_coeff: float
) -> dict[str, Tensor]:
    """Take one step down the loss over a minibatch. Returns the networks' outputs before it, and `grad_norm`."""
    make = learner.nets.action_distribution.make
    parameters, v = predict(learner.nets, part)
    batch = {**part, "old": make(part["parameters"])}
    if cfg.normalize_advantages:
        batch["adv"] = standardize(part["adv"])
    settings = (clip, entropy_coeff, kl_coeff)
    norms = learner.minimize(loss, (make(parameters), v), batch, *settings, grad=loss_grad, report=False)
    return {"new_parameters": parameters.detach(), "new_v": v.detach(), "adv": batch["adv"], **norms}


@torch.no_grad()
def report(nets: ActorCritic, seen: list[Columns], cfg: PPOOptions, *settings: float) -> Losses:
    """Evaluate the loss once over all minibatches, each with the networks' outputs before its step."""
    batch: dict[str, Any] = {name: torch.cat([part[name] for part in seen]) for name in seen[0] if name != "grad_norm"}
    dist, batch["old"] = (nets.action_distribution.make(batch[name]) for name in ("new_parameters", "parameters"))
    kl, clip_fraction = policy_shift(dist.log_prob(batch["a"]) - batch["logp"], settings[0])
    losses = loss((dist, batch["new_v"]), batch, cfg, *settings)
    grad_norm = torch.stack([part["grad_norm"] for part in seen]).mean()
    return {**losses, "kl": kl, "clip_fraction": clip_fraction, "grad_norm": grad_norm}


def policy_shift(log_ratio: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """How far the policy has moved from the one that sampled, from the log-ratios [N] of the actions taken.

    Returns an estimate of the KL divergence, in nats (Schulman 2020, joschu.net/blog/kl-approx.html, k3), and the share
    of the ratios that is clipped; both scalars.
    """
    excess = log_ratio.exp() - 1
    return (excess - log_ratio).mean(), (excess.abs() > clip).float().mean()


def adapted(kl_coeff: float, kl: float, target: float) -> float:
    """The weight of the KL penalty for the next iteration: section 4, with the paper's factors."""
    if kl > 1.5 * target:
        return kl_coeff * 2
    return kl_coeff / 2 if kl < target / 1.5 else kl_coeff


def adapt_kl_coeff(learner: LearnerAPI, kl: float, cfg: ClippedSurrogate) -> None:
    """Adapt the weight of the KL penalty to the divergence that an update has brought about, over all learners."""

    def rule(kl: float) -> None:
        learner.counters["kl_coeff"] = adapted(learner.counters["kl_coeff"], kl, cfg.kl_target)

    learner.adapt_by(kl, rule)


def update(learner: LearnerAPI, batch: Batch, cfg: PPOOptions) -> Metrics:
    """Learn several epochs from one batch: algorithm 1."""
    nets: ActorCritic = learner.nets
    columns = evaluate(nets, batch, cfg)
    columns["logp"] = nets.action_distribution.make(columns["parameters"]).log_prob(columns["a"])
    clip = at(cfg.clip_schedule, cfg.clip, learner.timesteps)
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    kl_coeff = learner.counters.setdefault("kl_coeff", cfg.kl_coeff)
    seen: list[Columns] = []
    epochs = 0
    while epochs < cfg.epochs:
        for part in minibatches(columns, cfg.minibatch_size, learner.rng):
            outputs = learner.recorded(step, part, clip, entropy_coeff, kl_coeff)
            seen.append({name: part[name] for name in KEPT} | outputs)
        epochs += 1
        if cfg.kl_stop is not None and epochs < cfg.epochs and divergence(nets, columns) > cfg.kl_stop:
            break
    losses = report(nets, seen, cfg, clip, entropy_coeff, kl_coeff)
    metrics = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if cfg.kl_coeff:
        metrics["kl"] = divergence(nets, columns)
        adapt_kl_coeff(learner, metrics["kl"], cfg)
    valid = whole(columns)
    explained = explained_variance(valid["v"], valid["target"]).item()
    return {**metrics, "explained_variance": explained, "epochs": epochs, "clip": clip, "kl_coeff": kl_coeff}


@torch.no_grad()
def divergence(nets: ActorCritic, columns: Columns) -> float:
    """Mean KL divergence of the policy from the one that sampled, in nats."""
    columns = whole(columns)
    parameters, _ = predict(nets, columns)
    old, new = (nets.action_distribution.make(each) for each in (columns["parameters"], parameters))
    return old.kl(new).mean().item()


PPO = Algorithm(
    name="PPO",
    options=PPOOptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam()},
    strategy=synchronous,
    initial_state=initial_state,
)
