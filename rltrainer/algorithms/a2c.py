"""Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3 with all actors in step."""

import torch

from rltrainer.algorithm import Algorithm, Metrics
from rltrainer.algorithms.actor_critic import actor_critic, evaluate, explained_variance, mode, sample
from rltrainer.execution.synchronous import synchronous
from rltrainer.fragment import Batch
from rltrainer.learner import Learner, adam
from rltrainer.losses import policy_gradient, value_loss
from rltrainer.networks import ActorCritic
from rltrainer.options import A2COptions
from rltrainer.schedules import at


def update(learner: Learner, batch: Batch, cfg: A2COptions) -> Metrics:
    """One step down the policy gradient with a critic, over a whole batch."""
    nets: ActorCritic = learner.nets  # type: ignore[assignment]
    columns = evaluate(nets, batch, cfg)
    entropy_coeff = at(cfg.entropy_coeff_schedule, cfg.entropy_coeff, learner.timesteps)
    parameters, v = nets(columns["obs"])
    dist = nets.family.make(parameters)
    policy = policy_gradient(dist.log_prob(columns["a"]), columns["adv"])
    value = value_loss(v, columns["target"])
    entropy = dist.entropy().mean()
    total = policy + cfg.vf_coeff * value - entropy_coeff * entropy
    norm = learner.minimise(total)
    explained = explained_variance(columns["v"], columns["target"])
    names = ("loss", "policy_loss", "vf_loss", "entropy", "grad_norm", "explained_variance")
    numbers = torch.stack([each.detach() for each in (total, policy, value, entropy, norm, explained)])
    return dict(zip(names, numbers.tolist(), strict=True))


A2C = Algorithm(
    name="A2C",
    options=A2COptions,
    nets=actor_critic,
    act=sample,
    best=mode,
    update=update,
    optimizer=adam(eps=1e-5),  # the paper's RMSprop takes outsized first steps, until its average has warmed up
    strategy=synchronous,
)
