"""The options of every algorithm: one vocabulary, typed, bounded and documented once.

An option has one name, one type and one meaning in every algorithm; only its default differs. The CRD holds their
union, the command line and the operator check the exact set of the algorithm named. Imports neither torch nor Ray.
"""

import difflib
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Schedule = Annotated[
    list[Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=64)
]
Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


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
    num_gpus: Annotated[int, Field(ge=0, le=1)] = Field(
        0,
        description="GPUs of the learner. 1 makes it a Ray actor on a node with a GPU; 0 learns on the driver's CPU.",
    )
    num_envs_per_worker: Annotated[int, Field(ge=1, le=65536)] = Field(
        8, description="Environments that one worker steps together, as one vector."
    )
    rollout_fragment_length: Count = Field(128, description="Steps of each environment in one sample, T of [T, B].")
    hiddens: Annotated[list[Count], Field(max_length=16)] = Field(
        [64, 64], description="Widths of the hidden layers after the encoder."
    )
    activation: Literal["tanh", "relu", "elu", "silu"] = Field("tanh", description="Nonlinearity between layers.")
    normalize_observations: bool = Field(
        False, description="Divide observations by their running mean and standard deviation, which a checkpoint keeps."
    )
    normalize_rewards: bool = Field(
        False,
        description="Divide rewards by the running deviation of the discounted return, which a checkpoint keeps.",
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


class ActorCriticOptions(Options):
    """What the policy-gradient algorithms with a critic share."""

    lambda_: Fraction = Field(0.95, alias="lambda", description="GAE's lambda: 0 is one-step TD, 1 is the full return.")
    vf_coeff: NonNegative = Field(0.5, description="Weight of the value loss.")
    vf_share_layers: bool = Field(
        False, description="Policy and value function share their hidden layers. Encoders of images are always shared."
    )
    entropy_coeff: NonNegative = Field(0.0, description="Weight of the entropy bonus.")
    entropy_coeff_schedule: Schedule | None = Field(
        None,
        description="Entropy weight over time: [timestep, value] points, linear between them. Replaces entropy_coeff.",
    )


def _default(name: str, value: Any) -> Any:
    """Option `name` as above, with the default of one algorithm."""
    inherited = ActorCriticOptions.model_fields[name]
    return Field(value, alias=inherited.alias, description=inherited.description)


class A2COptions(ActorCriticOptions):
    """Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783."""

    lr: Rate = _default("lr", 7e-4)
    lambda_: Fraction = _default("lambda_", 1.0)
    grad_clip: NonNegative = _default("grad_clip", 0.5)
    rollout_fragment_length: Count = _default("rollout_fragment_length", 16)


class PPOOptions(ActorCriticOptions):
    """Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347."""

    grad_clip: NonNegative = _default("grad_clip", 0.5)
    clip: Positive = Field(
        0.2, description="Half-width of the interval around 1 that the probability ratio is clipped to, eq. 7."
    )
    clip_schedule: Schedule | None = Field(
        None, description="clip over time: [timestep, value] points, linear between them. Replaces clip."
    )
    vf_clip: Positive | None = Field(
        None, description="Largest change of a value prediction in one update; unset, the value loss is not clipped."
    )
    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="Passes over each batch of samples.")
    minibatch_size: Count = Field(256, description="Samples of one gradient step.")
    kl_coeff: NonNegative = Field(
        0.0, description="First weight of the KL penalty, adapted to kl_target after each iteration, section 4."
    )
    kl_target: Positive = Field(
        0.01, description="KL divergence per iteration, in nats, that the adaptive penalty aims at."
    )
    kl_stop: Positive | None = Field(
        None,
        description="Ends an iteration's epochs once the KL divergence from the sampling policy exceeds this, in nats.",
    )
    normalize_advantages: bool = Field(
        True, description="Advantages of a minibatch are shifted and scaled to mean 0 and deviation 1."
    )


OPTIONS: dict[str, type[Options]] = {"A2C": A2COptions, "PPO": PPOOptions}
"""The options of each algorithm that comes with rltrainer, by the name that `run` takes."""


class OptionError(ValueError):
    """An option that cannot be, with a message for whoever wrote it."""


def option_names(options: type[Options]) -> dict[str, str]:
    """Names as a document writes them, to the names of the fields."""
    return {field.alias or name: name for name, field in options.model_fields.items()}


def for_algorithm(run: str) -> type[Options]:
    """The options of algorithm `run`; those of an algorithm of one's own (`module:NAME`) are PPO's, plus `custom`.

    Raises OptionError for an unknown algorithm.
    """
    if ":" in run:
        return PPOOptions
    if run not in OPTIONS:
        raise OptionError(
            f'unknown algorithm "{run}".{_nearest(run, OPTIONS)} '
            f"Known: {', '.join(sorted(OPTIONS))}, or package.module:NAME"
        )
    return OPTIONS[run]


def parse_options(run: str, config: dict[str, Any], where: str = "spec.config") -> Options:
    """`config` as the checked options of algorithm `run`.

    Raises OptionError that names the option, where it stands, and the nearest name or the algorithm it belongs to.
    """
    options = for_algorithm(run)
    known = option_names(options)
    for name in config:
        if name not in known:
            raise OptionError(_unknown(run, name, known, where))
    try:
        return options.model_validate(config)
    except ValidationError as error:
        raise OptionError("; ".join(describe(problem, where) for problem in error.errors())) from None


def describe(problem: Any, where: str) -> str:
    """One line for one problem that pydantic found below `where`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    path = path.removeprefix(".") if where.endswith(" ") else path
    value = "" if isinstance(problem["input"], dict | list) else f", got {problem['input']!r}"
    return f"{where}{path}: {problem['msg'].removeprefix('Value error, ')}{value}"


def _unknown(run: str, name: str, known: dict[str, str], where: str) -> str:
    owners = sorted(other for other, options in OPTIONS.items() if name in option_names(options))
    if owners:
        return f'{run} has no option "{name}" (in {where}). It belongs to {", ".join(owners)}'
    return f'{run} has no option "{name}" (in {where}).{_nearest(name, known)} rltrainer describe {run} lists them all'


def _nearest(name: str, known: Any) -> str:
    spoken = {
        "learning_rate": "lr",
        "lambda_": "lambda",
        "clip_param": "clip",
        "num_sgd_iter": "epochs",
        "sgd_minibatch_size": "minibatch_size",
    }
    if spoken.get(name) in known:
        return f' Did you mean "{spoken[name]}"?'
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    exact = [k for k in known if near and k.lower() == near[0]]
    return f' Did you mean "{exact[0]}"?' if exact else ""
