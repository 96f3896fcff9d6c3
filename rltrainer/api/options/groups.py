"""Field groups: options that several algorithms have. Groups inherit from nothing but `Options`, and not from another.

A function names the group whose options it reads as the type of its `cfg`.
"""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import Field, model_validator

from rltrainer.api.base import Natural
from rltrainer.api.options.base import (
    Count,
    Fraction,
    NonNegative,
    Options,
    Positive,
    Rate,
    Schedule,
    Widths,
    check_values,
)


class CudaGraphs(Options):
    """What the algorithms whose steps of learning can be recorded share."""

    cuda_graphs: bool = Field(
        True,
        description="On a GPU, record the steps of learning once and replay them as CUDA graphs, unless there are "
        "several learners or the policy is recurrent. false launches their kernels one by one.",
    )

    @property
    def records_steps(self) -> bool:
        """Whether steps of learning may be recorded as CUDA graphs."""
        return self.cuda_graphs


class TargetNetwork(Options):
    """What the algorithms with target networks share."""

    tau: Rate = Field(1.0, description="Share of the networks in each update of their targets: 1 copies them.")
    target_update_freq: Count = Field(1, description="Gradient steps between updates of the target networks.")


class InFlight(Options):
    """What the algorithms whose workers do not wait for the learner share."""

    requests_in_flight: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="Fragments that a worker is asked for ahead: more keep it busy, fewer keep its policy fresh."
    )


# ---- Policy gradients on fresh samples -----------------------------------------------------------------------------


class EntropyBonus(Options):
    """What the algorithms with a stochastic policy and the policy gradient share."""

    entropy_coeff: NonNegative = Field(0.0, description="Weight of the entropy bonus.")
    entropy_coeff_schedule: Schedule | None = Field(
        None,
        description="Entropy weight over time: [timestep, value] points, linear between them. Replaces entropy_coeff.",
    )


class NormalizedRewards(Options):
    """What the algorithms that can divide rewards by their scale share."""

    normalize_rewards: bool = Field(
        False,
        description="Divide rewards by the running deviation of the discounted return, which a checkpoint keeps.",
    )

    @property
    def scales_rewards(self) -> bool:
        """Whether rewards are divided by the running deviation of the return."""
        return self.normalize_rewards


class NormalizedAdvantages(Options):
    """What the algorithms that scale the advantages share."""

    normalize_advantages: bool = Field(
        True, description="Advantages of each gradient step's samples are shifted and scaled to mean 0 and deviation 1."
    )


class StateValueCritic(Options):
    """Of the policy-gradient algorithms with a critic."""

    lambda_: Fraction = Field(0.95, alias="lambda", description="GAE's lambda: 0 is one-step TD, 1 is the full return.")
    vf_coeff: NonNegative = Field(0.5, description="Weight of the value loss.")
    vf_share_layers: bool = Field(
        False, description="Policy and value function share their hidden layers. Encoders of images are always shared."
    )
    recurrent: Literal["lstm", "gru"] | None = Field(
        None, description="A recurrent cell after the encoder, shared by policy and value function. Unset, none."
    )
    recurrent_size: Count = Field(64, description="Units of the recurrent cell.")


class ClippedSurrogate(Options):
    """What the algorithms with PPO's clipped surrogate share."""

    clip: Positive = Field(
        0.2, description="Half-width of the interval around 1 that the probability ratio is clipped to, eq. 7."
    )
    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Passes over each batch of samples.")
    minibatch_size: Count = Field(256, description="Samples of one gradient step.")
    kl_coeff: NonNegative = Field(
        0.0, description="First weight of the KL penalty, adapted to kl_target after each iteration, section 4."
    )
    kl_target: Positive = Field(
        0.01, description="KL divergence per iteration, in nats, that the adaptive penalty aims at."
    )


class VTrace(Options):
    """What the algorithms that correct by V-trace what was sampled with older weights share."""

    train_batch_size: Count = Field(500, description="Environment steps in one update, at least.")
    vtrace_clip_rho: Positive = Field(
        1.0, description="V-trace's rho: the largest importance weight of a temporal difference, section 4.1."
    )
    vtrace_clip_c: Positive = Field(
        1.0, description="V-trace's c: the largest importance weight of a trace, section 4.1."
    )


# ---- Replay --------------------------------------------------------------------------------------------------------


class ReplayBuffer(Options):
    """What the algorithms that learn from a replay buffer share."""

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
    def _a_fragment_fits(self) -> Self:
        shards = self.shards or 1
        streams = -(-max(1, self.num_workers) // shards)
        rows = self.buffer_size // shards // (streams * self.num_envs_per_worker)
        if rows < self.rollout_fragment_length:
            raise ValueError(
                f"buffer_size {self.buffer_size} leaves {rows} steps for each environment, "
                f"and rollout_fragment_length is {self.rollout_fragment_length}"
            )
        return self


class ShardedReplay(Options):
    """What the Ape-X algorithms share: several replay buffers."""

    replay_shards: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Replay buffers that share buffer_size; with workers each is a Ray actor of its own."
    )

    @property
    def shards(self) -> int:
        """Replay buffers that stand apart from the learner."""
        return min(self.replay_shards, max(1, self.num_workers))


class QLearning(Options):
    """What the algorithms that value discrete actions share."""

    double_q: bool = Field(
        True, description="Choose the next action by the network, value it by the target: arXiv 1509.06461."
    )
    dueling: bool = Field(False, description="Separate streams for state value and advantages: arXiv 1511.06581.")


class NoisyLayers(Options):
    """What the algorithms that can explore by noise on the weights share."""

    noisy: bool = Field(
        False, description="Explore by learned noise on the weights, without epsilon: arXiv 1706.10295."
    )
    noisy_sigma: Positive = Field(0.5, description="First deviation of that noise, section 3.2.")


class Distributional(Options):
    """What the algorithms that can learn a distribution of returns share."""

    num_atoms: Annotated[int, Field(ge=1, le=1001)] = Field(
        1, description="Atoms of the distribution over returns, arXiv 1707.06887; 1 learns the mean alone."
    )
    v_min: float = Field(-10.0, description="Smallest return that the distribution can hold.")
    v_max: float = Field(10.0, description="Largest return that the distribution can hold.")

    @model_validator(mode="after")
    def _returns_ascend(self) -> Self:
        if self.v_min >= self.v_max:
            raise ValueError(f"v_min {self.v_min} is not less than v_max {self.v_max}")
        return self


class EpsilonGreedy(Options):
    """What the algorithms whose share of random actions follows a schedule share."""

    epsilon_schedule: Schedule = Field(
        [[0, 1.0], [10_000, 0.05]],
        description="Share of random actions over time: [timestep, value] points, linear between and constant outside.",
    )

    @model_validator(mode="after")
    def _epsilons_are_shares(self) -> Self:
        check_values("epsilon_schedule", self.epsilon_schedule, [Ge(0), Le(1)])
        return self


class ActionCritic(Options):
    """What the algorithms with a policy and a critic of actions share."""

    critic_lr: Rate | None = Field(None, description="Learning rate of the critic; unset, lr.")
    critic_hiddens: Widths | None = Field(None, description="Widths of the critic's hidden layers; unset, hiddens.")
    twin_q: bool = Field(True, description="Two critics, of which the smaller value counts: arXiv 1802.09477.")


class DeterministicPolicy(Options):
    """What the algorithms with a deterministic policy share."""

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
