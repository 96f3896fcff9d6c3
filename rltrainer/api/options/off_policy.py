"""Options of the algorithms that learn from a replay buffer."""

from typing import Annotated, Any

from pydantic import Field

from rltrainer.api.options.base import Fraction, NonNegative, Positive, Rate
from rltrainer.api.options.groups import (
    ActionCritic,
    CudaGraphs,
    DeterministicPolicy,
    Distributional,
    EpsilonGreedy,
    InFlight,
    NoisyLayers,
    QLearning,
    ReplayBuffer,
    ShardedReplay,
    TargetNetwork,
)

Q_LEARNING = {
    "lr": 5e-4,
    "grad_clip": 10.0,
    "activation": "relu",
    "rollout_fragment_length": 4,
    "timesteps_per_iteration": 1000,
    "target_update_freq": 250,
}
"""Where DQN and its kin differ from the groups."""
OFTEN = {**Q_LEARNING, "lr": 1e-3, "updates_per_step": 0.5, "target_update_freq": 128}
"""Targets that follow within 256 steps, and twice the updates: with 1,000 steps CartPole's returns went up and down."""
BEFORE = {"lr": 5e-4, "updates_per_step": 0.25, "target_update_freq": 250}
ATARI: dict[str, Any] = {
    "lr": 1e-4,
    "adam_eps": 1.5e-4,
    "hiddens": [],
    "batch_size": 32,
    "learning_starts": 20_000,
    "updates_per_step": 0.25,
    "target_update_freq": 2000,
}
"""Where Q-learning from images differs: Hessel et al. 2018, table 1, in steps of 4 frames; the network is that of Mnih
et al. 2015. One update in 4 steps, so the targets move every 8,000 steps."""
ATARI_DQN: dict[str, Any] = {**ATARI, "epsilon_schedule": [[0, 1.0], [250_000, 0.1], [1_000_000, 0.01]]}
"""Mnih et al. 2015 go to 0.1 within a million frames, 250,000 steps; what comes after is Hessel et al.'s end."""
ATARI_RAINBOW = {
    "lr": 6.25e-5,
    "priority_alpha": 0.5,
    "priority_beta_schedule": [[0, 0.4], [10_000_000, 1.0]],
}
RAINBOW = {"dueling": True, "noisy": True, "prioritized": True, "num_atoms": 51, "n_step": 3}

CONTINUOUS = {
    "lr": 1e-3,
    "activation": "relu",
    "hiddens": [256, 256],
    "num_envs_per_worker": 1,
    "rollout_fragment_length": 1,
    "timesteps_per_iteration": 1000,
    "batch_size": 256,
    "updates_per_step": 1.0,
    "tau": 0.005,
}
"""Where the algorithms with a policy and a critic of actions differ from the groups."""
CONTROL = {"lr": 3e-4, "buffer_size": 1_000_000, "learning_starts": 10_000}
"""With tasks of MuJoCo's size: Haarnoja et al. 2018, table 1, and first steps as in Spinning Up. A replay takes memory
as it fills."""
PIXELS = {"lr": 3e-4, "learning_starts": 10_000}


class DQNOptions(
    EpsilonGreedy,
    QLearning,
    NoisyLayers,
    Distributional,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults=OFTEN,
    former=BEFORE,
    by_task={"images": ATARI_DQN},
):
    """Deep Q-learning and its six extensions: Mnih et al. 2015, doi 10.1038/nature14236; arXiv 1710.02298."""


class RainbowOptions(
    EpsilonGreedy,
    QLearning,
    NoisyLayers,
    Distributional,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults={**Q_LEARNING, **RAINBOW},
    by_task={"images": {**ATARI, **ATARI_RAINBOW}},
):
    """All six extensions at once: Hessel et al. 2018, arXiv 1710.02298."""


