"""Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347."""

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
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.core.types import Metrics
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks import ActorCritic
from rltrainer.ops.distributions import Distribution
from rltrainer.ops.losses import (
    clipped_surrogate,
    clipped_surrogate_slope,
    clipped_value_loss,
    clipped_value_slope,
    standardize,
    value_loss,
    value_slope,
)
from rltrainer.ops.schedules import at


def surrogate_gradient(
    dist: Distribution, old: Distribution, a: Tensor, ratio: Tensor, adv: Tensor, clip: float, entropy: float, kl: float
) -> Tensor:
    """The gradient of eq. 7 with an entropy bonus and the penalty of eq. 8, by the parameters of `dist`: [N, P].

    `a`, `ratio` and `adv` are [N]; `entropy` and `kl` are the weights of the means of H and KL(old || dist).
    """
    gradient = dist.gradient(a, clipped_surrogate_slope(ratio, adv, clip), -entropy / len(ratio))
    return gradient + old.kl_gradient(dist, kl / len(ratio)) if kl else gradient


def step(
    learner: Learner, part: Columns, cfg: PPOOptions, clip: float, entropy: float, kl_coeff: float
) -> dict[str, Tensor]:
    """One step down eq. 9 with the penalty of eq. 8, over a minibatch of [N, ...].

    Returns what `judged` is to see of each sample, and `grad_norm`, that of the gradient.
    """
    nets: ActorCritic = learner.nets
    parameters, v = predict(nets, part)
    with torch.no_grad():
        dist, old = nets.action_distribution.make(parameters), nets.action_distribution.make(part["parameters"])
        log_ratio = dist.log_prob(part["a"]) - part["logp"]
        adv = standardize(part["adv"]) if cfg.normalize_advantages else part["adv"]
        gradient = surrogate_gradient(dist, old, part["a"], log_ratio.exp(), adv, clip, entropy, kl_coeff)
        if cfg.vf_clip is None:
            by_v = value_slope(v, part["target"])
        else:
            by_v = clipped_value_slope(v, part["v"], part["target"], cfg.vf_clip)
    norm = learner.descend([parameters, v], [gradient, cfg.vf_coeff * by_v])
    return {"parameters": parameters.detach(), "v": v.detach(), "log_ratio": log_ratio, "adv": adv, "grad_norm": norm}


@torch.no_grad()
def judged(
    nets: ActorCritic, seen: Columns, cfg: PPOOptions, clip: float, entropy: float, kl_coeff: float
) -> dict[str, Tensor]:
    """The means of what is minimised, and what else is told of the policy: scalars."""
    ratio = seen["log_ratio"].exp()
    policy = clipped_surrogate(ratio, seen["adv"], clip)
    if cfg.vf_clip is None:
        value = value_loss(seen["v"], seen["target"])
    else:
        value = clipped_value_loss(seen["v"], seen["v_old"], seen["target"], cfg.vf_clip)
    dist = nets.action_distribution.make(seen["parameters"])
    bonus = dist.entropy().mean()
    total = policy + cfg.vf_coeff * value - entropy * bonus
    if kl_coeff:
        total = total + kl_coeff * nets.action_distribution.make(seen["old"]).kl(dist).mean()
    kl, clipped = distance(seen["log_ratio"], ratio, clip)
    losses = {"loss": total, "policy_loss": policy, "vf_loss": value, "entropy": bonus}
    return {**losses, "kl": kl, "clip_fraction": clipped}


@torch.no_grad()
def distance(log_ratio: Tensor, ratio: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """How far the policy has moved from the one that sampled, from the ratios [N] of the actions taken.

    Returns an estimate of the KL divergence, in nats (Schulman 2020, joschu.net/blog/kl-approx.html, k3), and the share
    of the ratios that is clipped; both scalars.
    """
    moved = ratio - 1
    return (moved - log_ratio).mean(), (moved.abs() > clip).float().mean()


def adapted(kl_coeff: float, kl: float, target: float) -> float:
    """The weight of the KL penalty for the next iteration: section 4, with the paper's factors."""
    if kl > 1.5 * target:
        return kl_coeff * 2
    return kl_coeff / 2 if kl < target / 1.5 else kl_coeff


def update(learner: Learner, batch: Batch, cfg: PPOOptions) -> Metrics:
    """Several epochs over one batch: algorithm 1."""
    nets: ActorCritic = learner.nets
    columns = evaluate(nets, batch, cfg)
    columns["logp"] = nets.action_distribution.make(columns["parameters"]).log_prob(columns["a"])
    clip = at(cfg.clip_schedule, cfg.clip, learner.timesteps)
    entropy = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    kl_coeff = learner.counters.setdefault("kl_coeff", cfg.kl_coeff)
    norms: list[Tensor] = []
    seen: list[Columns] = []
    epochs = 0
    while epochs < cfg.epochs:
        for part in minibatches(columns, cfg.minibatch_size, learner.rng):
            found = learner.recorded(step, part, clip, entropy, kl_coeff)
            norms.append(found.pop("grad_norm"))
            seen.append({**found, "v_old": part["v"], "old": part["parameters"], "target": part["target"]})
        epochs += 1
        if cfg.kl_stop is not None and epochs < cfg.epochs and divergence(nets, columns) > cfg.kl_stop:
            break
    together = {name: torch.cat([samples[name] for samples in seen]) for name in seen[0]}
    told = {**judged(nets, together, cfg, clip, entropy, kl_coeff), "grad_norm": torch.stack(norms).mean()}
    metrics = dict(zip(told, torch.stack(list(told.values())).tolist(), strict=True))
    if cfg.kl_coeff:
        metrics["kl"] = divergence(nets, columns)
        learner.counters["kl_coeff"] = adapted(kl_coeff, metrics["kl"], cfg.kl_target)
    valid = whole(columns)
    explained = explained_variance(valid["v"], valid["target"]).item()
    return {**metrics, "explained_variance": explained, "epochs": epochs, "clip": clip, "kl_coeff": kl_coeff}


@torch.no_grad()
def divergence(nets: ActorCritic, columns: Columns) -> float:
    """Mean KL divergence of the policy from the one that sampled, in nats."""
    columns = whole(columns)
    parameters, _ = predict(nets, columns)
    return (
        nets.action_distribution.make(columns["parameters"]).kl(nets.action_distribution.make(parameters)).mean().item()
    )


PPO = Algorithm(
    name="PPO",
    options=PPOOptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},
    strategy=synchronous,
    initial_state=initial_state,
)
