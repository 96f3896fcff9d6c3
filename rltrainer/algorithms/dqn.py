"""Deep Q-learning and what was built on it. Each extension is an option, and Rainbow is all six.

Mnih et al. 2015, doi 10.1038/nature14236; Hessel et al. 2018 (Rainbow), arXiv 1710.02298; Horgan et al. 2018 (Ape-X),
arXiv 1803.00933.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.api.options.off_policy import (
    ApexDQNOptions,
    DQNOptions,
    ParametricDQNOptions,
    QLearningOptions,
    RainbowOptions,
)
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.fragment import Fragment, collate
from rltrainer.core.optimizer import adam
from rltrainer.execution.sharded_replay import sharded_replay
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks.q_network import QNetwork
from rltrainer.ops.losses import huber, huber_slope
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
    """What `q` [N, n, ...] says of the actions `a` [N]: [N, ...]."""
    return q[torch.arange(len(a), device=a.device), a]


def mean_errors(nets: QNetwork, target: QNetwork, batch: Transitions, cfg: QLearningOptions, q: Tensor) -> Tensor:
    """Temporal differences [N] of the expected returns `q` [N, n]: van Hasselt et al. 2016, eq. 4."""
    q_next = target(batch.next_obs)
    best = nets.greedy(batch.next_obs) if cfg.double_q else target.argmax(q_next, batch.next_obs)
    return q_of_actions(q, batch.a) - (batch.r + batch.discount * q_of_actions(q_next, best))


def descend_mean(learner: Learner, batch: Transitions, cfg: QLearningOptions) -> tuple[Tensor, Tensor, Tensor]:
    """One step down Huber's loss of the temporal differences; the loss, their sizes [N] and the gradient's norm."""
    q: Tensor = learner.nets(batch.obs)
    with torch.no_grad():
        error = mean_errors(learner.nets, learner.targets[""], batch, cfg, q)
        by_error = batch.weight * huber_slope(error) / len(error)
        by_q = torch.zeros_like(q).scatter_(-1, batch.a.unsqueeze(-1), by_error.unsqueeze(-1))
        loss = (batch.weight * huber(error)).mean()
    return loss, error.abs(), learner.descend([q], [by_q])


def distribution_errors(
    nets: QNetwork, target: QNetwork, batch: Transitions, cfg: QLearningOptions
) -> tuple[Tensor, Tensor]:
    """Losses [N] and their sizes [N] for distributions over returns: cross-entropy with the projected goal, algorithm 1
    of Bellemare et al. 2017; as a priority, its excess over the goal's own entropy (Hessel et al. 2018)."""
    with torch.no_grad():
        logits = target.logits(batch.next_obs)
        chooser = nets(batch.next_obs) if cfg.double_q else target.values(logits)
        best = target.argmax(chooser, batch.next_obs)
        td_target = project(q_of_actions(logits, best).softmax(-1), batch.r, batch.discount, target.support)
    losses = -(td_target * q_of_actions(nets.logits(batch.obs), batch.a).log_softmax(-1)).sum(-1)
    entropy = -torch.special.xlogy(td_target, td_target).sum(-1)
    return losses, (losses.detach() - entropy).clamp_min(0)


def step(learner: Learner, batch: Transitions, cfg: QLearningOptions) -> dict[str, Tensor]:
    """One step of Q-learning from replayed transitions. Returns what to report, and the `errors` [N] found."""
    nets: QNetwork = learner.nets
    target: QNetwork = learner.targets[""]
    nets.resample(learner.rng)
    target.resample(learner.rng)
    if cfg.num_atoms > 1:
        losses, errors = distribution_errors(nets, target, batch, cfg)
        loss = (batch.weight * losses).mean()
        norm = learner.minimise(loss)
    else:
        loss, errors, norm = descend_mean(learner, batch, cfg)
    return {"loss": loss.detach(), "td_error": errors.mean(), "grad_norm": norm, "errors": errors}


def update(learner: Learner, batch: Transitions, cfg: QLearningOptions) -> dict[str, Tensor]:
    """One step of Q-learning, and now and then the target network: algorithm 1."""
    found = learner.recorded(step, batch)
    batch.td_error = found.pop("errors")
    updates = learner.count_update()
    if updates % cfg.target_update_freq == 0:
        learner.update_targets(cfg.tau)
    return found


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
    nets=QNetwork,
    act=explore,
    greedy_action=greedy,
    update=update,
    optimizers={"": adam(eps=1e-8)},
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
