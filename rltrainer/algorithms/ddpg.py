"""Deep deterministic policy gradient, and TD3, which is the same with three options set.

Lillicrap et al. 2016, arXiv 1509.02971; Fujimoto et al. 2018 (TD3), arXiv 1802.09477; Horgan et al. 2018 (Ape-X),
arXiv 1803.00933.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rltrainer.algorithms.off_policy import replay_update
from rltrainer.api.options.off_policy import ApexDDPGOptions, DDPGOptions, TD3Options
from rltrainer.core.algorithm import ActContext, Algorithm, LearnerAPI, Losses
from rltrainer.core.optimizer import adam
from rltrainer.execution.sharded_replay import sharded_replay
from rltrainer.execution.synchronous import synchronous
from rltrainer.networks.continuous import ActorAndCritic, DeterministicActor
from rltrainer.ops.action_spaces import squashed_action_distribution
from rltrainer.ops.exploration import gaussian, ornstein_uhlenbeck
from rltrainer.replay.buffer import Transitions


def explore(policy: DeterministicActor, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
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


def greedy_action(policy: DeterministicActor, obs: Tensor, context: ActContext) -> Tensor:
    """The policy's actions."""
    a: Tensor = policy(obs)
    return a


@torch.no_grad()
def td_target(learner: LearnerAPI, batch: Transitions, cfg: DDPGOptions) -> Tensor:
    """r + gamma Q'(s', mu'(s')), [N], in units of return: eq. 5 of DDPG. With two critics the smaller value, eq. 10 of
    TD3, and with noise on the target's actions its eq. 14."""
    policy, critic = learner.targets["policy"], learner.targets["critic"]
    a = policy(batch.next_obs)
    if cfg.target_noise:
        noise = gaussian(a, cfg.target_noise, learner.rng).clamp_(-cfg.target_noise_clip, cfg.target_noise_clip)
        a = (a + noise).clamp_(-1, 1)
    q: Tensor = critic(batch.next_obs, a).min(0).values
    return batch.r + batch.discount * q


def critic_loss(q: Tensor, batch: Transitions, cfg: DDPGOptions, y: Tensor) -> Losses:
    """w (Q(s, a) - y)^2, eq. 4 of DDPG, summed over the critics: algorithm 1 of TD3.

    `q` [k, N] are the critics' values of the actions taken, `y` [N] what they are to become, in units of return; w are
    the importance weights of the batch.
    """
    return {"loss": (batch.weight * (q - y).square()).mean(1).sum()}


def policy_loss(q: Tensor, batch: Transitions, cfg: DDPGOptions) -> Losses:
    """-Q(s, mu(s)), whose gradient goes through the critic into the policy: eq. 6. `q` [1, N] is the first critic's."""
    return {"loss": -q.mean()}


def step(learner: LearnerAPI, batch: Transitions, cfg: DDPGOptions, improve_policy: bool) -> tuple[Losses, Tensor]:
    """Take one step of the critic, and one of the policy where it is to be improved. Returns what to report, and the
    sizes of the temporal differences [N], the critics' mean."""
    nets: ActorAndCritic = learner.nets
    y, q = td_target(learner, batch, cfg), nets.critic(batch.obs, batch.a)
    critic = learner.minimize(critic_loss, q, batch, y, part="critic")
    losses = {"vf_loss": critic["loss"], "vf_grad_norm": critic["grad_norm"], "q": y.mean()}
    if improve_policy:
        policy = learner.minimize(
            policy_loss, nets.critic(batch.obs, nets.policy(batch.obs), count=1), batch, part="policy"
        )
        losses |= {"policy_loss": policy["loss"], "grad_norm": policy["grad_norm"]}
    return losses, (q.detach() - y).abs().mean(0)


DDPG = Algorithm(
    name="DDPG",
    options=DDPGOptions,
    nets=ActorAndCritic,
    action_distribution=squashed_action_distribution,
    act=explore,
    greedy_action=greedy_action,
    update=replay_update(step, delayed=True),
    optimizers={"policy": adam(), "critic": adam()},
    strategy=synchronous,
    acts="policy",
    targets=("policy", "critic"),
    replays=True,
)
TD3 = replace(DDPG, name="TD3", options=TD3Options)
APEX_DDPG = replace(DDPG, name="ApexDDPG", options=ApexDDPGOptions, strategy=sharded_replay)
