"""The documents RLExperiment and RLRollout: the one place where their schema is written.

The CRDs in crds/ are generated from these models and those of statuses.py. Imports neither torch nor Ray, so that the
operator and `--help` stay light.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rltrainer.model import EVALUATED, OPEN, Model, rules
from rltrainer.options import OPTIONS, Count, OptionError, Options, describe, for_algorithm, parse_options
from rltrainer.tune_spec import Tune
from rltrainer.yaml_file import YamlFile

GROUP = "rltrainer.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURALS = {"RLExperiment": "rlexperiments", "RLRollout": "rlrollouts"}
"""The names of the kinds in the API server's paths."""

MAX_NAME = 40
"""Characters of an experiment's name. KubeRay allows a RayJob 47, and attempt N is named `<name>-a<N>`."""

Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else value),
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
        max_length=32,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
]
"""An amount as Kubernetes writes it: 4, "500m", 16Gi."""
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=MAX_NAME)]
S3Uri = Annotated[str, Field(pattern=r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/.*)?$", max_length=1024)]
Text = Annotated[str, Field(max_length=4096)]
Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]


class DocumentError(ValueError):
    """A document that cannot be run, with a message for whoever wrote it."""


class Stop(BaseModel):
    """When to stop: the first condition reached ends the run. Without any, it runs until it is suspended or deleted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    frequency: Annotated[int, Field(ge=0)] = Field(
        10, description="Iterations between checkpoints; 0 writes none but those at the end."
    )
    at_end: bool = Field(True, description="Write one when the run ends or is asked to.")
    keep: Annotated[int, Field(ge=0)] = Field(
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


class Storage(Model):
    """An S3 bucket or a compatible one."""

    uri: S3Uri = Field(
        description="s3://bucket/prefix. A run writes below <uri>/<namespace>/<name>/<first 8 of its uid>/."
    )
    endpoint: Annotated[str, Field(pattern=r"^https?://", max_length=512)] | None = Field(
        None, description="URL of an S3-compatible server. Unset, AWS."
    )
    region: Annotated[str, Field(max_length=64)] | None = Field(None, description="Region of the bucket.")
    credentials_secret: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        None,
        description="Secret of the same namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. "
        "Unset, the pods' own identity (IRSA, workload identity).",
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


class Pods(Model):
    """The pods of the head, or of a group of workers."""

    cpu: Quantity = Field("1", description="CPU requested, and the limit. Ray counts it in whole CPUs.")
    memory: Quantity = Field("2Gi", description="Memory requested, and the limit.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes to run on.")
    tolerations: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Taints to tolerate, as in a Pod.",
        json_schema_extra={"items": {"type": "object", **OPEN}},
    )
    pod_template: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged over the operator's own pod template; containers, volumes and env are merged by name.",
        json_schema_extra=OPEN,
    )


class Workers(Pods):
    """A group of equal workers, scaled by Ray's autoscaler between minReplicas and maxReplicas."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas"))
    )

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=20)] = Field(
        description="Name of the group."
    )
    min_replicas: Annotated[int, Field(ge=0, le=10000)] = Field(0, description="Fewest workers.")
    max_replicas: Annotated[int, Field(ge=1, le=10000)] = Field(1, description="Most workers.")
    gpus: Annotated[int, Field(ge=0, le=64)] = Field(0, description="GPUs of each worker.")
    gpu_resource: Annotated[str, Field(max_length=128)] = Field("nvidia.com/gpu", description="Resource name of a GPU.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} exceeds maxReplicas {self.max_replicas}")
        return self


class Head(Pods):
    """The head pod: Ray's control plane, and the trainer itself."""

    cpu: Quantity = Field(
        "1", description="CPU requested, and the limit. The trainer runs here; samplers run on workers."
    )
    memory: Quantity = Field("4Gi", description="Memory requested, and the limit.")


class Autoscaling(Model):
    """Ray's in-tree autoscaler."""

    idle_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        60, description="Seconds after which an idle worker goes."
    )
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = Field(
        "Default", description="How fast workers are added."
    )


class Cluster(Model):
    """The Ray cluster of each attempt. Not read on a laptop."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Trainer image. Unset, the one of the operator's Helm values."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="As in a Pod.")
    image_pull_secrets: list[str] = Field(default_factory=list, description="Names of Secrets for the registry.")
    head: Head = Field(default_factory=Head, description="The head pod.")
    workers: Annotated[list[Workers], Field(max_length=16)] = Field(
        default_factory=list,
        description="Groups of workers. Needed where config.num_workers or config.num_gpus is above 0.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    autoscaling: Autoscaling = Field(default_factory=Autoscaling, description="The autoscaler.")
    grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        60, description="Seconds that the trainer has to write a checkpoint when it is told to end."
    )
    keep_seconds_after_finished: Annotated[int, Field(ge=0)] = Field(
        0, description="Seconds that the cluster stays after the run has ended, to look at it."
    )
    queue_name: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Kueue LocalQueue that admits the attempts."
    )
    priority_class_name: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Priority class of the pods."
    )


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
        """The checked options of the algorithm, defaults filled in. Raises OptionError."""
        return parse_options(self.run, self.config)


class Metadata(BaseModel):
    """Name and place of a document. What else Kubernetes keeps there is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name = Field(description="Name of the experiment.")
    namespace: str | None = Field(None, description="Namespace in a cluster.")
    uid: str | None = Field(None, description="Set by the API server.")


