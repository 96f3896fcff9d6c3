"""Quantile regression DQN: Dabney et al. 2017, arXiv 1710.10044. DQN that learns the quantiles of the return."""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.algorithms.dqn import DQN, q_of_actions
from rltrainer.algorithms.off_policy import replay_update
from rltrainer.api.options.off_policy import QRDQNOptions
from rltrainer.core.algorithm import LearnerAPI, Losses
from rltrainer.core.types import Spaces
from rltrainer.networks.q_network import QNetwork
from rltrainer.ops.losses import huber
from rltrainer.replay.buffer import Transitions


def quantile_network(spaces: Spaces, options: QRDQNOptions) -> QNetwork:
    """A Q-network with `num_quantiles` outputs for each action, whose mean is the action's value: eq. 8."""
    return QNetwork(spaces, options, atoms=options.num_quantiles)


@torch.no_grad()
def td_target(nets: QNetwork, target: QNetwork, batch: Transitions, cfg: QRDQNOptions) -> Tensor:
    """r + gamma theta_j(s', a*), [N, M], in units of return: algorithm 1. The next action a* has the largest mean, by
    the target network or, with `double_q`, by the network itself."""
    quantiles = target.logits(batch.next_obs)
    means = nets(batch.next_obs) if cfg.double_q else target.values(quantiles)
    best = target.argmax(means, batch.next_obs)
    return batch.r.unsqueeze(-1) + batch.discount.unsqueeze(-1) * q_of_actions(quantiles, best)


def loss(theta: Tensor, batch: Transitions, cfg: QRDQNOptions, y: Tensor) -> Losses:
    """sum_i E_j[|tau_i - 1{u_ij < 0}| huber(u_ij)] with u_ij = y_j - theta_i, weighted: eq. 10 and algorithm 1.

    `theta` [N, M] are the quantiles of the actions taken, at the midpoints tau_i = (2 i - 1) / (2 M) of lemma 2, and
    `y` [N, M] samples of what they are to become, both in units of return.
    """
    count = theta.shape[1]
    tau = (torch.arange(count, device=theta.device) + 0.5) / count
    u = y.unsqueeze(1) - theta.unsqueeze(2)  # [N, i, j]
    asymmetry = (tau.view(1, -1, 1) - (u.detach() < 0).float()).abs()
    regression = (asymmetry * huber(u)).mean(2).sum(1)
    return {"loss": (batch.weight * regression).mean()}


def step(learner: LearnerAPI, batch: Transitions, cfg: QRDQNOptions) -> tuple[Losses, Tensor]:
    """Take one step of quantile regression. Returns what to report, and the sizes of the temporal differences [N] of
    the expected returns."""
    nets: QNetwork = learner.nets
    target: QNetwork = learner.targets[""]
    for each in (nets, target):
        each.resample(learner.rng)
    y = td_target(nets, target, batch, cfg)
    theta = q_of_actions(nets.logits(batch.obs), batch.a)
    losses = learner.minimize(loss, theta, batch, y)
    errors = (y.mean(1) - theta.detach().mean(1)).abs()
    return {**losses, "td_error": errors.mean()}, errors


QR_DQN = replace(DQN, name="QRDQN", options=QRDQNOptions, nets=quantile_network, update=replay_update(step))
