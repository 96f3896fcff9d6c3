"""Soft actor-critic with a learned temperature: Haarnoja et al. 2018, arXiv 1812.05905.

With discrete actions the expectations over them are sums: Christodoulou 2019, arXiv 1910.07207.
"""

from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from rltrainer.algorithms.ddpg import fit_critic
from rltrainer.api.options.off_policy import SACOptions
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks.continuous import (
    CategoricalPolicy,
    DiscreteCritic,
    SoftActorAndCritic,
    SoftPolicy,
)
from rltrainer.ops.action_spaces import ActionDistribution, action_distribution, squashed_action_distribution
from rltrainer.ops.distributions import ILLEGAL, Categorical, SquashedGaussian, masked
from rltrainer.ops.exploration import standard_normal
from rltrainer.replay.buffer import Transitions


def either_family(space: Space[Any]) -> ActionDistribution[Any]:
    """Discrete actions as such, continuous ones squashed into their bounds."""
    return action_distribution(space) if isinstance(space, spaces.Discrete) else squashed_action_distribution(space)


def explore(
    policy: SoftPolicy | CategoricalPolicy, obs: Tensor, context: ActContext
) -> tuple[Tensor, dict[str, Tensor]]:
    """Actions drawn from the policy, which explores by itself; uniform ones before `learning_starts`."""
    dist = policy.act(obs)
    if context.timesteps < context.options.learning_starts:
        return uniform(dist, context.rng), {}
    return dist.sample(context.rng), {}


def uniform(dist: SquashedGaussian | Categorical, rng: torch.Generator) -> Tensor:
    """Legal actions, each as likely as any other, for as many observations as `dist` is of."""
    if isinstance(dist, Categorical):
        return Categorical(masked(torch.zeros_like(dist.logits), dist.logits > ILLEGAL)).sample(rng)
    return torch.rand(dist.mean.shape, generator=rng) * 2 - 1


def greedy_action(policy: SoftPolicy | CategoricalPolicy, obs: Tensor, context: ActContext) -> Tensor:
    """The likeliest actions."""
    return policy.act(obs).mode()


@torch.no_grad()
def expectation(
    critic: nn.Module, dist: SquashedGaussian | Categorical, obs: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The smaller critic's value and the log-probability, both [N] and in expectation over the policy's actions.

    Of continuous actions one is drawn for each observation: eq. 3. Over discrete ones it is a sum: Christodoulou 2019,
    eq. 10.
    """
    if isinstance(dist, Categorical):
        return dist.expectation(critic(obs).min(0).values), dist.expectation(dist.logp)
    a, logp = dist.drawn(standard_normal(dist.mean.shape, rng, dist.mean))
    return critic(obs, a).min(0).values, logp


def policy_gradient(
    learner: Learner, dist: SquashedGaussian | Categorical, obs: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient [N, P], by the parameters of the policy's `dist`, of the mean of alpha log pi - Q, whose terms Q and
    log pi, both [N] as of `expectation`, come first.

    Section 4.2: it goes through the actions drawn, and the smaller critic of each. Discrete actions: Christodoulou
    2019, eq. 12.
    """
    critic, share = learner.nets.critic, 1 / len(obs)
    if isinstance(dist, Categorical):
        with torch.no_grad():
            q = critic(obs).min(0).values
        gradient = dist.expectation_gradient(alpha * dist.logp - q, share)
        return dist.expectation(q), dist.expectation(dist.logp), gradient
    noise = standard_normal(dist.mean.shape, learner.rng, dist.mean)
    a, logp = dist.drawn(noise)
    q = critic(obs, a.requires_grad_())
    least = q.detach().min(0)
    pull = torch.zeros_like(q).scatter_(0, least.indices[None], -share)
    by_a = learner.slope(q, pull, a)
    return least.values, logp, dist.drawn_gradient(noise, a.detach(), by_a, alpha * share)


def taken(critic: nn.Module, batch: Transitions) -> Tensor:
    """The critics' values [k, N] of the actions that were taken."""
    if isinstance(critic, DiscreteCritic):
        every: Tensor = critic(batch.obs)
        return every.gather(-1, batch.a.expand(critic.count, -1).unsqueeze(-1)).squeeze(-1)
    q: Tensor = critic(batch.obs, batch.a)
    return q


def target_entropy(dist: SquashedGaussian | Categorical, cfg: SACOptions) -> Tensor | float:
    """What the temperature aims at, in nats: appendix D, and for discrete actions Christodoulou 2019, appendix.

    The largest entropy of discrete actions is that over the legal ones, [N]: more no temperature could bring about.
    """
    if cfg.target_entropy is not None:
        return cfg.target_entropy
    if isinstance(dist, Categorical):
        legal = (dist.logits > ILLEGAL).sum(-1).clamp_min(1)
        return cfg.target_entropy_ratio * legal.log()
    return -float(dist.mean.shape[-1])


def step(learner: Learner, batch: Transitions, cfg: SACOptions) -> dict[str, Tensor]:
    """One step each of critics, policy and temperature. Returns what to report, and the `errors` [N] found."""
    nets: SoftActorAndCritic = learner.nets
    alpha = nets.alpha().detach()
    with torch.no_grad():
        q, logp = expectation(learner.targets["critic"], nets.policy.act(batch.next_obs), batch.next_obs, learner.rng)
        y = batch.r + batch.discount * (q - alpha * logp)
    found = {**fit_critic(learner, batch, taken(nets.critic, batch), y), "alpha": alpha}
    parameters = nets.policy(batch.obs)
    dist = nets.policy.make(parameters.detach())
    q, logp, gradient = policy_gradient(learner, dist, batch.obs, alpha)
    found |= {
        "policy_loss": (alpha * logp - q).mean(),
        "grad_norm": learner.descend([parameters], [gradient], "policy"),
        "entropy": -logp.mean(),
    }
    if cfg.alpha is None:  # section 5, by the logarithm
        excess = -(logp + target_entropy(dist, cfg)).mean()
        learner.descend([nets.alpha.log_alpha], [excess], "alpha")
    return found


def update(learner: Learner, batch: Transitions, cfg: SACOptions) -> dict[str, Tensor]:
    """One step of all three, then the targets: algorithm 1."""
    found = learner.recorded(step, batch)
    batch.td_error = found.pop("errors")
    updates = learner.count_update()
    if updates % cfg.target_update_freq == 0:
        learner.update_targets(cfg.tau)
    return found


SAC = Algorithm(
    name="SAC",
    options=SACOptions,
    nets=SoftActorAndCritic,
    action_distribution=either_family,
    act=explore,
    greedy_action=greedy_action,
    update=update,
    optimizers={"policy": adam(eps=1e-8), "critic": adam(eps=1e-8), "alpha": adam(eps=1e-8)},
    strategy=synchronous,
    acts="policy",
    targets=("critic",),
    replays=True,
)
