"""The status of an RLExperiment and of an RLRollout: who reports what, typed.

`training` and `results` are written by the pods that train and roll out, everything else by the operator. The CRDs are
generated from these models too.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from rltrainer.api.base import MAX_TEXT, OPEN, Model, Natural, Text
from rltrainer.api.experiment import Storage

LISTED_RETURNS = 100
"""Returns that a rollout's report lists one by one."""


class Status(Model):
    """A part of a status. A later version may have written fields that this one does not know: they are not read."""

    model_config = ConfigDict(extra="ignore")


class CheckpointRef(Status):
    """A complete checkpoint in storage."""

    uri: Text = Field(description="Its folder.")
    iteration: Natural = Field(description="Iteration it was written after.")
    timesteps_total: Natural = Field(description="Environment steps it was written after.")
    episode_reward_mean: float | None = Field(None, description="Mean return of the last 100 episodes then.")


class Problem(Status):
    """Why the trainer cannot go on, in words."""

    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)] = Field(
        description="CamelCase, for machines."
    )
    message: Text = Field(description="What was wrong, where, and what to do.")

    @classmethod
    def of(cls, reason: str, message: str) -> "Problem":
        """Make one of a message of any length: it is cut to what a status holds."""
        return cls(reason=reason, message=message[:MAX_TEXT])


class SyncStatus(Status):
    """How the uploads stand."""

    pending: Natural = Field(0, description="Checkpoints written on the node and not yet in storage.")
    error: Problem | None = Field(None, description="Why the last upload failed; unset once one succeeds.")


class TrialCounts(Status):
    """How the trials of a search stand."""

    pending: Natural = Field(0, description="Not begun.")
    running: Natural = Field(0, description="Under way, or paused by the scheduler.")
    terminated: Natural = Field(0, description="Done, by a stop condition or by the scheduler.")
    failed: Natural = Field(0, description="Given up after maxFailures.")
    done: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Terminated and failed ones, of all, for display."
    )


class BestTrial(Status):
    """The trial of a search that its metric puts first."""

    trial: Annotated[str, Field(max_length=253)] = Field(description="Its name, and that of its folder.")
    options: dict[str, Any] = Field(description="The options that were searched over.", json_schema_extra=OPEN)
    reward: float = Field(description="The metric, as the trial reported it last.")
    checkpoint: CheckpointRef | None = Field(None, description="Its best complete checkpoint in storage.")


class Evaluated(Status):
    """What an evaluation found."""

    iteration: Natural = Field(description="Iteration that it followed.")
    timesteps_total: Natural = Field(description="Environment steps that the policy had learned from.")
    episodes: Natural = Field(description="Episodes of it.")
    episode_reward_mean: float = Field(description="Mean return.")
    episode_reward_min: float = Field(description="Smallest return.")
    episode_reward_max: float = Field(description="Largest return.")
    episode_len_mean: float = Field(description="Mean length of an episode, in steps.")


class TrainingStatus(Status):
    """What the trainer reports, as field manager `rltrainer`, at most every few seconds."""

    attempt: Natural = Field(0, description="Attempt that reports.")
    iteration: Natural = Field(0, description="Iterations done, over all attempts.")
    timesteps_total: Natural = Field(0, description="Environment steps, over all attempts.")
    episodes_total: Natural = Field(0, description="Finished episodes, over all attempts.")
    episode_reward_mean: float | None = Field(None, description="Mean return of the last 100 episodes.")
    best_reward: float | None = Field(None, description="Best episode_reward_mean so far.")
    reward: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="episode_reward_mean, rounded for display."
    )
    evaluation: Evaluated | None = Field(
        None, description="The newest evaluation of a run whose document asks for any."
    )
    time_total_s: Annotated[float, Field(ge=0)] = Field(0, description="Seconds of training, over all attempts.")
    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None,
        description="How far the run has come, by the limit in stop that it is nearest to; of a search, trials done. "
        "Unset where only returns stop it.",
    )
    estimated_remaining_seconds: Natural | None = Field(
        None, description="Seconds of training until the first of these limits, at the speed of the last iterations."
    )
    timesteps_per_second: float | None = Field(None, description="Environment steps per second in the last iteration.")
    restored_from: Text | None = Field(None, description="Checkpoint that this attempt started from.")
    checkpoint: CheckpointRef | None = Field(None, description="Newest complete checkpoint in storage.")
    best_checkpoint: CheckpointRef | None = Field(
        None, description="Best complete checkpoint in storage, by scoreAttribute."
    )
    sync: SyncStatus | None = Field(None, description="How the uploads stand.")
    trials: TrialCounts | None = Field(None, description="How the trials stand, of a search.")
    best: BestTrial | None = Field(None, description="The best trial so far, of a search.")
    stopped_by: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Stop condition that ended the run, such as timesteps_total >= 60000."
    )
    error: Problem | None = Field(
        None, description="What is wrong with the document or its environment; no retry helps."
    )
    updated_at: datetime | None = Field(None, description="When this was reported, other than it was before.")
    heartbeat_at: datetime | None = Field(
        None, description="When the trainer was last heard of: every 20 s, whether there is something new or not."
    )


