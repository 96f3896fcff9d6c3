"""Deep deterministic policy gradient, and TD3, which is the same with three options set.

Lillicrap et al. 2016, arXiv 1509.02971; Fujimoto et al. 2018 (TD3), arXiv 1802.09477; Horgan et al. 2018 (Ape-X),
arXiv 1803.00933.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.api.options.off_policy import ApexDDPGOptions, DDPGOptions, TD3Options
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.optimizer import adam
from rltrainer.execution.sharded_replay import sharded_replay
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks.continuous import ActorAndCritic, Policy
from rltrainer.ops.action_spaces import squashed_action_distribution
from rltrainer.ops.exploration import gaussian, ornstein_uhlenbeck
from rltrainer.replay.buffer import Transitions


def explore(policy: Policy, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's actions with noise on them; uniform ones before `learning_starts`."""
    cfg: DDPGOptions = context.options
    mean = policy(obs)
    if context.timesteps < cfg.learning_starts:
        return torch.rand(mean.shape, generator=context.rng) * 2 - 1, {}
    if cfg.exploration_noise == "gaussian":
        noise = gaussian(mean, cfg.exploration_sigma, context.rng)
    else:
        previous = context.state.get("noise", torch.zeros_like(mean))
        noise = ornstein_uhlenbeck(previous, cfg.exploration_theta, cfg.exploration_sigma, context.rng)
        context.state = {"noise": noise}
    return (mean + noise).clamp_(-1, 1), {}


def greedy_action(policy: Policy, obs: Tensor, context: ActContext) -> Tensor:
    """The policy's actions."""
    a: Tensor = policy(obs)
    return a


def td_target(learner: Learner, batch: Transitions, cfg: DDPGOptions) -> Tensor:
    """What Q(s, a) is to become, [N], in units of return: eq. 4 of DDPG; with two critics eq. 10 of TD3, and with noise
    on the target's actions its eq. 14."""
    policy, critic = learner.targets["policy"], learner.targets["critic"]
    a = policy(batch.next_obs)
    if cfg.target_noise:
        noise = gaussian(a, cfg.target_noise, learner.rng).clamp_(-cfg.target_noise_clip, cfg.target_noise_clip)
        a = (a + noise).clamp_(-1, 1)
    q: Tensor = critic(batch.next_obs, a).min(0).values
    return batch.r + batch.discount * q


def fit_critic(learner: Learner, batch: Transitions, q: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One step of part `critic`, whose values of the actions taken are `q` [k, N], towards `y` [N]; their mean squared
    errors, weighted and summed over the critics. Returns what to report, and the `errors` [N] found."""
    with torch.no_grad():
        error = q - y
        pull = batch.weight * error
        loss = (pull * error).mean(1).sum()
    norm = learner.descend([q], [pull * (2 / len(y))], "critic")
    return {"vf_loss": loss, "vf_grad_norm": norm, "q": y.mean(), "errors": error.abs().mean(0)}


def step(learner: Learner, batch: Transitions, cfg: DDPGOptions, improves: bool) -> dict[str, Tensor]:
    """One step of the critic, and if it `improves` that too, one of the policy. Returns as `fit_critic`."""
    nets: ActorAndCritic = learner.nets
    with torch.no_grad():
        y = td_target(learner, batch, cfg)
    found = fit_critic(learner, batch, nets.critic(batch.obs, batch.a), y)
    if improves:
        q = nets.critic(batch.obs, nets.policy(batch.obs), count=1)
        norm = learner.descend([q], [torch.full_like(q, -1 / q.numel())], "policy")
        found |= {"policy_loss": -q.detach().mean(), "grad_norm": norm}
    return found


def update(learner: Learner, batch: Transitions, cfg: DDPGOptions) -> dict[str, Tensor]:
    """One step of the critic, and every `policy_delay` one of the policy and the targets: algorithm 1 of either."""
    updates = learner.count_update()
    found = learner.recorded(step, batch, updates % cfg.policy_delay == 0)
    batch.td_error = found.pop("errors")
    if updates % (cfg.policy_delay * cfg.target_update_freq) == 0:
        learner.update_targets(cfg.tau)
    return found


DDPG = Algorithm(
    name="DDPG",
    options=DDPGOptions,
    nets=ActorAndCritic,
    action_distribution=squashed_action_distribution,
    act=explore,
    greedy_action=greedy_action,
    update=update,
    optimizers={"policy": adam(eps=1e-8), "critic": adam(eps=1e-8)},
    strategy=synchronous,
    acts="policy",
    targets=("policy", "critic"),
    replays=True,
)
TD3 = replace(DDPG, name="TD3", options=TD3Options)
APEX_DDPG = replace(DDPG, name="ApexDDPG", options=ApexDDPGOptions, strategy=sharded_replay)
