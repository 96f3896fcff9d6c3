"""Options of the algorithms that learn from a replay buffer."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rltrainer.api.options.base import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Options,
    Positive,
    Rate,
    RecordedOptions,
    Schedule,
    TargetOptions,
    default,
)

Width = Annotated[list[Count], Field(max_length=16)]


class ReplayOptions(TargetOptions, RecordedOptions):
    """What the algorithms that learn from a replay buffer share."""

    rollout_fragment_length: Count = default(Options, "rollout_fragment_length", 1)
    timesteps_per_iteration: Natural = default(Options, "timesteps_per_iteration", 1000)
    activation: Literal["tanh", "relu", "elu", "silu", "linear"] = default(Options, "activation", "relu")
    buffer_size: Count = Field(100_000, description="Environment steps that the replay buffer holds.")
    learning_starts: Natural = Field(
        1000, description="Environment steps before the first update, with the exploration of the first step."
    )
    batch_size: Count = Field(64, description="Transitions of one gradient step.")
    updates_per_step: Positive = Field(
        0.25, description="Gradient steps for each environment step, summed over all environments."
    )
    n_step: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Rewards summed before the value of what follows is used."
    )
    tau: Rate = default(TargetOptions, "tau", 0.005)
    prioritized: bool = Field(
        False, description="Sample transitions by their last temporal difference: Schaul et al. 2016, arXiv 1511.05952."
    )
    priority_alpha: Fraction = Field(0.6, description="Exponent of priorities: 0 samples uniformly, eq. 1.")
    priority_beta: Fraction = Field(0.4, description="Exponent of the weights that make up for it, section 3.4.")
    priority_beta_schedule: Schedule | None = Field(
        None, description="priority_beta over time: [timestep, value] points, linear between them. Replaces it."
    )
    priority_epsilon: Positive = Field(1e-6, description="Added to each priority, so that none is 0.")

    @model_validator(mode="after")
    def _fits(self) -> "ReplayOptions":
        workers = max(1, self.num_workers)
        shards = min(workers, getattr(self, "replay_shards", 1))
        streams = -(-workers // shards)
        rows = self.buffer_size // shards // (streams * self.num_envs_per_worker)
        if rows < self.rollout_fragment_length:
            raise ValueError(
                f"buffer_size {self.buffer_size} leaves {rows} steps for each environment, "
                f"and rollout_fragment_length is {self.rollout_fragment_length}"
            )
        return self


class QLearningOptions(ReplayOptions):
    """What the algorithms that value discrete actions share."""

    lr: Rate = default(ReplayOptions, "lr", 5e-4)
    tau: Rate = default(ReplayOptions, "tau", 1.0)
    target_update_freq: Count = default(ReplayOptions, "target_update_freq", 250)
    rollout_fragment_length: Count = default(ReplayOptions, "rollout_fragment_length", 4)
    grad_clip: NonNegative = default(ReplayOptions, "grad_clip", 10.0)
    double_q: bool = Field(
        True, description="Choose the next action by the network, value it by the target: arXiv 1509.06461."
    )
    dueling: bool = Field(False, description="Separate streams for state value and advantages: arXiv 1511.06581.")
    noisy: bool = Field(False, description="Explore by learnt noise on the weights, without epsilon: arXiv 1706.10295.")
    noisy_sigma: Positive = Field(0.5, description="First deviation of that noise, section 3.2.")
    num_atoms: Annotated[int, Field(ge=1, le=1001)] = Field(
        1, description="Atoms of the distribution over returns, arXiv 1707.06887; 1 learns the mean alone."
    )
    v_min: float = Field(-10.0, description="Smallest return that the distribution can hold.")
    v_max: float = Field(10.0, description="Largest return that the distribution can hold.")

    @model_validator(mode="after")
    def _ordered(self) -> "QLearningOptions":
        if self.v_min >= self.v_max:
            raise ValueError(f"v_min {self.v_min} is not less than v_max {self.v_max}")
        return self


class DQNOptions(QLearningOptions):
    """Deep Q-learning and its six extensions: Mnih et al. 2015, doi 10.1038/nature14236; arXiv 1710.02298."""

    epsilon_schedule: Schedule = Field(
        [[0, 1.0], [10_000, 0.05]],
        description="Share of random actions over time: [timestep, value] points, linear between and constant outside.",
    )


class RainbowOptions(DQNOptions):
    """All six extensions at once: Hessel et al. 2018, arXiv 1710.02298."""

    dueling: bool = default(DQNOptions, "dueling", True)
    noisy: bool = default(DQNOptions, "noisy", True)
    prioritized: bool = default(DQNOptions, "prioritized", True)
    num_atoms: Annotated[int, Field(ge=1, le=1001)] = default(DQNOptions, "num_atoms", 51)
    n_step: Annotated[int, Field(ge=1, le=100)] = default(DQNOptions, "n_step", 3)


class ParametricDQNOptions(DQNOptions):
    """DQN over actions that the observation describes: `action_mask` and `avail_actions`."""


class ShardedReplayOptions(Options):
    """What the Ape-X algorithms add: many workers and several replay buffers."""

    replay_shards: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Replay buffers that share buffer_size; with workers each is a Ray actor of its own."
    )
    requests_in_flight: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="Fragments that a worker is asked for ahead: more keep it busy, fewer keep its policy fresh."
    )


class ApexDQNOptions(QLearningOptions, ShardedReplayOptions):
    """Distributed prioritised replay: Horgan et al. 2018, arXiv 1803.00933."""

    prioritized: bool = default(QLearningOptions, "prioritized", True)
    dueling: bool = default(QLearningOptions, "dueling", True)
    n_step: Annotated[int, Field(ge=1, le=100)] = default(QLearningOptions, "n_step", 3)
    rollout_fragment_length: Count = default(QLearningOptions, "rollout_fragment_length", 16)
    epsilon_base: Fraction = Field(
        0.4, description="Base of the workers' epsilons, epsilon^(1 + alpha i / (N - 1)), section 4.1."
    )
    epsilon_alpha: NonNegative = Field(7.0, description="Exponent of the workers' epsilons, section 4.1.")


class ContinuousOptions(ReplayOptions):
    """What the algorithms with a policy and a critic of actions share."""

    lr: Rate = default(ReplayOptions, "lr", 1e-3)
    hiddens: Width = default(ReplayOptions, "hiddens", [256, 256])
    batch_size: Count = default(ReplayOptions, "batch_size", 256)
    updates_per_step: Positive = default(ReplayOptions, "updates_per_step", 1.0)
    num_envs_per_worker: Annotated[int, Field(ge=1, le=65536)] = default(ReplayOptions, "num_envs_per_worker", 1)
    critic_lr: Rate | None = Field(None, description="Learning rate of the critic; unset, lr.")
    critic_hiddens: Width | None = Field(None, description="Widths of the critic's hidden layers; unset, hiddens.")
    twin_q: bool = Field(True, description="Two critics, of which the smaller value counts: arXiv 1802.09477.")


class DDPGOptions(ContinuousOptions):
    """Deep deterministic policy gradient: Lillicrap et al. 2016, arXiv 1509.02971."""

    twin_q: bool = default(ContinuousOptions, "twin_q", False)
    exploration_noise: Literal["gaussian", "ornstein-uhlenbeck"] = Field(
        "gaussian", description="Noise on the actions, independent or correlated in time."
    )
    exploration_sigma: NonNegative = Field(
        0.1, description="Deviation of that noise, as a share of half an action's range."
    )
    exploration_theta: Rate = Field(0.15, description="How fast correlated noise returns to 0, per step.")
    policy_delay: Count = Field(1, description="Updates of the critic for each one of the policy and the targets.")
    target_noise: NonNegative = Field(
        0.0, description="Deviation of the noise on the target's actions, as a share of half an action's range."
    )
    target_noise_clip: NonNegative = Field(0.5, description="Largest such noise, as the same share.")


class TD3Options(DDPGOptions):
    """Twin delayed DDPG: Fujimoto et al. 2018, arXiv 1802.09477."""

    twin_q: bool = default(DDPGOptions, "twin_q", True)
    policy_delay: Count = default(DDPGOptions, "policy_delay", 2)
    target_noise: NonNegative = default(DDPGOptions, "target_noise", 0.2)


class ApexDDPGOptions(DDPGOptions, ShardedReplayOptions):
    """DDPG with distributed prioritised replay: Horgan et al. 2018, arXiv 1803.00933."""

    prioritized: bool = default(DDPGOptions, "prioritized", True)
    n_step: Annotated[int, Field(ge=1, le=100)] = default(DDPGOptions, "n_step", 3)
    rollout_fragment_length: Count = default(DDPGOptions, "rollout_fragment_length", 16)


class SACOptions(ContinuousOptions):
    """Soft actor-critic: Haarnoja et al. 2018, arXiv 1812.05905; discrete: Christodoulou 2019, arXiv 1910.07207."""

    alpha: Positive | None = Field(
        None, description="Temperature: the weight of the policy's entropy. Unset, it is learnt, section 5."
    )
    initial_alpha: Positive = Field(1.0, description="First temperature where it is learnt.")
    alpha_lr: Rate | None = Field(None, description="Learning rate of the temperature; unset, lr.")
    target_entropy: float | None = Field(
        None,
        description="Entropy that the temperature aims at, in nats. Unset, minus the number of actions, or with "
        "discrete ones target_entropy_ratio of the largest.",
    )
    target_entropy_ratio: Fraction = Field(
        0.98, description="With discrete actions, the share of the largest entropy, log n, that is aimed at."
    )
