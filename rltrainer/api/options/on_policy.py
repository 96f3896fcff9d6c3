"""Options of the algorithms that follow the policy gradient on fresh samples."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rltrainer.api.options.base import (
    Count,
    Fraction,
    NonNegative,
    Options,
    Positive,
    Rate,
    RecordedOptions,
    Schedule,
    TargetOptions,
    default,
)


class PolicyGradientOptions(Options):
    """What the algorithms with a stochastic policy share."""

    entropy_coeff: NonNegative = Field(0.0, description="Weight of the entropy bonus.")
    entropy_coeff_schedule: Schedule | None = Field(
        None,
        description="Entropy weight over time: [timestep, value] points, linear between them. Replaces entropy_coeff.",
    )
    normalize_rewards: bool = Field(
        False,
        description="Divide rewards by the running deviation of the discounted return, which a checkpoint keeps.",
    )


class ActorCriticOptions(PolicyGradientOptions):
    """What the policy-gradient algorithms with a critic share."""

    lambda_: Fraction = Field(0.95, alias="lambda", description="GAE's lambda: 0 is one-step TD, 1 is the full return.")
    vf_coeff: NonNegative = Field(0.5, description="Weight of the value loss.")
    vf_share_layers: bool = Field(
        False, description="Policy and value function share their hidden layers. Encoders of images are always shared."
    )
    recurrent: Literal["lstm", "gru"] | None = Field(
        None, description="A recurrent cell after the encoder, shared by policy and value function. Unset, none."
    )
    recurrent_size: Count = Field(64, description="Units of the recurrent cell.")


class StandardizedOptions(PolicyGradientOptions):
    """What the algorithms that scale the advantages share."""

    normalize_advantages: bool = Field(
        True, description="Advantages of each gradient step's samples are shifted and scaled to mean 0 and deviation 1."
    )


def _default(name: str, value: Any) -> Any:
    return default(ActorCriticOptions, name, value)


class PGOptions(StandardizedOptions):
    """REINFORCE: Williams 1992, doi 10.1007/BF00992696."""

    lr: Rate = _default("lr", 4e-3)
    grad_clip: NonNegative = _default("grad_clip", 0.5)


class A2COptions(ActorCriticOptions):
    """Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783."""

    lr: Rate = _default("lr", 7e-4)
    lambda_: Fraction = _default("lambda_", 1.0)
    grad_clip: NonNegative = _default("grad_clip", 0.5)
    rollout_fragment_length: Count = _default("rollout_fragment_length", 16)


class A3COptions(A2COptions):
    """Asynchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783."""

    timesteps_per_iteration: Annotated[int, Field(ge=0)] = _default("timesteps_per_iteration", 2000)

    @model_validator(mode="after")
    def _workers_learn(self) -> "A3COptions":
        if self.normalize_rewards:
            raise ValueError("normalize_rewards: the workers of A3C share no statistics of rewards; A2C has them")
        if self.num_learners > 1:
            raise ValueError("num_learners: the gradients of A3C are its workers'; one learner follows them")
        return self


class SurrogateOptions(ActorCriticOptions, StandardizedOptions, RecordedOptions):
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


class PPOOptions(SurrogateOptions):
    """Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347."""

    grad_clip: NonNegative = _default("grad_clip", 0.5)
    clip_schedule: Schedule | None = Field(
        None, description="clip over time: [timestep, value] points, linear between them. Replaces clip."
    )
    vf_clip: Positive | None = Field(
        None, description="Largest change of a value prediction in one update; unset, the value loss is not clipped."
    )
    kl_stop: Positive | None = Field(
        None,
        description="Ends an iteration's epochs once the KL divergence from the sampling policy exceeds this, in nats.",
    )


class IMPALAOptions(ActorCriticOptions):
    """Importance-weighted actor-learner architectures: Espeholt et al. 2018, arXiv 1802.01561."""

    lr: Rate = _default("lr", 5e-4)
    lambda_: Fraction = _default("lambda_", 1.0)
    grad_clip: NonNegative = _default("grad_clip", 40.0)
    entropy_coeff: NonNegative = _default("entropy_coeff", 0.01)
    rollout_fragment_length: Count = _default("rollout_fragment_length", 50)
    timesteps_per_iteration: Annotated[int, Field(ge=0)] = _default("timesteps_per_iteration", 5000)
    train_batch_size: Count = Field(500, description="Environment steps in one update, at least.")
    requests_in_flight: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="Fragments that a worker is asked for ahead: more keep it busy, fewer keep its policy fresh."
    )
    vtrace_clip_rho: Positive = Field(
        1.0, description="V-trace's rho: the largest importance weight of a temporal difference, section 4.1."
    )
    vtrace_clip_c: Positive = Field(
        1.0, description="V-trace's c: the largest importance weight of a trace, section 4.1."
    )


class APPOOptions(IMPALAOptions, SurrogateOptions, TargetOptions):
    """Asynchronous PPO with a target network: Luo et al. 2020 (IMPACT), arXiv 1912.00167."""

    grad_clip: NonNegative = _default("grad_clip", 0.5)
    epochs: Annotated[int, Field(ge=1, le=1000)] = default(SurrogateOptions, "epochs", 1)
    target_update_freq: Count = default(TargetOptions, "target_update_freq", 8)
