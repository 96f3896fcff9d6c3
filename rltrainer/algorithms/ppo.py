"""Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347."""

import torch
from torch import Tensor

from rltrainer.algorithm import Algorithm, Metrics
from rltrainer.algorithms.actor_critic import (
    Columns,
    evaluate,
    explained_variance,
    memory,
    minibatches,
    mode,
    predict,
    sample,
    whole,
)
from rltrainer.execution.synchronous import synchronous
from rltrainer.fragment import Batch
from rltrainer.learner import Learner
from rltrainer.losses import clipped_surrogate, clipped_value_loss, standardize, value_loss
from rltrainer.networks import ActorCritic
from rltrainer.optimizer import adam
from rltrainer.options import PPOOptions
from rltrainer.schedules import at

LOSSES = ("loss", "policy_loss", "vf_loss", "entropy")


def loss(
    nets: ActorCritic, batch: Columns, cfg: PPOOptions, clip: float, entropy: float, kl_coeff: float
) -> tuple[list[Tensor], Tensor]:
    """Eq. 9 with the penalty of eq. 8, over a minibatch of [N, ...].

    Returns scalars as named in LOSSES, and the logarithms [N] of the probability ratios.
    """
    parameters, v = predict(nets, batch)
    dist = nets.family.make(parameters)
    log_ratio = dist.log_prob(batch["a"]) - batch["logp"]
    adv = standardize(batch["adv"]) if cfg.normalize_advantages else batch["adv"]
    policy = clipped_surrogate(log_ratio.exp(), adv, clip)
    if cfg.vf_clip is None:
        value = value_loss(v, batch["target"])
    else:
        value = clipped_value_loss(v, batch["v"], batch["target"], cfg.vf_clip)
    with torch.set_grad_enabled(entropy > 0):  # else it is only reported
        bonus = dist.entropy().mean()
    total = policy + cfg.vf_coeff * value - entropy * bonus
    if kl_coeff:
        total = total + kl_coeff * nets.family.make(batch["parameters"]).kl(dist).mean()
    return [total, policy, value, bonus], log_ratio


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
    columns["logp"] = nets.family.make(columns["parameters"]).log_prob(columns["a"])
    clip = at(cfg.clip_schedule, cfg.clip, learner.timesteps)
    entropy = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    kl_coeff = learner.memory.setdefault("kl_coeff", cfg.kl_coeff)
    steps: list[Tensor] = []
    log_ratios: list[Tensor] = []
    epochs = 0
    while epochs < cfg.epochs:
        for part in minibatches(columns, cfg.minibatch_size, learner.rng):
            losses, log_ratio = loss(nets, part, cfg, clip, entropy, kl_coeff)
            norm = learner.minimise(losses[0])
            steps.append(torch.stack([*losses, norm]).detach())
            log_ratios.append(log_ratio.detach())
        epochs += 1
        if cfg.kl_stop is not None and epochs < cfg.epochs and divergence(nets, columns) > cfg.kl_stop:
            break
    moved = torch.cat(log_ratios)
    means = [*torch.stack(steps).mean(0), *distance(moved, moved.exp(), clip)]
    metrics = dict(zip((*LOSSES, "grad_norm", "kl", "clip_fraction"), torch.stack(means).tolist(), strict=True))
    if cfg.kl_coeff:
        metrics["kl"] = divergence(nets, columns)
        learner.memory["kl_coeff"] = adapted(kl_coeff, metrics["kl"], cfg.kl_target)
    valid = whole(columns)
    explained = explained_variance(valid["v"], valid["target"]).item()
    return {**metrics, "explained_variance": explained, "epochs": epochs, "clip": clip, "kl_coeff": kl_coeff}


@torch.no_grad()
def divergence(nets: ActorCritic, columns: Columns) -> float:
    """Mean KL divergence of the policy from the one that sampled, in nats."""
    columns = whole(columns)
    parameters, _ = predict(nets, columns)
    return nets.family.make(columns["parameters"]).kl(nets.family.make(parameters)).mean().item()


PPO = Algorithm(
    name="PPO",
    options=PPOOptions,
    nets=ActorCritic,
    act=sample,
    best=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},
    strategy=synchronous,
    memory=memory,
)