class ParametricDQNOptions(
    EpsilonGreedy,
    QLearning,
    NoisyLayers,
    Distributional,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults=OFTEN,
    former=BEFORE,
    by_task={"images": ATARI_DQN},
):
    """DQN over actions that the observation describes: `action_mask` and `avail_actions`."""


class QRDQNOptions(
    EpsilonGreedy,
    QLearning,
    NoisyLayers,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults=OFTEN,
    former=BEFORE,
    by_task={"images": {**ATARI_DQN, "lr": 5e-5, "adam_eps": 3.125e-4}},
):
    """Quantile regression DQN: Dabney et al. 2017, arXiv 1710.10044."""

    num_quantiles: Annotated[int, Field(ge=1, le=1001)] = Field(
        200, description="Quantiles of each action's return, eq. 8; the paper takes 200."
    )


class ApexDQNOptions(
    ShardedReplay,
    InFlight,
    QLearning,
    NoisyLayers,
    Distributional,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults={**Q_LEARNING, "prioritized": True, "dueling": True, "n_step": 3, "rollout_fragment_length": 16},
    by_task={"images": ATARI},
):
    """Distributed prioritized replay: Horgan et al. 2018, arXiv 1803.00933."""

    epsilon_base: Fraction = Field(
        0.4, description="Base of the workers' epsilons, epsilon^(1 + alpha i / (N - 1)), section 4.1."
    )
    epsilon_alpha: NonNegative = Field(7.0, description="Exponent of the workers' epsilons, section 4.1.")


class DDPGOptions(
    DeterministicPolicy,
    ActionCritic,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults={**CONTINUOUS, "twin_q": False},
    by_task={"images": PIXELS, "control": CONTROL},
):
    """Deep deterministic policy gradient: Lillicrap et al. 2016, arXiv 1509.02971."""


class TD3Options(
    DeterministicPolicy,
    ActionCritic,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults={**CONTINUOUS, "policy_delay": 2, "target_noise": 0.2},
    by_task={"images": PIXELS, "control": CONTROL},
):
    """Twin delayed DDPG: Fujimoto et al. 2018, arXiv 1802.09477."""


class ApexDDPGOptions(
    ShardedReplay,
    InFlight,
    DeterministicPolicy,
    ActionCritic,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults={**CONTINUOUS, "twin_q": False, "prioritized": True, "n_step": 3, "rollout_fragment_length": 16},
    by_task={"images": PIXELS, "control": CONTROL},
):
    """DDPG with distributed prioritized replay: Horgan et al. 2018, arXiv 1803.00933."""


class SACOptions(
    ActionCritic,
    ReplayBuffer,
    TargetNetwork,
    CudaGraphs,
    defaults=CONTINUOUS,
    former={"target_entropy_ratio": 0.98},
    by_task={"images": PIXELS, "control": CONTROL},
):
    """Soft actor-critic: Haarnoja et al. 2018, arXiv 1812.05905; discrete: Christodoulou 2019, arXiv 1910.07207."""

    alpha: Positive | None = Field(
        None, description="Temperature: the weight of the policy's entropy. Unset, it is learned, section 5."
    )
    initial_alpha: Positive = Field(1.0, description="First temperature where it is learned.")
    alpha_lr: Rate | None = Field(None, description="Learning rate of the temperature; unset, lr.")
    target_entropy: float | None = Field(
        None,
        description="Entropy that the temperature aims at, in nats. Unset, minus the number of actions, or with "
        "discrete ones target_entropy_ratio of the largest.",
    )
    target_entropy_ratio: Fraction = Field(
        0.5,
        description="With discrete actions, the share of the largest entropy, log n, that is aimed at. Where most "
        "actions end an episode no policy reaches the paper's 0.98, and the temperature grows without end.",
    )


DistributionalOptions = DQNOptions | RainbowOptions | ParametricDQNOptions | ApexDQNOptions
"""Of the algorithms that learn the mean of returns, or a distribution on atoms."""
QLearningOptions = DistributionalOptions | QRDQNOptions
"""Of DQN or one of its kin, whichever it is."""
