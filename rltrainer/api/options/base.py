"""The options that every algorithm has, and the types that all options are made of."""

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, Unpack

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rltrainer.api.base import INT64_MAX, Natural

Schedule = Annotated[
    list[Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=64)
]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=INT64_MAX)]
Widths = Annotated[list[Count], Field(max_length=16)]
Activation = Literal["tanh", "relu", "elu", "silu", "linear"]
RANGES: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}
"""What pydantic's bounds of a number hold it to, by their names, and in words."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
Task = Literal["images", "continuous", "control"]
TASKS: Mapping[Task, str] = MappingProxyType(
    {
        "images": "images, of 36 pixels or more a side",
        "continuous": "continuous actions",
        "control": "continuous actions and 8 numbers or more to observe",
    }
)
"""Kinds of task that a default may depend on. A task may be of several kinds; what stands below goes over what stands
above."""
TaskDefaults = Mapping[Task, Mapping[str, Any]]


def check_values(schedule: str, points: list[list[float]], bounds: Sequence[Any]) -> None:
    """Hold the values of a schedule to the `bounds` of what it replaces, as pydantic has them. It may end at a bound
    that these leave out, as a rate that is annealed to 0 does. Raises ValueError."""
    values = [value for _, value in points]
    for bound in bounds:
        for name, (inside, words) in RANGES.items():
            limit = getattr(bound, name, None)
            outside = [] if limit is None else [value for value in values if not inside(value, limit)]
            anneals = len(values) > 1 and outside == [limit] and values[-1] == limit
            if outside and not anneals:
                raise ValueError(f"{schedule}: values must be {words} {limit:g}, got {outside[0]:g}")


class Options(BaseModel):
    """What every algorithm understands. Times are in environment steps, summed over all environments.

    The options of one algorithm are this class and some of the field groups in groups.py, side by side, with a field or
    two of its own. A class statement takes, by the names of fields, `defaults` that it changes, `by_task` those that a
    kind of task has instead, and `former`, what `defaults` were before where checkpoints do not say.
    """

    by_task: ClassVar[TaskDefaults] = {}
    """Defaults that depend on the task, by its kind."""
    former: ClassVar[Mapping[str, Any]] = NOTHING
    """Defaults as they were when a checkpoint held only the options that its document set."""

    # a schema is built when options are first read: a process reads those of one algorithm, not of all
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, defer_build=True)

    lr: Rate = Field(3e-4, description="Learning rate of the optimizer (Adam unless the algorithm says otherwise).")
    lr_schedule: Schedule | None = Field(
        None,
        description="lr over time: [timestep, value] points, linear between and constant outside. Replaces lr.",
    )
    gamma: Fraction = Field(0.99, description="Discount per step.")
    grad_clip: NonNegative = Field(0.0, description="Largest global norm of a gradient; 0 does not clip.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seed of every random state. Unset, one is drawn and written to params.json."
    )
    adam_eps: Positive = Field(1e-8, description="Adam's epsilon, which is added to the root of its second moment.")
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
    hiddens: Widths = Field([64, 64], description="Widths of the hidden layers after the encoder.")
    activation: Activation = Field("tanh", description="Nonlinearity between layers; linear is none.")
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
    def _schedules_ascend(self) -> Self:
        for name in type(self).model_fields:
            points = getattr(self, name) if name.endswith("_schedule") else None
            if points and any(a[0] >= b[0] for a, b in pairwise(points)):
                raise ValueError(f"{name}: timesteps must ascend, got {[p[0] for p in points]}")
            replaced = type(self).model_fields.get(name.removesuffix("_schedule"))
            if points and replaced is not None:
                check_values(name, points, replaced.metadata)
        return self

    @model_validator(mode="after")
    def _learners_are_alike(self) -> Self:
        if self.num_learners and (not self.num_workers or self.num_workers % self.num_learners):
            raise ValueError(
                f"num_learners {self.num_learners} does not divide num_workers {self.num_workers}: "
                "each learner takes what as many workers sample"
            )
        return self

    def __init_subclass__(
        cls,
        defaults: Mapping[str, Any] = NOTHING,
        by_task: TaskDefaults = NOTHING,  # type: ignore[assignment]
        former: Mapping[str, Any] = NOTHING,
        **config: Unpack[ConfigDict],
    ) -> None:
        """Accept what a class statement takes: there are no fields yet."""
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        defaults: Mapping[str, Any] = NOTHING,
        by_task: TaskDefaults = NOTHING,  # type: ignore[assignment]
        former: Mapping[str, Any] = NOTHING,
        **config: Any,
    ) -> None:
        """Change defaults, and nothing else of the fields. Raises TypeError for a name that is no field."""
        super().__pydantic_init_subclass__(**config)
        for changed in (defaults, former, *by_task.values()):
            if unknown := sorted(changed.keys() - cls.model_fields.keys()):
                raise TypeError(f"{cls.__name__} has no {' and no '.join(unknown)} to give a default to")
        for name, value in defaults.items():
            cls.model_fields[name].default = value
        cls.by_task, cls.former = by_task or cls.by_task, former or cls.former

    @property
    def shards(self) -> int:
        """Replay buffers that stand apart from the learner; 0 where there is none, or the learner has it."""
        return 0

    @property
    def records_steps(self) -> bool:
        """Whether steps of learning may be recorded as CUDA graphs."""
        return False

    @property
    def scales_rewards(self) -> bool:
        """Whether rewards are divided by the running deviation of the return."""
        return False

    def own_lr(self, part: str) -> float | None:
        """Return option `<part>_lr`, the learning rate of a part of the networks; None where it is unset or absent."""
        return dict(self).get(f"{part}_lr")