class RolloutSpec(Model):
    """Which policy to run, for how long, and what to keep of it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.experiment) != has(self.checkpoint)", "an RLRollout takes either experiment or checkpoint")
        )
    )

    experiment: Name | None = Field(
        None, description="An RLExperiment of the same namespace; storage and image are taken from it."
    )
    which: Literal["best", "latest"] = Field("best", description="Which of the experiment's checkpoints.")
    checkpoint: S3Uri | None = Field(None, description="S3 URI of a checkpoint folder, instead of an experiment.")
    storage: Storage | None = Field(
        None,
        description="How to reach the checkpoint, and where results go. Unset, the experiment's or the operator's.",
    )
    episodes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(10, description="Episodes to run.")
    steps: Count | None = Field(None, description="Environment steps after which no new episode begins.")
    deterministic: bool = Field(True, description="Take the policy's mode; false samples from it.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="Seed of the first episode; each next one has the next seed."
    )
    out: bool = Field(False, description="Write each episode's observations, actions and rewards to storage.")
    video: bool = Field(False, description="Record the first episode to storage.")
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Trainer image. Unset, the experiment's or the operator's."
    )
    pods: Pods = Field(default_factory=Pods, description="The pod that runs it.")
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        2, description="Failed pods that are followed by another one."
    )


At = Callable[[Sequence[str | int]], str]
"""Says where a field, given as the keys that lead to it, is written."""


def read_yaml(path: str | os.PathLike[str]) -> YamlFile:
    """The file at `path`, which holds an object. Raises DocumentError."""
    try:
        found = YamlFile.read(Path(path))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None
    if not isinstance(found.content, dict):
        raise DocumentError(f"{path} holds no document: one begins with apiVersion: {API_VERSION}")
    return found


def _field(problem: Any) -> Sequence[str | int]:
    """The keys that lead to what pydantic found wrong; an error about an option says itself which one it is."""
    error = problem.get("ctx", {}).get("error")
    found: Sequence[str | int] = error.field if isinstance(error, OptionError) else problem["loc"]
    return found


class Document(Model):
    """A document of ours as a person writes it: what an Experiment and a Rollout share."""

    api_version: Literal["rltrainer.io/v1alpha1"] = Field("rltrainer.io/v1alpha1", alias="apiVersion")
    metadata: Metadata

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """The checked document in file `path`. Raises DocumentError with the file, the line and the field."""
        found = read_yaml(path)
        return cls.parse(found.content, where=str(path), at=found.at)

    @classmethod
    def parse(cls, document: dict[str, Any], where: str = "document", at: At | None = None) -> Self:
        """The checked document; a `status` in it is not read. `at` says where a field stands, else it is `where`.

        Raises DocumentError that names the field."""
        place = at or (lambda field: where)
        try:
            parsed = cls.model_validate({key: value for key, value in document.items() if key != "status"})
            parsed.check()
        except ValidationError as error:
            problems = ((problem, place(_field(problem))) for problem in error.errors())
            said = (describe(problem, f"{there}: ", cls) for problem, there in problems)
            raise DocumentError("\n".join(said)) from None
        except OptionError as error:
            raise DocumentError(f"{place(error.field)}: {error}") from None
        return parsed

    def check(self) -> None:
        """What the schema alone cannot say. Raises OptionError."""


class Experiment(Document):
    """An RLExperiment as a person writes it."""

    kind: Literal["RLExperiment"] = "RLExperiment"
    spec: ExperimentSpec

    def check(self) -> None:
        """The options are those of the algorithm named, and so are those searched over. Raises OptionError."""
        self.spec.options()
        if self.spec.tune is not None:
            self.spec.tune.check(self.spec.run, self.spec.config)


class Rollout(Document):
    """An RLRollout as a person writes it."""

    kind: Literal["RLRollout"] = "RLRollout"
    spec: RolloutSpec


def read_document(path: str | os.PathLike[str]) -> Experiment | Rollout:
    """The checked document in file `path`, of the kind that it names. Raises DocumentError."""
    found = read_yaml(path)
    kinds: dict[Any, type[Experiment | Rollout]] = {"RLExperiment": Experiment, "RLRollout": Rollout}
    kind = found.content.get("kind", "RLExperiment")
    if kind not in kinds:
        raise DocumentError(f"{found.at(('kind',))}: kind {kind} is none of {', '.join(kinds)}")
    return kinds[kind].parse(found.content, where=str(path), at=found.at)