class Condition(Status):
    """A standard Kubernetes condition."""

    type: Annotated[str, Field(max_length=316)] = Field(description="What it is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: Natural = Field(0, description="Generation of the spec that it speaks of.")
    last_transition_time: datetime = Field(description="When status last changed.")
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)] = Field(
        description="CamelCase, for machines."
    )
    message: Annotated[str, Field(max_length=32768)] = Field("", description="For people.")


class Disruption(Status):
    """A pod that was taken from an attempt by what is around it: a lost node, an eviction, a preemption."""

    pod: Annotated[str, Field(max_length=253)] = Field(description="Its name.")
    node: Annotated[str, Field(max_length=253)] | None = Field(None, description="The node that it was on.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="What took it, in Kubernetes' word.")
    message: Text = Field(description="What took it, for people.")
    seen_at: datetime = Field(description="When that was last seen, to half a minute.")


class Attempt(Status):
    """One RayJob in the life of an experiment."""

    number: Natural = Field(description="Counted from 1.")
    outcome: Literal["Running", "Succeeded", "Failed", "Lost", "Suspended", "Replaced", "Invalid"] = Field(
        description="How it stands or ended."
    )
    reason: Annotated[str, Field(max_length=64)] | None = Field(None, description="Why it ended, for machines.")
    message: Text | None = Field(None, description="Why it ended, for people.")
    started_at: datetime | None = Field(None, description="When its RayJob was made.")
    ended_at: datetime | None = Field(None, description="When its end was seen.")
    spec_hash: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Of the part of the document that it ran with: another one asks for another attempt."
    )
    checkpoint_iteration: Natural | None = Field(
        None, description="Iteration of the newest complete checkpoint when it ended, if there was one."
    )
    disruption: Disruption | None = Field(
        None, description="The pod that was taken from it. An attempt that ended by that does not count as a failure."
    )


Phase = Literal["Pending", "Provisioning", "Running", "Retrying", "Suspended", "Succeeded", "Failed", "Invalid"]

Conditions = Annotated[
    list[Condition], Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
]


class ExperimentStatus(Status):
    """How an experiment stands. `training` is the trainer's, everything else the operator's."""

    phase: Phase | None = Field(None, description="One word for how it stands.")
    message: Annotated[str, Field(max_length=32768)] | None = Field(None, description="How it stands, in words.")
    observed_generation: Natural = Field(0, description="Generation of the spec that this speaks of.")
    attempt: Natural = Field(0, description="Number of the newest attempt.")
    failures: Natural = Field(
        0, description="Attempts that failed or were lost, one after the other without a new checkpoint in between."
    )
    attempts: Annotated[list[Attempt], Field(max_length=20)] = Field(
        default_factory=list, description="The newest attempts, oldest first."
    )
    cluster: Annotated[str, Field(max_length=253)] | None = Field(None, description="RayCluster of the attempt.")
    storage_uri: Text | None = Field(None, description="Folder of this run in storage.")
    storage: Storage | None = Field(
        None, description="The operator's storage that this run uses; it stays there when the operator's default moves."
    )
    best: BestTrial | None = Field(None, description="The best trial, of a search.")
    conditions: Conditions = Field(
        default_factory=list,
        description="Accepted, ClusterReady, Training, CheckpointSynced, Suspended, Succeeded, Failed.",
    )
    training: TrainingStatus | None = Field(None, description="The trainer's own report.")


class RolloutResults(Status):
    """Returns over the episodes, reported by the Job's pod as field manager `rltrainer`."""

    episodes: Natural = Field(description="Episodes finished.")
    timesteps: Natural = Field(description="Environment steps.")
    reward_mean: float | None = Field(None, description="Mean return.")
    reward_min: float | None = Field(None, description="Smallest return.")
    reward_max: float | None = Field(None, description="Largest return.")
    reward_stderr: float | None = Field(None, description="Standard error of the mean return.")
    reward: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Mean and standard error, rounded for display."
    )
    episode_len_mean: float | None = Field(None, description="Mean length of an episode, in steps.")
    returns: Annotated[list[float], Field(max_length=LISTED_RETURNS)] = Field(
        default_factory=list, description="Returns of the first 100 episodes."
    )
    checkpoint: Text | None = Field(None, description="The checkpoint that was run.")
    trajectories_uri: Text | None = Field(None, description="Where the trajectories are.")
    video_uri: Text | None = Field(None, description="Where the video is.")
    done: bool = Field(False, description="All episodes are finished and everything is in storage.")
    error: Problem | None = Field(None, description="Why it cannot be run; no retry helps.")
    generation: Natural | None = Field(None, description="Generation of the spec that was run.")


class RolloutStatus(Status):
    """How a rollout stands. `results` is its pod's, everything else the operator's."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Invalid"] | None = Field(
        None, description="One word for how it stands."
    )
    message: Annotated[str, Field(max_length=32768)] | None = Field(None, description="How it stands, in words.")
    observed_generation: Natural = Field(0, description="Generation of the spec that this speaks of.")
    conditions: Conditions = Field(default_factory=list, description="Accepted, Succeeded, Failed.")
    job: Annotated[str, Field(max_length=253)] | None = Field(None, description="The Job that runs it.")
    checkpoint: Text | None = Field(None, description="The checkpoint that was chosen.")
    results: RolloutResults | None = Field(None, description="The pod's own report.")
