"""The spec of an RLRollout."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rltrainer.api.base import Model, Name, S3Uri, rules
from rltrainer.api.cluster import Pods, ServiceAccount
from rltrainer.api.experiment import Storage
from rltrainer.api.options import Count


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
    service_account: ServiceAccount | None = Field(
        None, description="Who its pod is. Unset, as the experiment's document says."
    )
    pods: Pods = Field(default_factory=Pods, description="The pod that runs it.")
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        2, description="Failed pods that are followed by another one."
    )
