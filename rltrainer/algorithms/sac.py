"""Soft actor-critic with a learned temperature: Haarnoja et al. 2018, arXiv 1812.05905.

With discrete actions the expectations over them are sums: Christodoulou 2019, arXiv 1910.07207.
"""

from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from rltrainer.algorithms.off_policy import replay_update
from rltrainer.api.options.off_policy import SACOptions
from rltrainer.core.algorithm import ActContext, Algorithm, LearnerAPI, Losses
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
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

Dist = SquashedGaussian | Categorical


def discrete_or_squashed(space: Space[Any]) -> ActionDistribution[Any]:
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


def uniform(dist: Dist, rng: torch.Generator) -> Tensor:
    """Legal actions, each as likely as any other, for as many observations as `dist` is of."""
    if isinstance(dist, Categorical):
        return Categorical(masked(torch.zeros_like(dist.logits), dist.logits > ILLEGAL)).sample(rng)
    return torch.rand(dist.mean.shape, generator=rng) * 2 - 1


def greedy_action(policy: SoftPolicy | CategoricalPolicy, obs: Tensor, context: ActContext) -> Tensor:
    """The likeliest actions."""
    return policy.act(obs).mode()


def soft_value(critic: nn.Module, dist: Dist, obs: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The smaller critic's value and the log-probability, both [N] and in expectation over the policy's actions.

    Of continuous actions one is drawn for each observation, and gradients go through it (section 4.2). Over discrete
    ones the expectation is a sum: Christodoulou 2019, eq. 10, with the critic's values as constants.
    """
    if isinstance(dist, Categorical):
        with torch.no_grad():
            q = critic(obs).min(0).values
        return dist.expectation(q), dist.expectation(dist.logp)
    a, logp = dist.drawn(standard_normal(dist.mean.shape, rng, dist.mean))
    return critic(obs, a).min(0).values, logp


@torch.no_grad()
def td_target(learner: LearnerAPI, batch: Transitions, alpha: Tensor) -> Tensor:
    """r + gamma (Q'(s', a') - alpha log pi(a'|s')), [N], in units of return: eq. 2 and 3. Of the target critics Q' the
    smaller value counts."""
    dist = learner.nets.policy.act(batch.next_obs)
    q, logp = soft_value(learner.targets["critic"], dist, batch.next_obs, learner.rng)
    return batch.r + batch.discount * (q - alpha * logp)


def critic_loss(q: Tensor, batch: Transitions, cfg: SACOptions, y: Tensor) -> Losses:
    """w (Q(s, a) - y)^2, twice eq. 5, summed over the critics.

    `q` [k, N] are the critics' values of the actions taken, `y` [N] what they are to become, in units of return; w are
    the importance weights of the batch.
    """
    return {"loss": (batch.weight * (q - y).square()).mean(1).sum()}


def policy_loss(outputs: tuple[Tensor, Tensor], batch: Transitions, cfg: SACOptions, alpha: Tensor) -> Losses:
    """alpha log pi(a|s) - Q(s, a), eq. 7 (and 9); discrete actions: Christodoulou 2019, eq. 12.

    `outputs` are Q and log pi of the policy's own actions, [N] as `soft_value` gives them.
    """
    q, logp = outputs
    return {"loss": (alpha * logp - q).mean(), "entropy": -logp.mean()}


def alpha_loss(log_alpha: Tensor, batch: Transitions, cfg: SACOptions, logp: Tensor, target: Tensor | float) -> Losses:
    """-log alpha (log pi + H), eq. 18 by the temperature's logarithm. `logp` [N]; H is the target entropy, in nats."""
    return {"loss": -(log_alpha * (logp + target)).mean()}


def values_of_actions(critic: nn.Module, batch: Transitions) -> Tensor:
    """The critics' values [k, N] of the actions that were taken."""
    if isinstance(critic, DiscreteCritic):
        every: Tensor = critic(batch.obs)
        return every.gather(-1, batch.a.expand(critic.count, -1).unsqueeze(-1)).squeeze(-1)
    q: Tensor = critic(batch.obs, batch.a)
    return q


def target_entropy(dist: Dist, cfg: SACOptions) -> Tensor | float:
    """The temperature's target entropy in nats: appendix D, and for discrete actions Christodoulou 2019, appendix.

    The largest entropy of discrete actions is that over the legal ones, [N]: more no temperature could bring about.
    """
    if cfg.target_entropy is not None:
        return cfg.target_entropy
    if isinstance(dist, Categorical):
        legal = (dist.logits > ILLEGAL).sum(-1).clamp_min(1)
        return cfg.target_entropy_ratio * legal.log()
    return -float(dist.mean.shape[-1])


def step(learner: LearnerAPI, batch: Transitions, cfg: SACOptions) -> tuple[Losses, Tensor]:
    """Take one step each of critics, policy and temperature: algorithm 1. Returns what to report, and the sizes of the
    temporal differences [N], the critics' mean."""
    nets: SoftActorAndCritic = learner.nets
    alpha = nets.alpha().detach()
    y, q = td_target(learner, batch, alpha), values_of_actions(nets.critic, batch)
    critic = learner.minimize(critic_loss, q, batch, y, part="critic")
    dist = nets.policy.act(batch.obs)
    q_new, logp = soft_value(nets.critic, dist, batch.obs, learner.rng)
    policy = learner.minimize(policy_loss, (q_new, logp), batch, alpha, part="policy")
    if cfg.alpha is None:
        target = target_entropy(dist, cfg)
        learner.minimize(alpha_loss, nets.alpha.log_alpha, batch, logp.detach(), target, part="alpha")
    losses = {
        "vf_loss": critic["loss"],
        "vf_grad_norm": critic["grad_norm"],
        "q": y.mean(),
        "alpha": alpha,
        "policy_loss": policy["loss"],
        "grad_norm": policy["grad_norm"],
        "entropy": policy["entropy"],
    }
    return losses, (q.detach() - y).abs().mean(0)


SAC = Algorithm(
    name="SAC",
    options=SACOptions,
    nets=SoftActorAndCritic,
    action_distribution=discrete_or_squashed,
    act=explore,
    greedy_action=greedy_action,
    update=replay_update(step),
    optimizers={"policy": adam(), "critic": adam(), "alpha": adam()},
    strategy=synchronous,
    acts="policy",
    targets=("critic",),
    replays=True,
)
