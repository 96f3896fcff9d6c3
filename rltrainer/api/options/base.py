"""The options that every algorithm understands, and the types that all are made of."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Annotated[
    list[Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=64)
]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Options(BaseModel):
    """What every algorithm understands. Times are in environment steps, summed over all environments."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    lr: Rate = Field(3e-4, description="Learning rate of the optimiser (Adam unless the algorithm says otherwise).")
    lr_schedule: Schedule | None = Field(
        None,
        description="lr over time: [timestep, value] points, linear between and constant outside. Replaces lr.",
    )
    gamma: Fraction = Field(0.99, description="Discount per step.")
    grad_clip: NonNegative = Field(0.0, description="Largest global norm of a gradient; 0 does not clip.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seed of every random state. Unset, one is drawn and written to params.json."
    )
    num_workers: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="Ray actors that sample. 0 samples in the learner's own process, without Ray."
    )
    num_cpus_per_worker: Annotated[float, Field(gt=0, le=1024)] = Field(
        1, description="CPUs that Ray reserves for a sampling actor."
    )
    num_learners: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Ray actors that learn, each from its share of every batch, with gradients averaged. Divides "
        "num_workers. 0 learns in the driver's process, or with num_gpus in one actor.",
    )
    num_gpus: Annotated[int, Field(ge=0, le=1)] = Field(
        0,
        description="GPUs of each learner. 1 learns in this process, without Ray, if it sees one and num_workers is 0; "
        "else in a Ray actor on a node with a GPU. 0 learns on CPUs.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Number format of the learner's matrix products. Weights, losses and acting stay in float32.",
    )
    num_envs_per_worker: Annotated[int, Field(ge=1, le=65536)] = Field(
        8, description="Environments that one worker steps together, as one vector."
    )
    vector_env: Literal["auto", "sync", "subprocess"] = Field(
        "auto",
        description="How a worker steps environments that have no vector of their own: one by one, each in a process "
        "of its own, or, with auto, whichever a short measurement at the start finds faster on the worker's CPUs "
        "(num_cpus_per_worker; without Ray, all of the machine's).",
    )
    rollout_fragment_length: Count = Field(128, description="Steps of each environment in one sample, T of [T, B].")
    timesteps_per_iteration: Natural = Field(
        0, description="Environment steps in an iteration, at least; 0 is one round of sampling and learning."
    )
    hiddens: Annotated[list[Count], Field(max_length=16)] = Field(
        [64, 64], description="Widths of the hidden layers after the encoder."
    )
    activation: Literal["tanh", "relu", "elu", "silu", "linear"] = Field(
        "tanh", description="Nonlinearity between layers; linear is none."
    )
    cnn: Literal["nature", "resnet"] = Field(
        "nature",
        description="Encoder of images of 36 pixels and more: Nature's convolutions, or IMPALA's residual network.",
    )
    normalize_observations: bool = Field(
        False, description="Divide observations by their running mean and standard deviation, which a checkpoint keeps."
    )
    custom: dict[str, Any] = Field(
        default_factory=dict, description="Options of one's own algorithm, given to it as they are. Not checked here."
    )

    @model_validator(mode="after")
    def _schedules_ascend(self) -> "Options":
        for name in type(self).model_fields:
            points = getattr(self, name) if name.endswith("_schedule") else None
            if points and any(a[0] >= b[0] for a, b in pairwise(points)):
                raise ValueError(f"{name}: timesteps must ascend, got {[p[0] for p in points]}")
        return self

    @model_validator(mode="after")
    def _learners_are_alike(self) -> "Options":
        if self.num_learners and (not self.num_workers or self.num_workers % self.num_learners):
            raise ValueError(
                f"num_learners {self.num_learners} does not divide num_workers {self.num_workers}: "
                "each learner takes what as many workers sample"
            )
        return self


class RecordedOptions(Options):
    """What the algorithms share whose steps of learning can be recorded."""

    cuda_graphs: bool = Field(
        True,
        description="On a GPU, record the steps of learning once and replay them as CUDA graphs, unless there are "
        "several learners or the policy is recurrent. false launches their kernels one by one.",
    )


class TargetOptions(Options):
    """What the algorithms with target networks share."""

    tau: Rate = Field(1.0, description="Share of the networks in each update of their targets: 1 copies them.")
    target_update_freq: Count = Field(1, description="Gradient steps between updates of the target networks.")


def default(owner: type[Options], name: str, value: Any) -> Any:
    """Option `name` of `owner`, with another default."""
    inherited = owner.model_fields[name]
    return Field(value, alias=inherited.alias, description=inherited.description)
