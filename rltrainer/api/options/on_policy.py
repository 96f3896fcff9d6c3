"""Options of the algorithms that follow the policy gradient on fresh samples."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from rltrainer.api.options.base import Positive, Schedule
from rltrainer.api.options.groups import (
    ClippedSurrogate,
    CudaGraphs,
    EntropyBonus,
    InFlight,
    NormalizedAdvantages,
    NormalizedRewards,
    StateValueCritic,
    TargetNetwork,
    VTrace,
)

NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
"""With continuous actions: returns of any size, and observations of any."""
ATARI: dict[str, Any] = {"hiddens": [], "entropy_coeff": 0.01}
"""With images: the policy and the value stand on the features of the convolutions, as in Mnih et al. 2016, section 5.1,
and the weight of the entropy is that of its section 8."""


class PGOptions(
    NormalizedAdvantages,
    EntropyBonus,
    NormalizedRewards,
    defaults={"lr": 4e-3, "grad_clip": 0.5, "adam_eps": 1e-5},
    by_task={"images": {**ATARI, "lr": 2.5e-4}, "continuous": NORMALIZED},
):
    """REINFORCE: Williams 1992, doi 10.1007/BF00992696."""


class A2COptions(
    StateValueCritic,
    EntropyBonus,
    NormalizedRewards,
    defaults={"lr": 7e-4, "adam_eps": 1e-5, "lambda_": 1.0, "grad_clip": 0.5, "rollout_fragment_length": 16},
    by_task={"images": {**ATARI, "lr": 2.5e-4}, "continuous": NORMALIZED},
):
    """Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783."""


class A3COptions(
    StateValueCritic,
    EntropyBonus,
    defaults={
        "lr": 7e-4,
        "adam_eps": 1e-5,
        "lambda_": 1.0,
        "grad_clip": 0.5,
        "rollout_fragment_length": 16,
        "timesteps_per_iteration": 2000,
    },
    by_task={"images": {**ATARI, "lr": 2.5e-4}, "continuous": {"normalize_observations": True}},
):
    """Asynchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783."""

    @model_validator(mode="before")
    @classmethod
    def _exported_before(cls, config: Any) -> Any:
        """Read what was exported when A3C had `normalize_rewards`, and took nothing but false."""
        if isinstance(config, Mapping) and config.get("normalize_rewards") is False:
            return {name: value for name, value in config.items() if name != "normalize_rewards"}
        return config

    @model_validator(mode="after")
    def _workers_learn(self) -> Self:
        if self.num_learners > 1:
            raise ValueError("num_learners: the gradients of A3C are its workers'; one learner follows them")
        return self


class PPOOptions(
    ClippedSurrogate,
    NormalizedAdvantages,
    StateValueCritic,
    EntropyBonus,
    NormalizedRewards,
    CudaGraphs,
    defaults={"grad_clip": 0.5, "adam_eps": 1e-5},
    by_task={"images": {**ATARI, "lr": 2.5e-4, "epochs": 4}, "continuous": NORMALIZED},
):
    """Proximal policy optimization: Schulman et al. 2017, arXiv 1707.06347."""

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


class IMPALAOptions(
    VTrace,
    InFlight,
    StateValueCritic,
    EntropyBonus,
    NormalizedRewards,
    defaults={
        "lr": 5e-4,
        "adam_eps": 1e-5,
        "lambda_": 1.0,
        "grad_clip": 40.0,
        "entropy_coeff": 0.01,
        "rollout_fragment_length": 50,
        "timesteps_per_iteration": 5000,
    },
    by_task={"images": ATARI, "continuous": NORMALIZED},
):
    """Importance-weighted actor-learner architectures: Espeholt et al. 2018, arXiv 1802.01561."""


class APPOOptions(
    ClippedSurrogate,
    NormalizedAdvantages,
    VTrace,
    TargetNetwork,
    InFlight,
    StateValueCritic,
    EntropyBonus,
    NormalizedRewards,
    CudaGraphs,
    defaults={
        "lr": 5e-4,
        "adam_eps": 1e-5,
        "lambda_": 1.0,
        "grad_clip": 0.5,
        "entropy_coeff": 0.01,
        "rollout_fragment_length": 50,
        "timesteps_per_iteration": 5000,
        "epochs": 1,
        "target_update_freq": 8,
    },
    by_task={"images": ATARI, "continuous": NORMALIZED},
):
    """Asynchronous PPO with a target network: Luo et al. 2020 (IMPACT), arXiv 1912.00167."""


ActorCriticOptions = A2COptions | A3COptions | PPOOptions | IMPALAOptions | APPOOptions
"""Of a policy gradient with a critic, whichever it is."""
