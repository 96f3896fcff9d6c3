"""`spec.tune`: a search over an algorithm's options. Names are those of Ray Tune. Imports neither torch nor Ray."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from rltrainer.api.base import OPEN, Model, rules
from rltrainer.api.options import Count, OptionError, for_algorithm, option_names, parse_options
from rltrainer.api.options.registry import VOCABULARY

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]
Values = Annotated[list[Any], Field(min_length=1, max_length=1000)]

REALS = ("uniform", "quniform", "loguniform", "qloguniform")
INTEGERS = ("randint", "qrandint", "lograndint", "qlograndint")
LOGARITHMIC = ("loguniform", "qloguniform", "lograndint", "qlograndint")
KINDS = ("grid_search", "choice", *REALS, "randn", "qrandn", *INTEGERS)
_LISTED: JsonDict = {"items": OPEN}
_NAMES = sorted(option_names(VOCABULARY))


def _each(kinds: tuple[str, ...], rule: str) -> str:
    """Return the CEL rule that those of `kinds` which are set obey `rule`."""
    return " && ".join(f"(!has(self.{kind}) || {rule.format(f'self.{kind}')})" for kind in kinds)


class Domain(BaseModel):
    """Where the values of one option come from: exactly one of these."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            # CEL sees neither how many fields an object has nor those that hold lists of anything
            "minProperties": 1,
            "maxProperties": 1,
            **rules(
                (_each((*REALS, *INTEGERS), "size({0}) < 2 || {0}[0] < {0}[1]"), "low must be below high"),
                (_each(LOGARITHMIC, "size({0}) < 1 || {0}[0] > 0.0"), "a logarithm needs a low above 0"),
            ),
        },
    )

    grid_search: Values | None = Field(
        None, description="Each of these values, numSamples times.", json_schema_extra=_LISTED
    )
    choice: Values | None = Field(None, description="One of these values.", json_schema_extra=_LISTED)
    uniform: Pair | None = Field(None, description="[low, high].")
    quniform: Triple | None = Field(None, description="[low, high, step]: a multiple of step.")
    loguniform: Pair | None = Field(None, description="[low, high], uniform in the logarithm.")
    qloguniform: Triple | None = Field(None, description="[low, high, step], uniform in the logarithm.")
    randn: Pair | None = Field(None, description="[mean, deviation] of a normal distribution.")
    qrandn: Triple | None = Field(None, description="[mean, deviation, step] of a normal distribution.")
    randint: Pair | None = Field(None, description="[low, high] of integers; high itself is not drawn.")
    qrandint: Triple | None = Field(None, description="[low, high, step] of integers; high itself may be drawn.")
    lograndint: Pair | None = Field(None, description="[low, high] of integers, uniform in the logarithm.")
    qlograndint: Triple | None = Field(None, description="[low, high, step] of integers, uniform in the logarithm.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        kinds = [name for name, value in self if value is not None]
        if len(kinds) != 1:
            raise ValueError(f"takes exactly one of {', '.join(KINDS)}, not {' and '.join(kinds) or 0}")
        self._ordered(kinds[0])
        return self

    def _ordered(self, kind: str) -> None:
        values = getattr(self, kind)
        if kind in ("grid_search", "choice", "randn", "qrandn"):
            return
        if not all(math.isfinite(value) for value in values) or values[0] >= values[1]:
            raise ValueError(f"{kind} takes [low, high] with low below high, got {values}")
        if kind in LOGARITHMIC and values[0] <= 0:
            raise ValueError(f"{kind} needs a low above 0, got {values[0]:g}")
        if kind in INTEGERS and any(value != int(value) for value in values):
            raise ValueError(f"{kind} takes integers, got {values}")

    @property
    def kind(self) -> str:
        """The field that is set."""
        return next(name for name, value in self if value is not None)

    @property
    def arguments(self) -> list[Any]:
        """The value of that field; integers as integers."""
        values: list[Any] = getattr(self, self.kind)
        return [int(value) for value in values] if self.kind in INTEGERS else values

    def examples(self) -> list[Any]:
        """Return values that it can draw, the smallest and the largest among them where there are such."""
        values = self.arguments
        if self.kind in ("grid_search", "choice"):
            return values
        if self.kind in ("randn", "qrandn"):
            return values[:1]
        last = values[1] - 1 if self.kind in ("randint", "lograndint") else values[1]
        return [values[0], last]


ENV_CONFIG = "env_config."
"""What names of a space begin with that are no options, but values in envConfig. The keys that lead there follow,
joined by dots."""


def algorithm_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values searched over that are options of the algorithm."""
    return {name: value for name, value in values.items() if not name.startswith(ENV_CONFIG)}


def with_env_values(env_config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy `env_config`, with those of the values searched over that belong into it."""
    result: dict[str, Any] = copy.deepcopy(dict(env_config))
    for name, value in values.items():
        if name.startswith(ENV_CONFIG):
            _put(result, name.removeprefix(ENV_CONFIG).split("."), value)
    return result


def _put(content: Any, keys: list[str], value: Any) -> None:
    """Put a value where keys lead, and objects on the way where there are none."""
    *parents, last = keys
    for key in parents:
        content = content[int(key)] if isinstance(content, list) else content.setdefault(key, {})
    content[int(last) if isinstance(content, list) else last] = value


def take_grids(env_config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take each `{grid_search: [...]}` out of an envConfig: return it with the first value of each, and the grids by
    their names in a space. Raises OptionError where a grid has no values, or stands below a name with a dot."""
    grids = {ENV_CONFIG + ".".join(keys): {"grid_search": values} for keys, values in _grids(env_config, ())}
    return with_env_values(env_config, {name: each["grid_search"][0] for name, each in grids.items()}), grids


def _grids(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Find the grids below `keys` of an envConfig."""
    if isinstance(content, Mapping) and content.keys() == {"grid_search"}:
        values, place = content["grid_search"], f"spec.envConfig.{'.'.join(keys)}"
        if not keys or not isinstance(values, list) or not values:
            raise OptionError(f"{place}.grid_search: takes a list of values, got {values!r}", ("spec", "envConfig"))
        if any("." in key for key in keys):
            raise OptionError(f"{place}: there is no search below a name with a dot", ("spec", "envConfig"))
        yield keys, values
        return
    items = enumerate(content) if isinstance(content, list) else content.items() if isinstance(content, Mapping) else ()
    for key, value in items:
        yield from _grids(value, (*keys, str(key)))


SCHEDULERS: dict[str, tuple[str, ...]] = {
    "FIFO": (),
    "MedianStopping": ("time_attr", "grace_period", "min_samples_required"),
    "AsyncHyperBand": ("time_attr", "max_t", "grace_period", "reduction_factor", "brackets"),
    "HyperBand": ("time_attr", "max_t", "reduction_factor"),
    "PBT": ("time_attr", "perturbation_interval", "quantile_fraction", "resample_probability"),
}
"""Options of each scheduler; unset, Ray Tune's own defaults hold."""
OWNERS = {
    option: [name for name, takes in SCHEDULERS.items() if option in takes]
    for option in dict.fromkeys(option for takes in SCHEDULERS.values() for option in takes)
    if option != "time_attr"
}
"""Schedulers by the option that they have. FIFO has timeAttr too, and makes nothing of it."""


class Scheduler(Model):
    """Which trials go on and which are ended early."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.{to_camel(option)}) || self.name in {sorted(owners)}",
                    f"{to_camel(option)} belongs to {' and '.join(owners)}",
                )
                for option, owners in OWNERS.items()
            )
        )
    )

    name: Literal["FIFO", "MedianStopping", "AsyncHyperBand", "HyperBand", "PBT"] = Field(
        "FIFO",
        description="FIFO ends none; MedianStopping, AsyncHyperBand (ASHA) and HyperBand end the worse ones; PBT has "
        "them go on from the better ones, with options changed.",
    )
    time_attr: Literal["training_iteration", "timesteps_total", "time_total_s"] = Field(
        "training_iteration", description="What maxT, gracePeriod and perturbationInterval count."
    )
    max_t: Count | None = Field(None, description="Where a trial ends, of AsyncHyperBand (100) and HyperBand (81).")
    grace_period: Count | None = Field(
        None, description="Before which no trial is ended, of AsyncHyperBand (1) and MedianStopping (60)."
    )
    reduction_factor: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Of so many trials one goes on, of AsyncHyperBand (4) and HyperBand (3)."
    )
    brackets: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None, description="Brackets with grace periods of their own, of AsyncHyperBand (1)."
    )
    min_samples_required: Count | None = Field(
        None, description="Trials that a median is taken over, at least, of MedianStopping (3)."
    )
    perturbation_interval: Count | None = Field(None, description="Between two exchanges of a trial, of PBT (60).")
    quantile_fraction: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None,
        description="Share of trials that go on from a better one, and of those that they go on from, of PBT (0.25).",
    )
    resample_probability: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="How often an option is drawn anew rather than changed by a fifth, of PBT (0.25)."
    )

    @model_validator(mode="after")
    def _its_own(self) -> Self:
        for name in self.model_fields_set - {"name", "time_attr", *SCHEDULERS[self.name]}:
            if getattr(self, name) is not None:
                raise ValueError(f"{self.name} takes no {to_camel(name)}: it belongs to {' and '.join(OWNERS[name])}")
        return self


class Search(Model):
    """Where the options of the next trial come from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.randomTrials) || self.name != 'Random'", "Random takes no randomTrials: all of its trials are")
        )
    )

    name: Literal["Random", "HyperOpt", "Optuna"] = Field(
        "Random",
        description="Random draws each by itself, and walks through grids; HyperOpt and Optuna learn from the trials "
        "before (tree of Parzen estimators).",
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="Of what is drawn.")
    random_trials: Count | None = Field(
        None, description="Trials drawn at random before HyperOpt (20) or Optuna (10) learn from them."
    )

    @model_validator(mode="after")
    def _its_own(self) -> Self:
        if self.name == "Random" and self.random_trials is not None:
            raise ValueError("Random takes no randomTrials: all of its trials are")
        return self


