"""The spec of an RLExperiment: what to train, on what, with which options, until when.

The CRDs in crds/ are generated from the models of this folder. It imports neither torch nor Ray, so that the operator
and `--help` stay light.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rltrainer.api.base import EVALUATED, OPEN, Model, Name, Natural, S3Uri, rules
from rltrainer.api.cluster import Cluster
from rltrainer.api.options import OPTIONS, Count, Options, for_algorithm, parse_options
from rltrainer.api.tune import Tune, take_grids


class Stop(BaseModel):
    """When to stop: the first condition reached ends the run. Without any, it runs until it is suspended or deleted."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    episode_reward_mean: float | None = Field(None, description="Mean return of the last 100 episodes, at least this.")
    evaluation_reward_mean: float | None = Field(
        None, alias=EVALUATED, description="Mean return of an evaluation's episodes, at least this. Needs evaluation."
    )
    timesteps_total: Natural | None = Field(None, description="Environment steps, over all environments and attempts.")
    training_iteration: Natural | None = Field(None, description="Iterations, over all attempts.")
    episodes_total: Natural | None = Field(None, description="Finished episodes, over all attempts.")
    time_total_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Seconds of training, over all attempts."
    )


class Checkpoint(Model):
    """When checkpoints are written and which are kept."""

    frequency: Natural = Field(10, description="Iterations between checkpoints; 0 writes none but those at the end.")
    at_end: bool = Field(True, description="Write one when the run ends or is asked to.")
    keep: Natural = Field(
        3, description="Checkpoints kept: the best by scoreAttribute, and always the newest. 0 keeps all."
    )
    score_attribute: Literal[
        "episode_reward_mean",
        "min-episode_reward_mean",
        "episode_len_mean",
        "min-episode_len_mean",
        "training_iteration",
        "evaluation/episode_reward_mean",
        "min-evaluation/episode_reward_mean",
    ] = Field(
        "episode_reward_mean",
        description="Metric that ranks checkpoints; with min-, the smallest is the best. Those of an evaluation need "
        "evaluation, and a frequency that is a multiple of its interval.",
    )


class Evaluation(Model):
    """Whole episodes in environments of their own, now and then. Training is the same with them and without."""

    interval: Count = Field(10, description="Iterations between evaluations. The policy at the end is evaluated too.")
    episodes: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="Episodes of one evaluation.")
    deterministic: bool = Field(True, description="Take the policy's best actions; false explores as in training.")


_ENDPOINT = r"^https?://[^@/?#\s]+(/[^@?#\s]*)?$"


def _without_credentials(url: Any) -> Any:
    """Return `url` as it is. Raises ValueError, which does not repeat it, where it holds a user or a password."""
    if isinstance(url, str) and "@" in url:
        raise ValueError("must not hold a user or a password: name a Secret in credentialsSecret")
    return url


SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class CredentialsKeys(Model):
    """Names of the keys of a Secret with credentials."""

    access_key_id: SecretKey = Field("AWS_ACCESS_KEY_ID", description="Key of the access key's id.")
    secret_access_key: SecretKey = Field("AWS_SECRET_ACCESS_KEY", description="Key of the secret access key.")
    session_token: SecretKey = Field(
        "AWS_SESSION_TOKEN", description="Key of the token of temporary credentials, which others have not."
    )

    def variables(self) -> dict[str, str]:
        """Return the key in the Secret by the environment variable that it is handed on as."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


class Storage(Model):
    """An S3 bucket or a compatible one."""

    uri: S3Uri = Field(
        description="s3://bucket/prefix. A run writes below <uri>/<namespace>/<name>/<first 8 of its uid>/."
    )
    endpoint: Annotated[str, Field(pattern=_ENDPOINT, max_length=512), BeforeValidator(_without_credentials)] | None = (
        Field(None, description="URL of an S3-compatible server. Unset, AWS.")
    )
    region: Annotated[str, Field(max_length=64)] | None = Field(None, description="Region of the bucket.")
    credentials_secret: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        None,
        description="Secret of the same namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and with "
        "AWS_SESSION_TOKEN where they are temporary. Unset, the pods' own identity (IRSA, workload identity).",
    )
    credentials_keys: CredentialsKeys = Field(
        default_factory=CredentialsKeys, description="What these are called in that Secret, where otherwise."
    )


class RestoreFrom(Model):
    """Where a new run takes its first state from."""

    model_config = ConfigDict(
        json_schema_extra=rules(("has(self.uri) != has(self.experiment)", "restoreFrom takes either uri or experiment"))
    )

    uri: S3Uri | None = Field(
        None, description="S3 URI of a checkpoint folder, read with this experiment's storage settings."
    )
    experiment: Name | None = Field(None, description="An RLExperiment of the same namespace.")
    which: Literal["best", "latest"] = Field("latest", description="Which of that experiment's checkpoints.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.uri is None) == (self.experiment is None):
            raise ValueError("takes either uri or experiment")
        return self


class ExperimentSpec(Model):
    """What to train, on what, with which options, until when."""

    run: Annotated[str, Field(max_length=256)] = Field(
        description=f"The algorithm: {', '.join(sorted(OPTIONS))}, or package.module:NAME for one's own.",
        json_schema_extra=rules(
            (
                f"self in {sorted(OPTIONS)} || self.matches('^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$')",
                f"unknown algorithm: use one of {', '.join(sorted(OPTIONS))}, or package.module:NAME",
            )
        ),
    )
    env: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="A Gymnasium id such as CartPole-v1, or package.module:Class for one's own environment."
    )
    env_config: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the environment, given to it as they are.",
        json_schema_extra=OPEN,
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="Options of the algorithm; each algorithm has its own defaults."
    )
    stop: Stop = Field(default_factory=Stop, description="When to stop.")
    checkpoint: Checkpoint = Field(
        default_factory=Checkpoint, description="When checkpoints are written and which are kept."
    )
    evaluation: Evaluation | None = Field(
        None, description="When the policy is evaluated apart from training, and how. Unset, never."
    )
    storage: Storage | None = Field(
        None, description="Where checkpoints and results go. Unset, the storage of the operator's Helm values."
    )
    tune: Tune | None = Field(
        None, description="A search over options: many trials of this experiment. Unset, one run with config as it is."
    )
    max_failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        3, description="Failed or lost attempts that are followed by another one, from the newest complete checkpoint."
    )
    restore_from: RestoreFrom | None = Field(None, description="A checkpoint to start from instead of from nothing.")
    suspend: bool = Field(
        False, description="Write a checkpoint and let the cluster go; false again goes on from there."
    )
    cluster: Cluster = Field(default_factory=Cluster, description="The Ray cluster. Not read on a laptop.")

    @model_validator(mode="before")
    @classmethod
    def _grids_in_env_config(cls, content: Any) -> Any:
        """Make a `grid_search` in envConfig one of the search."""
        given = content if isinstance(content, Mapping) else {}
        name = "envConfig" if "envConfig" in given else "env_config"
        env_config, grids = take_grids(given[name]) if isinstance(given.get(name), Mapping) else ({}, {})
        tune = given.get("tune") or {}
        tune = tune.model_dump(by_alias=True, exclude_unset=True) if isinstance(tune, Tune) else tune
        if not grids or not isinstance(tune, Mapping) or not isinstance(tune.get("space", {}), Mapping):
            return content  # what is wrong with a field is said of it when it is read
        return {**given, name: env_config, "tune": {**tune, "space": {**tune.get("space", {}), **grids}}}

    @model_validator(mode="after")
    def _known_algorithm(self) -> Self:
        for_algorithm(self.run)
        return self

    @model_validator(mode="after")
    def _evaluated(self) -> Self:
        ranked = self.checkpoint.score_attribute.endswith(EVALUATED)
        if self.evaluation is None:
            if self.tune is not None and self.tune.metric == EVALUATED:
                raise ValueError(
                    f"tune.metric {EVALUATED} needs evaluation, which is not set: evaluation: {{}} is enough"
                )
            if self.stop.evaluation_reward_mean is not None:
                raise ValueError(f"stop.{EVALUATED} needs evaluation, which is not set: evaluation: {{}} is enough")
            if ranked:
                raise ValueError(
                    f"checkpoint.scoreAttribute {self.checkpoint.score_attribute} needs evaluation, which is not set: "
                    "evaluation: {} is enough"
                )
        elif ranked and self.checkpoint.frequency % self.evaluation.interval:
            raise ValueError(
                f"checkpoint.frequency {self.checkpoint.frequency} must be a multiple of evaluation.interval "
                f"{self.evaluation.interval}, or checkpoints have no {EVALUATED} to be ranked by"
            )
        return self

    def options(self) -> Options:
        """Return the checked options of the algorithm, defaults filled in. Raises OptionError."""
        return self._options

    @cached_property
    def _options(self) -> Options:
        return parse_options(self.run, self.config)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the spec with other values; its options are then read anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_options", None)
        return copied
