"""Deep Q-learning and what was built on it. Each extension is an option, and Rainbow is all six.

Mnih et al. 2015, doi 10.1038/nature14236; Hessel et al. 2018 (Rainbow), arXiv 1710.02298; Horgan et al. 2018 (Ape-X),
arXiv 1803.00933.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.algorithms.off_policy import replay_update
from rltrainer.api.options.off_policy import (
    ApexDQNOptions,
    DistributionalOptions,
    DQNOptions,
    ParametricDQNOptions,
    RainbowOptions,
)
from rltrainer.core.algorithm import ActContext, Algorithm, LearnerAPI, Losses
from rltrainer.core.fragment import Fragment, collate
from rltrainer.core.optimizer import adam
from rltrainer.execution.sharded_replay import sharded_replay
from rltrainer.execution.synchronous import synchronous
from rltrainer.networks.q_network import QNetwork, q_network
from rltrainer.ops.losses import huber, huber_grad
from rltrainer.ops.projection import project
from rltrainer.ops.returns import n_step_returns
from rltrainer.ops.schedules import at
from rltrainer.replay.buffer import Transitions


def explore(nets: QNetwork, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """The best actions under freshly drawn noise, or else random ones for a share `epsilon` of the environments."""
    cfg: DQNOptions = context.options
    if cfg.noisy and context.timesteps >= cfg.learning_starts:
        nets.resample(context.rng)
        return nets.greedy(obs), {}
    epsilon = 1.0 if cfg.noisy else at(cfg.epsilon_schedule, 0.0, context.timesteps)
    return epsilon_greedy(nets, obs, torch.full((context.num_envs,), epsilon), context.rng), {}


def per_worker_epsilon_greedy(nets: QNetwork, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """As `explore`, but environment i of N has its own epsilon for all time: Horgan et al. 2018, section 4.1."""
    cfg: ApexDQNOptions = context.options
    if cfg.noisy:
        return explore(nets, obs, context)
    i = torch.arange(context.first, context.first + context.num_envs)
    epsilon = cfg.epsilon_base ** (1 + cfg.epsilon_alpha * i / max(1, context.total - 1))
    return epsilon_greedy(nets, obs, epsilon, context.rng), {}


def epsilon_greedy(nets: QNetwork, obs: Tensor, epsilon: Tensor, rng: torch.Generator) -> Tensor:
    """The best actions [B], but with probability `epsilon` [B] any legal one."""
    explores = torch.rand(len(epsilon), generator=rng) < epsilon
    return torch.where(explores, nets.random(obs, rng), nets.greedy(obs).cpu())


def greedy(nets: QNetwork, obs: Tensor, context: ActContext) -> Tensor:
    """The best actions, without noise."""
    with nets.without_noise():
        return nets.greedy(obs)


def q_of_actions(q: Tensor, a: Tensor) -> Tensor:
    """The values that `q` [N, n, ...] has of the actions `a` [N]: [N, ...]."""
    return q[torch.arange(len(a), device=a.device), a]


@torch.no_grad()
def td_target(nets: QNetwork, target: QNetwork, batch: Transitions, cfg: DistributionalOptions) -> Tensor:
    """r + gamma Q'(s', argmax_a Q(s', a)), [N], in units of return: van Hasselt et al. 2016, eq. 4. Without `double_q`
    the target network Q' chooses too: Mnih et al. 2015, eq. 2."""
    q_next = target(batch.next_obs)
    best = nets.greedy(batch.next_obs) if cfg.double_q else target.argmax(q_next, batch.next_obs)
    return batch.r + batch.discount * q_of_actions(q_next, best)


def loss(q: Tensor, batch: Transitions, cfg: DistributionalOptions, y: Tensor) -> Losses:
    """w huber(Q(s, a) - y): the squared error with its gradient clipped to 1, as Mnih et al. 2015 clip it (methods).

    `q` [N, n] are the values of all actions, `y` [N] what those taken are to become, both in units of return; w are the
    importance weights of the batch.
    """
    error = q_of_actions(q, batch.a) - y
    return {"loss": (batch.weight * huber(error)).mean(), "td_error": error.abs().mean()}


def loss_grad(q: Tensor, batch: Transitions, cfg: DistributionalOptions, y: Tensor) -> tuple[Tensor]:
    """Derivative of `loss` in closed form, by `q`: [N, n]."""
    error = q_of_actions(q, batch.a) - y
    dq_a = batch.weight * huber_grad(error) / len(error)
    return (torch.zeros_like(q).scatter_(-1, batch.a.unsqueeze(-1), dq_a.unsqueeze(-1)),)


@torch.no_grad()
def projected_target(nets: QNetwork, target: QNetwork, batch: Transitions, cfg: DistributionalOptions) -> Tensor:
    """The distribution over returns [N, atoms] that those of the actions taken are to become: Bellemare et al. 2017,
    algorithm 1, with the next action chosen as in `td_target`."""
    logits, support = target.logits(batch.next_obs), target.support
    assert support is not None  # noqa: S101 - for the type checker
    chooser = nets(batch.next_obs) if cfg.double_q else target.values(logits)
    best = target.argmax(chooser, batch.next_obs)
    return project(q_of_actions(logits, best).softmax(-1), batch.r, batch.discount, support)


def cross_entropy(logits: Tensor, p: Tensor) -> Tensor:
    """-sum_z p(z) log q(z), [N], in nats, of the distributions that `logits` [N, atoms] are of."""
    return -(p * logits.log_softmax(-1)).sum(-1)


def distributional_loss(logits: Tensor, batch: Transitions, cfg: DistributionalOptions, p: Tensor) -> Losses:
    """w times the cross-entropy of the actions' distributions with the projected target's, Bellemare et al. 2017,
    algorithm 1. `logits` and `p` are [N, atoms]."""
    return {"loss": (batch.weight * cross_entropy(logits, p)).mean()}


@torch.no_grad()
def kl_from_target(logits: Tensor, p: Tensor) -> Tensor:
    """KL(p || q), [N], in nats: the cross-entropy's excess over the entropy of p. Hessel et al. 2018's priority."""
    negative_entropy: Tensor = torch.special.xlogy(p, p).sum(-1)
    return (cross_entropy(logits, p) + negative_entropy).clamp_min(0)


def step(learner: LearnerAPI, batch: Transitions, cfg: DistributionalOptions) -> tuple[Losses, Tensor]:
    """Take one step of Q-learning. Returns what to report, and the sizes of the temporal differences [N].

    Of a distribution, `at_v_min` and `at_v_max` are the shares of the target that lie on its ends: much there means
    that returns are beyond them.
    """
    nets: QNetwork = learner.nets
    target: QNetwork = learner.targets[""]
    nets.resample(learner.rng)
    target.resample(learner.rng)
    if cfg.num_atoms > 1:
        p = projected_target(nets, target, batch, cfg)
        logits = q_of_actions(nets.logits(batch.obs), batch.a)
        losses = learner.minimize(distributional_loss, logits, batch, p)
        errors = kl_from_target(logits, p)
        at_bounds = {"at_v_min": p[:, 0].mean(), "at_v_max": p[:, -1].mean()}
        return {**losses, "td_error": errors.mean(), **at_bounds}, errors
    q, y = nets(batch.obs), td_target(nets, target, batch, cfg)
    losses = learner.minimize(loss, q, batch, y, grad=loss_grad)
    return losses, (q_of_actions(q.detach(), batch.a) - y).abs()


@torch.no_grad()
def priorities(nets: QNetwork, fragment: Fragment, cfg: ApexDQNOptions) -> Tensor:
    """|Temporal differences| [T, B] as the worker's own network sees them, over as many of the n steps as it has."""
    batch = collate([fragment], next(nets.parameters()).device)
    q = nets(batch.obs)
    v = q_of_actions(q.flatten(0, 1), nets.argmax(q, batch.obs).flatten()).view(q.shape[:2])
    td_target = n_step_returns(batch.r, batch.discount(cfg.gamma), batch.trace(), v[1:], cfg.n_step)
    return (td_target - q_of_actions(q[:-1].flatten(0, 1), batch.a.flatten()).view(batch.a.shape)).abs()


DQN = Algorithm(
    name="DQN",
    options=DQNOptions,
    nets=q_network,
    act=explore,
    greedy_action=greedy,
    update=replay_update(step),
    optimizers={"": adam()},
    strategy=synchronous,
    targets=("",),
    replays=True,
)
RAINBOW = replace(DQN, name="Rainbow", options=RainbowOptions)
PARAMETRIC_DQN = replace(DQN, name="ParametricDQN", options=ParametricDQNOptions)
APEX_DQN = replace(
    DQN,
    name="ApexDQN",
    options=ApexDQNOptions,
    act=per_worker_epsilon_greedy,
    strategy=sharded_replay,
    priorities=priorities,
)