class TrialResources(Model):
    """What one trial reserves."""

    cpu: Annotated[float, Field(gt=0, le=4096)] | None = Field(
        None,
        description="CPUs of the process that learns. Unset, 1. Workers reserve num_cpus_per_worker each beside it.",
    )
    gpu: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Part of a GPU that each learner gets, where num_gpus is 1: 0.5 lets two share one. Unset, 1."
    )


class Tune(Model):
    """A search: trials of this experiment whose options differ."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.search.name == 'Random' || (has(self.space) && size(self.space) > 0)",
                "the searches HyperOpt and Optuna search in space, which is empty",
            ),
            (
                "self.scheduler.name != 'PBT' || (has(self.space) && size(self.space) > 0)",
                "the scheduler PBT changes the options in space, which is empty",
            ),
        )
    )

    num_samples: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1, description="Trials; with grids, times that each point of the grid is tried."
    )
    space: dict[str, Domain] = Field(
        default_factory=dict,
        description="Options, and where their values come from; a name that begins with env_config. is one in "
        "envConfig, where {grid_search: [...]} may stand itself.",
        json_schema_extra={
            "maxProperties": len(_NAMES),
            **rules(
                (
                    f"self.all(name, name in {_NAMES} || name.startsWith('{ENV_CONFIG}'))",
                    "unknown option: rltrainer describe ALGORITHM lists them all",
                )
            ),
        },
    )
    metric: Literal["episode_reward_mean", "evaluation/episode_reward_mean", "episode_len_mean"] = Field(
        "episode_reward_mean", description="What trials are compared by."
    )
    mode: Literal["max", "min"] = Field("max", description="Whether the largest or the smallest is the best.")
    scheduler: Scheduler = Field(default_factory=Scheduler, description="Which trials are ended early.")
    search: Search = Field(default_factory=Search, description="Where options come from.")
    max_concurrent_trials: Count | None = Field(
        None, description="Trials at the same time, at most. Unset, as many as the cluster can grow to hold."
    )
    resources_per_trial: TrialResources = Field(default_factory=TrialResources, description="What one trial reserves.")
    max_failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        3, description="Times that a failed trial goes on from its newest checkpoint. The others are not disturbed."
    )

    def check(self, run: str, config: dict[str, Any]) -> None:
        """Hold options searched over, and their values, against algorithm `run`. Raises OptionError."""
        known = option_names(for_algorithm(run))
        for name, domain in algorithm_options(self.space).items():
            for value in domain.examples() if name in known else [None]:
                parse_options(run, {**config, name: value}, where="spec.tune.space")
        if self.resources_per_trial.gpu is not None and not config.get("num_gpus"):
            raise OptionError("spec.tune.resourcesPerTrial.gpu needs spec.config.num_gpus: 1, or the GPU would idle")
        grids = [name for name, domain in self.space.items() if domain.kind == "grid_search"]
        if grids and self.search.name != "Random":
            raise OptionError(f"spec.tune.search {self.search.name} knows no grids: give {grids[0]} a choice instead")
        if self.scheduler.name == "PBT" and not self.space:
            raise OptionError("spec.tune.scheduler PBT changes the options in spec.tune.space, which is empty")
        if self.search.name != "Random" and not self.space:
            raise OptionError(f"spec.tune.search {self.search.name} searches in spec.tune.space, which is empty")
