"""The behavior of an experiment as rows: what is observed, and what comes out."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from rloperator.experiment.reconcile import reconcile
from rloperator.experiment.view import ExperimentView
from rloperator.kube.types import Manifest, Observed, Outcome, conditions_of, format_time

from rltrainer.api.experiment import Storage
from tests.unit.operator import builders as b

LEAVING = {"deletionTimestamp": "2030-01-01T11:59:00Z"}


@dataclass(frozen=True)
class Row:
    what: str
    observed: Observed
    phase: str
    reason: tuple[str, str, str] | None = None
    """A condition: type, status, reason."""
    created: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    failures: int = 0
    events: tuple[str, ...] = ()
    requeue: float | None = None
    message: str = ""


def see(
    status: Manifest | None = None,
    jobs: tuple[Manifest, ...] = (),
    clusters: tuple[Manifest, ...] = (),
    pods: tuple[Manifest, ...] = (),
    source: Manifest | None = None,
    **spec: Any,
) -> Observed:
    """What is observed; a job that runs has a ready head pod, unless it is said which pods there are."""
    heads = tuple(b.pod(int(job["metadata"]["name"][-1]), **b.READY) for job in jobs if is_running(job))
    return Observed(b.experiment(status, **spec), jobs, clusters, pods or heads, source)


def is_running(job: Manifest) -> bool:
    return bool(job["status"].get("jobDeploymentStatus") == "Running" and "deletionTimestamp" not in job["metadata"])


def leaving(child: Manifest) -> Manifest:
    return child | {"metadata": child["metadata"] | LEAVING}


TRAINED: Manifest = {"attempt": 1, "stoppedBy": "timesteps_total", "timestepsTotal": 1000, "reward": "480.0",
                     "checkpoint": {"uri": b.FOLDER + "/checkpoints/checkpoint_000010"}}  # fmt: skip
BROKEN: Manifest = {"attempt": 1, "error": {"reason": "EnvironmentNotFound", "message": 'No environment "CartPool"'}}
SOURCE: Manifest = {
    "status": {"training": {"checkpoint": {"uri": "s3://o/c1"}, "bestCheckpoint": {"uri": "s3://o/b1"}}}
}
TUNE: Manifest = {"numSamples": 8, "space": {"lr": {"uniform": [0.1, 0.2]}}}
BEST: Manifest = {"trial": "PPO_3", "options": {"lr": 0.125}, "reward": 487.25,
                  "checkpoint": {"uri": b.FOLDER + "/PPO_3/checkpoints/checkpoint_000010", "iteration": 10,
                                 "timestepsTotal": 10240}}  # fmt: skip
SEARCHING: Manifest = {"attempt": 1, "timestepsTotal": 1000, "reward": "487.2", "checkpoint": BEST["checkpoint"],
                       "bestCheckpoint": BEST["checkpoint"], "best": BEST,
                       "trials": {"pending": 1, "running": 2, "terminated": 4, "failed": 1, "done": "5/8"}}  # fmt: skip
SEARCHED: Manifest = SEARCHING | {"stoppedBy": "all trials are done", "trials": {"terminated": 8, "done": "8/8"}}


def ended(container: str, code: int, **state: Any) -> Manifest:
    """A head pod's status with one container that has ended."""
    kind = "containerStatuses" if container in ("ray-head", "ray-job-submitter") else "initContainerStatuses"
    return b.READY | {
        "phase": "Failed",
        kind: [{"name": container, "state": {"terminated": {"exitCode": code, **state}}}],
    }


GONE = ("cartpole-a1",)
UNNOTICED: tuple[tuple[str, Manifest, Manifest, Manifest, str, str, tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        "the trainer is done",
        ended("ray-job-submitter", 0),
        TRAINED,
        {},
        "Succeeded",
        "Succeeded",
        GONE,
        ("Succeeded",),
        "Stopped by timesteps_total after 1000 steps",
    ),
    (
        "the trainer rejects the document",
        ended("ray-job-submitter", 1),
        BROKEN,
        {},
        "Invalid",
        "Invalid",
        GONE,
        ("EnvironmentNotFound",),
        'No environment "CartPool"',
    ),
    (
        "the trainer is killed",
        ended("ray-job-submitter", 1, message="log\n\nkilled by a signal\n"),
        {"attempt": 1},
        {},
        "Retrying",
        "Failed",
        GONE,
        ("AttemptFailed",),
        'Container "ray-job-submitter" of the head pod ended with exit code 1: killed by a signal. Attempt 2 follows',
    ),
    (
        "the head is out of memory",
        ended("ray-head", 137, reason="OOMKilled"),
        {},
        {"maxFailures": 0},
        "Failed",
        "Failed",
        GONE,
        ("AttemptFailed", "Failed"),
        "The head ran out of memory and was killed: raise",
    ),
    (
        "an init container fails",
        ended("fetch", 42, reason="Error"),
        {},
        {},
        "Retrying",
        "Failed",
        GONE,
        ("AttemptFailed",),
        'Container "fetch" of the head pod ended with exit code 42. Attempt 2 follows',
    ),
    (
        "an init container is done",
        ended("fetch", 0),
        {"attempt": 1},
        {},
        "Running",
        "Running",
        (),
        ("ClusterReady", "Training"),
        "Attempt 1 is training",
    ),
    (
        "a container of somebody else ends",
        ended("sidecar", 0),
        {"attempt": 1},
        {},
        "Running",
        "Running",
        (),
        ("ClusterReady", "Training"),
        "Attempt 1 is training",
    ),
)

ROWS = (
    Row("a new document starts attempt 1", see(), "Provisioning", ("Accepted", "True", "Accepted"),
        created=("cartpole-a1",), outcomes=("Running",), events=("AttemptStarted",), requeue=2.0),
    Row("an attempt that the status does not know is adopted, not made again", see(jobs=(b.rayjob(1, **b.RUNNING),)),
        "Running", outcomes=("Running",), events=("AttemptStarted", "ClusterReady", "Training")),
    Row("an adopted attempt that has ended already",
        see(b.status(training=TRAINED), (b.rayjob(1, **b.SUCCEEDED),)), "Succeeded",
        outcomes=("Succeeded",), events=("AttemptStarted", "Succeeded")),
    Row("a running job", see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),)), "Running",
        ("Training", "True", "Training"), outcomes=("Running",), events=("ClusterReady", "Training")),
    Row("a job whose cluster comes up", see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Initializing"),)),
        "Provisioning", ("ClusterReady", "False", "Provisioning"), outcomes=("Running",)),
    Row("a job that waits in its queue", see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Suspended"),)),
        "Pending", ("ClusterReady", "False", "WaitingForAdmission"), outcomes=("Running",),
        events=("WaitingForAdmission",)),
    Row("a running job that its queue sends back",
        see(b.status(b.record(1), training={"attempt": 1}), (b.rayjob(1, jobDeploymentStatus="Suspended"),)),
        "Pending", ("Training", "False", "WaitingForAdmission"), outcomes=("Running",),
        events=("WaitingForAdmission",)),
    Row("success", see(b.status(b.record(1), training=TRAINED), (b.rayjob(1, **b.SUCCEEDED),)), "Succeeded",
        ("Succeeded", "True", "StopConditionReached"), outcomes=("Succeeded",),
        events=("Succeeded",), message="Stopped by timesteps_total after 1000 steps, reward 480.0"),
    Row("success stays, with the job gone and the document changed",
        see(b.status(b.record(1, "Succeeded")), env="Acrobot-v1"), "Succeeded", outcomes=("Succeeded",),
        events=("Succeeded",)),
    Row("a document that was changed after its end is not run, and says so",
        see(b.status(b.record(1, "Succeeded"), training=TRAINED), stop={"timesteps_total": 10**9}), "Succeeded",
        outcomes=("Succeeded",), events=("Succeeded",),
        message="reward 480.0. The document was changed after that, and is not run again: for more, write a new "
        "experiment with restoreFrom.experiment cartpole"),
    Row("a cluster that is kept is let go when suspension is asked for",
        see(b.status(b.record(1, "Succeeded")), (b.rayjob(1, **b.SUCCEEDED),), suspend=True), "Succeeded",
        deleted=("cartpole-a1",), outcomes=("Succeeded",), events=("Succeeded",)),
    Row("a failure after a new checkpoint is the first one again",
        see(b.status(b.record(3, "Failed", checkpointIteration=10), b.record(4), failures=3,
                     training={"attempt": 4, "checkpoint": {"uri": "s3://b/c", "iteration": 20}}),
            (b.rayjob(4, **b.failed()),)),
        "Retrying", outcomes=("Failed", "Failed"), failures=1, events=("AttemptFailed",), requeue=10.0),
    Row("a failure without a new checkpoint is one more",
        see(b.status(b.record(2, "Failed", checkpointIteration=20), b.record(3), failures=2,
                     training={"attempt": 3, "checkpoint": {"uri": "s3://b/c", "iteration": 20}}),
            (b.rayjob(3, **b.failed()),)),
        "Retrying", outcomes=("Failed", "Failed"), failures=3, events=("AttemptFailed",), requeue=40.0),
    *(Row(f"before KubeRay looks: {what}", see(b.status(b.record(1), training=report),
          (b.rayjob(1, jobDeploymentStatus="Initializing"),), pods=(b.pod(1, **end),), **spec), phase,
          outcomes=(outcome,), deleted=deleted, failures=int(outcome == "Failed"), events=events, message=message,
          requeue=10.0 if phase == "Retrying" else None)
      for what, end, report, spec, phase, outcome, deleted, events, message in UNNOTICED),
    Row("an attempt that reports nothing new for too long",
        see(b.status(b.record(1), training={"attempt": 1, "updatedAt": format_time(b.NOW - timedelta(seconds=61))}),
            (b.rayjob(1, **b.RUNNING),), cluster={"stallTimeoutSeconds": 60}), "Retrying", outcomes=("Failed",),
        failures=1, deleted=("cartpole-a1",), events=("AttemptFailed",), requeue=10.0,
        message="no progress for 60 s, which is spec.cluster.stallTimeoutSeconds"),
    Row("an attempt that reported a while ago",
        see(b.status(b.record(1, specHash=b.hash_of(cluster={"stallTimeoutSeconds": 60})),
                     training={"attempt": 1, "updatedAt": format_time(b.NOW - timedelta(seconds=59))}),
            (b.rayjob(1, **b.RUNNING),), cluster={"stallTimeoutSeconds": 60}), "Running", outcomes=("Running",),
        events=("ClusterReady", "Training")),
    Row("a cluster that is not there in time",
        see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Failed", reason="PreRunningDeadlineExceeded"),)),
        "Retrying", outcomes=("Failed",), failures=1, events=("AttemptFailed",), requeue=10.0,
        message="Its cluster was not there within spec.cluster.startDeadlineSeconds"),
    Row("a clock that goes back does not stretch the wait",
        see(b.status(b.record(1, "Failed", ago=-86400), failures=1)), "Retrying", outcomes=("Failed",), failures=1,
        requeue=10.0),
    Row("fields of a later version's status are no obstacle",
        see(b.status(b.record(1, exitCode=137)), (b.rayjob(1, **b.RUNNING),)), "Running", outcomes=("Running",),
        events=("ClusterReady", "Training")),
    Row("two experiments that wait for each other", see(source={"spec": {"restoreFrom": {"experiment": "cartpole"}}},
                                                        restoreFrom={"experiment": "other"}), "Invalid",
        ("Accepted", "False", "RestoreFromRing"), events=("RestoreFromRing",)),
    Row("an experiment to restore from that has ended without a checkpoint",
        see(source={"spec": {}, "status": {"phase": "Failed"}}, restoreFrom={"experiment": "other"}), "Pending",
        message="to have a checkpoint. It is Failed without one, and has none before it trains again"),
    Row("an experiment to restore from that waits itself",
        see(source={"spec": {"restoreFrom": {"experiment": "third"}}}, restoreFrom={"experiment": "other"}), "Pending",
        message='to have a checkpoint, which itself waits for one of "third"'),
    Row("success stays when suspension is asked for afterwards",
        see(b.status(b.record(1, "Succeeded")), suspend=True), "Succeeded", outcomes=("Succeeded",),
        events=("Succeeded",)),
    Row("the job was deleted after the trainer had reported its end",
        see(b.status(b.record(1), training=TRAINED)), "Succeeded", outcomes=("Succeeded",), events=("Succeeded",)),
    Row("a lost head is a failure, and the next attempt waits",
        see(b.status(b.record(1)), (b.rayjob(1, **b.failed()),)), "Retrying", ("Training", "False", "AppFailed"),
        outcomes=("Failed",), failures=1, events=("AttemptFailed",), requeue=10.0, message="head pod was lost"),
    Row("a job that is gone is a lost attempt", see(b.status(b.record(1))), "Retrying",
        outcomes=("Lost",), failures=1, events=("AttemptLost",), requeue=10.0),
    Row("a job stopped by somebody is no success", see(b.status(b.record(1)), (b.rayjob(1, **b.STOPPED),)),
        "Retrying", outcomes=("Failed",), failures=1, events=("AttemptFailed",), requeue=10.0,
        message="Attempt 1 failed. Its Ray job was stopped by somebody else. Attempt 2 follows after 10 s"),
    Row("Ray's pages of log become a line",
        see(b.status(b.record(1)), (b.rayjob(1, **b.failed(
            "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
            "iteration 1\nerror: the disk is full\n")),)),
        "Retrying", outcomes=("Failed",), failures=1, events=("AttemptFailed",), requeue=10.0,
        message="Job entrypoint command failed with exit code 1: error: the disk is full"),
    Row("after the wait what is left of the failed attempt goes first",
        see(b.status(b.record(1, "Failed"), failures=1), (b.rayjob(1, **b.failed()),), pods=(b.pod(1),)), "Retrying",
        ("ClusterReady", "False", "WaitingForPods"), deleted=("cartpole-a1",), outcomes=("Failed",), failures=1,
        requeue=2.0),
    Row("a job that is going is not deleted twice",
        see(b.status(b.record(1, "Failed"), failures=1), (leaving(b.rayjob(1, **b.failed())),)), "Retrying",
        outcomes=("Failed",), failures=1, requeue=2.0),
    Row("never two trainers: a pod that is still there is waited for",
        see(b.status(b.record(1, "Failed"), failures=1), pods=(leaving(b.pod(1)),)), "Retrying",
        outcomes=("Failed",), failures=1, requeue=2.0,
        message="Waiting for what is left of an earlier attempt to be deleted: pod cartpole-a1-head"),
    Row("what stays for long is left to the sweep",
        see(b.status(b.record(1, "Failed"), failures=1), pods=(b.pod(1) | {"metadata": b.pod(1)["metadata"] | {
            "deletionTimestamp": format_time(b.NOW - timedelta(seconds=91))}},)), "Retrying",
        outcomes=("Failed",), failures=1, message="pod cartpole-a1-head"),
    Row("then the next attempt starts", see(b.status(b.record(1, "Failed"), failures=1)), "Provisioning",
        created=("cartpole-a2",), outcomes=("Failed", "Running"), failures=1, events=("AttemptStarted",), requeue=2.0),
    Row("the third failure waits four times as long",
        see(b.status(b.record(3, "Failed", ago=30), failures=3)), "Retrying", outcomes=("Failed",), failures=3,
        requeue=10.0, message="Attempt 3 failed. Attempt 4 follows after 40 s"),
    Row("more failures than allowed", see(b.status(b.record(4, "Failed"), failures=4)), "Failed",
        ("Failed", "True", "Failed"), outcomes=("Failed",), failures=4, events=("Failed",),
        message="Attempt 4 failed. There were 4 failures, and maxFailures is 3: raise it to go on"),
    Row("raising maxFailures goes on", see(b.status(b.record(4, "Failed", ago=400), failures=4), maxFailures=4),
        "Provisioning", created=("cartpole-a5",), outcomes=("Failed", "Running"), failures=4,
        events=("AttemptStarted",), requeue=2.0),
    Row("the trainer says that no retry helps",
        see(b.status(b.record(1), training=BROKEN), (b.rayjob(1, **b.failed("exit code 2")),)), "Invalid",
        ("Accepted", "False", "EnvironmentNotFound"), outcomes=("Invalid",), events=("EnvironmentNotFound",)),
    Row("an error of an earlier attempt is not this one's",
        see(b.status(b.record(1, "Invalid"), b.record(2), training=BROKEN), (b.rayjob(2, **b.failed()),)),
        "Retrying", outcomes=("Invalid", "Failed"), failures=1, events=("AttemptFailed",), requeue=10.0),
    Row("a correction starts the next attempt",
        see(b.status(b.record(1, "Invalid", specHash="another"), training=BROKEN)), "Provisioning",
        ("Accepted", "True", "Accepted"), created=("cartpole-a2",), outcomes=("Invalid", "Running"),
        events=("AttemptStarted",), requeue=2.0),
    Row("KubeRay refuses the job", see(b.status(b.record(1)), (b.rayjob(1, **b.INVALID),)), "Invalid",
        ("Accepted", "False", "ValidationFailed"), outcomes=("Invalid",), events=("ValidationFailed",)),
    Row("an option of another algorithm", see(run="A2C", config={"clip": 0.1}), "Invalid",
        ("Accepted", "False", "InvalidOption"), events=("InvalidOption",), message="PPO"),
    Row("a document that is none, while an attempt of an earlier one runs",
        see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),), config={"clip": "wide"}), "Running",
        ("Accepted", "False", "InvalidOption"), outcomes=("Running",),
        events=("InvalidOption", "ClusterReady", "Training")),
    Row("a change that the attempt cannot become ends it, written down first",
        see(b.status(b.record(1, specHash="another")), (b.rayjob(1, **b.RUNNING),)), "Provisioning",
        ("ClusterReady", "False", "DocumentChanged"), deleted=("cartpole-a1",), outcomes=("Replaced",),
        events=("AttemptReplaced",), requeue=2.0),
    Row("a replaced attempt goes all the way, the document being as before by now",
        see(b.status(b.record(1, "Replaced")), (b.rayjob(1, **b.RUNNING),)), "Provisioning",
        deleted=("cartpole-a1",), outcomes=("Replaced",), requeue=2.0),
    Row("a replaced attempt that is gone is followed at once, and is no failure",
        see(b.status(b.record(1, "Replaced", ago=0))), "Provisioning", created=("cartpole-a2",),
        outcomes=("Replaced", "Running"), events=("AttemptStarted",), requeue=2.0),
    Row("an attempt that reached its end before it was ended has succeeded",
        see(b.status(b.record(1, "Replaced"), training=TRAINED), (b.rayjob(1, **b.SUCCEEDED),)), "Succeeded",
        outcomes=("Succeeded",), events=("Succeeded",)),
    *(Row(f"an end is not final while its report is missing: {what}",
          see(b.status(b.record(1, checkpointIteration=None), training=training), (b.rayjob(1, **job),), pods=pods),
          "Retrying", ("Training", "False", "ReportMissing"), outcomes=("Failed",), failures=1, deleted=deleted,
          events=("AttemptFailed",), requeue=10.0,
          message="but its last report is missing: the next attempt finds how it ended. Attempt 2 follows")
      for what, training, job, pods, deleted in (
          ("nothing is reported", {}, b.SUCCEEDED, (), ()),
          ("an earlier attempt's is", TRAINED | {"attempt": 0}, b.SUCCEEDED, (), ()),
          ("one of long ago is", {"attempt": 1, "iteration": 3}, b.SUCCEEDED, (), ()),
          ("uploads are pending in it", TRAINED | {"sync": {"pending": 1}}, b.SUCCEEDED, (), ()),
          ("before KubeRay looks", {"attempt": 1}, {"jobDeploymentStatus": "Initializing"},
           (b.pod(1, **ended("ray-job-submitter", 0)),), GONE))),
    Row("an attempt that ended as it should while it was suspended, without its last report",
        see(b.status(b.record(1, "Suspended"), training={"attempt": 1}, phase="Running"),
            (leaving(b.rayjob(1, **b.SUCCEEDED)),), suspend=True), "Running", ("Suspended", "False", "Suspending"),
        outcomes=("Suspended",), requeue=2.0),
    Row("suspension ends the attempt, written down first",
        see(b.status(b.record(1), phase="Running"), (b.rayjob(1, **b.RUNNING),), suspend=True), "Running",
        ("Suspended", "False", "Suspending"), deleted=("cartpole-a1",), outcomes=("Suspended",),
        events=("Suspending",), requeue=2.0),
    Row("the phase is Suspended once the pods are gone",
        see(b.status(b.record(1, "Suspended"), phase="Running"), pods=(leaving(b.pod(1)),), suspend=True), "Running",
        ("Suspended", "False", "Suspending"), outcomes=("Suspended",), requeue=2.0),
    Row("suspended", see(b.status(b.record(1, "Suspended"), phase="Running"), suspend=True), "Suspended",
        ("Suspended", "True", "Suspended"), outcomes=("Suspended",), events=("Suspended",)),
    Row("suspended before it ever ran", see(suspend=True), "Suspended", ("Suspended", "True", "Suspended"),
        events=("Suspended",)),
    Row("a refused document can be suspended", see(suspend=True, config={"clip": "wide"}), "Suspended",
        ("Accepted", "False", "InvalidOption"), events=("InvalidOption", "Suspended")),
    Row("resumed while the pods are still going: all the way first",
        see(b.status(b.record(1, "Suspended")), (b.rayjob(1, **b.RUNNING),)), "Provisioning",
        deleted=("cartpole-a1",), outcomes=("Suspended",), requeue=2.0),
    Row("resumed: the next attempt, and no failure", see(b.status(b.record(1, "Suspended"))), "Provisioning",
        created=("cartpole-a2",), outcomes=("Suspended", "Running"), events=("AttemptStarted",), requeue=2.0),
    Row("an earlier experiment of this name is still going",
        see(jobs=(leaving(b.rayjob(1, uid="earlier", **b.RUNNING)),)), "Pending",
        ("ClusterReady", "False", "WaitingForPods"), requeue=2.0),
    Row("restoreFrom waits for a checkpoint",
        see(source={"status": {}}, restoreFrom={"experiment": "other"}), "Pending",
        ("ClusterReady", "False", "WaitingForCheckpoint")),
    Row("restoreFrom an experiment that is not there", see(restoreFrom={"experiment": "other"}), "Invalid",
        ("Accepted", "False", "ExperimentNotFound"), events=("ExperimentNotFound",)),
    Row("a run with checkpoints of its own needs its source no more",
        see(b.status(b.record(1, "Suspended"), training=TRAINED), restoreFrom={"experiment": "gone"}),
        "Provisioning", ("Accepted", "True", "Accepted"), created=("cartpole-a2",), outcomes=("Suspended", "Running"),
        events=("AttemptStarted",), requeue=2.0),
    Row("restoreFrom's checkpoint is there", see(source=SOURCE, restoreFrom={"experiment": "other", "which": "best"}),
        "Provisioning", created=("cartpole-a1",), outcomes=("Running",), events=("AttemptStarted",), requeue=2.0),
    Row("an image that cannot be pulled",
        see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Initializing"),),
            pods=(b.pod(1, **b.waiting("ErrImagePull", "not found", "nowhere/x:1")),)), "Provisioning",
        ("ClusterReady", "False", "ImagePullBackOff"), outcomes=("Running",), events=("ImagePullBackOff",),
        message="nowhere/x:1"),
    Row("a Secret that is missing",
        see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Initializing"),),
            pods=(b.pod(1, **b.waiting("CreateContainerConfigError", 'secret "s3" not found')),)), "Provisioning",
        ("ClusterReady", "False", "CreateContainerConfigError"), outcomes=("Running",),
        events=("CreateContainerConfigError",), message='secret "s3" not found'),
    Row("a bucket that is not there",
        see(b.status(b.record(1), training={"attempt": 1, "sync": {"pending": 1, "error": {
            "reason": "BucketNotFound", "message": "No bucket b"}}}), (b.rayjob(1, **b.RUNNING),)), "Running",
        ("CheckpointSynced", "False", "BucketNotFound"), outcomes=("Running",),
        events=("ClusterReady", "Training", "CheckpointSyncFailed")),
    Row("a search says how its trials stand",
        see(b.status(b.record(1, specHash=b.hash_of(tune=TUNE)), training=SEARCHING), (b.rayjob(1, **b.RUNNING),),
            tune=TUNE), "Running", outcomes=("Running",), events=("ClusterReady", "Training"),
        message="Attempt 1 is training. The search has 5 of 8 trials done, 1 of them failed, the best is PPO_3 with "
                "487.25"),
    Row("a search whose trials nothing is known of yet",
        see(b.status(b.record(1, specHash=b.hash_of(tune=TUNE))), (b.rayjob(1, **b.RUNNING),), tune=TUNE),
        "Running", outcomes=("Running",), events=("ClusterReady", "Training"), message="Attempt 1 is training"),
    Row("a search that is finished",
        see(b.status(b.record(1, specHash=b.hash_of(tune=TUNE)), training=SEARCHED), (b.rayjob(1, **b.SUCCEEDED),),
            tune=TUNE), "Succeeded", ("Succeeded", "True", "SearchFinished"), outcomes=("Succeeded",),
        events=("Succeeded",),
        message="The search has 8 of 8 trials done, the best is PPO_3 with 487.25, after 1000 steps"),
    Row("a suspended search goes on with its trials",
        see(b.status(b.record(1, "Suspended", specHash=b.hash_of(tune=TUNE)), phase="Running", training=SEARCHING),
            suspend=True, tune=TUNE), "Suspended", ("Suspended", "True", "Suspended"), outcomes=("Suspended",),
        events=("Suspended",),
        message="The trials go on from their checkpoints once spec.suspend is false. The search has 5 of 8"),
    Row("another search ends the attempt, as any other change does",
        see(b.status(b.record(1, specHash=b.hash_of(tune=TUNE | {"numSamples": 4})), training=SEARCHING),
            (b.rayjob(1, **b.RUNNING),), tune=TUNE), "Provisioning", ("ClusterReady", "False", "DocumentChanged"),
        deleted=("cartpole-a1",), outcomes=("Replaced",), events=("AttemptReplaced",), requeue=2.0),
    Row("a trial that fits nowhere",
        see(tune=TUNE | {"resourcesPerTrial": {"cpu": 4}}), "Invalid", ("Accepted", "False", "NotEnoughCPUs"),
        events=("NotEnoughCPUs",), message="4 CPUs fit no pod"),
    Row("an attempt that went on from a checkpoint says so",
        see(b.status(b.record(1), training={"attempt": 1, "restoredFrom": "s3://b/c"}), (b.rayjob(1, **b.RUNNING),)),
        "Running", ("Training", "True", "RestoredCheckpoint"), outcomes=("Running",),
        events=("ClusterReady", "RestoredCheckpoint")),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_row(row: Row) -> None:
    outcome = reconcile(row.observed, b.SETTINGS, b.NOW)
    status = outcome.status
    assert status is not None
    assert status["phase"] == row.phase, status["message"]
    assert tuple(item["metadata"]["name"] for item in outcome.create) == row.created
    assert tuple(item["metadata"]["name"] for item in outcome.delete) == row.deleted
    assert tuple(item["outcome"] for item in status.get("attempts", [])) == row.outcomes
    assert status["failures"] == row.failures
    assert tuple(event.reason for event in outcome.events) == row.events
    assert outcome.requeue_after == row.requeue
    assert row.message in status["message"] or row.message in str(status["conditions"])
    if row.reason:
        kind, value, reason = row.reason
        condition = conditions_of(status).get(kind)
        assert (condition["status"], condition["reason"]) == (value, reason), condition


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_every_condition_is_there_and_as_the_crd_wants_it(row: Row) -> None:
    from rltrainer.api.status import ExperimentStatus

    status = reconcile(row.observed, b.SETTINGS, b.NOW).status
    assert status is not None
    checked = ExperimentStatus.model_validate(status)
    kinds = ["Accepted", "ClusterReady", "Training", "CheckpointSynced", "Suspended", "Succeeded", "Failed"]
    assert [condition.type for condition in checked.conditions] == kinds
    assert all(condition.observed_generation == 1 for condition in checked.conditions)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_every_message_is_a_sentence(row: Row) -> None:
    """Kubernetes begins its messages with a capital, and what is wrong with a field with the field's path."""
    outcome = reconcile(row.observed, b.SETTINGS, b.NOW)
    assert outcome.status is not None
    conditions = [condition["message"] for condition in outcome.status["conditions"] if condition["message"]]
    for message in (outcome.status["message"], *conditions, *(event.message for event in outcome.events)):
        assert message[0].isupper() or message.startswith("spec."), message
        assert "None" not in message
        assert ".." not in message.replace("...", "")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_with_its_status_written_a_second_look_changes_nothing(row: Row) -> None:
    """The status is a fixed point: with nothing else changed, nothing more is written or recorded."""
    after = b.settled(row.observed)
    if row.created:
        job = b.rayjob(int(row.created[0].rsplit("a", 1)[1]), ran=after.status["attempts"][-1]["specHash"])
        after = Observed(after.object, (job,), source=after.source)
    after = b.settled(after)  # a decision was the first step, its consequence the second
    again: Outcome = reconcile(after, b.SETTINGS, b.NOW)
    assert again.status is None
    assert again.events == ()
    assert again.create == ()


BEST_ROWS: tuple[tuple[str, Observed, Manifest | None], ...] = (
    ("reported", see(b.status(b.record(1), training=SEARCHING), (b.rayjob(1, **b.RUNNING),), tune=TUNE), BEST),
    ("a better one", see(b.status(b.record(1), training=SEARCHING, best=BEST | {"trial": "PPO_1"}),
                         (b.rayjob(1, **b.RUNNING),), tune=TUNE), BEST),
    ("not reported yet", see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),), tune=TUNE), None),
    ("known from before", see(b.status(b.record(2), best=BEST, training={"attempt": 2}), (b.rayjob(2, **b.RUNNING),),
                              tune=TUNE), BEST),
    ("after the end", see(b.status(b.record(1, "Succeeded"), best=BEST, training=SEARCHED), tune=TUNE), BEST),
    ("refused", see(b.status(best=BEST), tune=TUNE | {"numSamples": "many"}), BEST),
    ("no search any more", see(b.status(best=BEST), suspend=True), None),
)  # fmt: skip


@pytest.mark.parametrize(("what", "observed", "best"), BEST_ROWS, ids=[row[0] for row in BEST_ROWS])
def test_the_best_trial_stands_in_the_status(what: str, observed: Observed, best: Manifest | None) -> None:
    status = reconcile(observed, b.SETTINGS, b.NOW).status
    assert status is not None
    assert status.get("best") == best


def test_the_best_trial_of_another_experiment_is_what_restore_from_starts_from() -> None:
    source = {"status": {"training": SEARCHED | {"checkpoint": {"uri": "s3://o/PPO_3/newest"}}}}
    for which, uri in (("best", BEST["checkpoint"]["uri"]), ("latest", "s3://o/PPO_3/newest")):
        outcome = reconcile(see(source=source, restoreFrom={"experiment": "other", "which": which}), b.SETTINGS, b.NOW)
        head = outcome.create[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        assert {"name": "RLTRAINER_RESTORE_URI", "value": uri} in head["env"]


def test_a_deleted_experiment_is_left_to_the_garbage_collector() -> None:
    gone = b.experiment()
    gone["metadata"] |= LEAVING
    assert reconcile(Observed(gone), b.SETTINGS, b.NOW) == Outcome()


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    first = b.settled(see(b.status(b.record(1)), (b.rayjob(1, jobDeploymentStatus="Initializing"),)))
    running = Observed(first.object, (b.rayjob(1, **b.RUNNING),))
    later = b.NOW + timedelta(seconds=30)
    status = reconcile(running, b.SETTINGS, later).status
    assert status is not None
    conditions = conditions_of(status)
    assert conditions.get("Training")["lastTransitionTime"] == "2030-01-01T12:00:30Z"
    assert conditions.get("Accepted")["lastTransitionTime"] == "2030-01-01T12:00:00Z"


def test_the_status_keeps_the_newest_twenty_attempts_and_counts_all_failures() -> None:
    attempts = [b.record(number, "Failed", ago=1000) for number in range(11, 31)]
    outcome = reconcile(see(b.status(*attempts, failures=30), maxFailures=100), b.SETTINGS, b.NOW)
    assert outcome.status is not None
    assert [item["number"] for item in outcome.status["attempts"]] == list(range(12, 32))
    assert outcome.status["failures"] == 30
    assert outcome.create[0]["metadata"]["name"] == "cartpole-a31"


def test_the_submitter_that_kuberay_adds_is_restricted_once() -> None:
    observed = see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),), (b.ray_cluster(1),))
    (patch,) = reconcile(observed, b.SETTINGS, b.NOW).patch
    assert patch.target["metadata"]["name"] == "cartpole-a1-xyz"
    values = {operation["path"].rsplit("/", 1)[1]: operation["value"] for operation in patch.operations}
    assert values["securityContext"]["allowPrivilegeEscalation"] is False
    assert patch.operations[0] == {"op": "test", "path": "/spec/headGroupSpec/template/spec/containers/1/name",
                                   "value": "ray-job-submitter"}  # fmt: skip
    done = see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),), (b.ray_cluster(1, securityContext={}),))
    assert reconcile(done, b.SETTINGS, b.NOW).patch == ()


def test_replicas_reach_the_running_cluster_and_no_attempt_is_replaced() -> None:
    live = [{"groupName": "cpu", "minReplicas": 0, "maxReplicas": 1, "replicas": 1}]
    observed = see(
        b.status(b.record(1, specHash=b.hash_of(cluster={"workers": [{"name": "cpu", "maxReplicas": 1}]}))),
        (b.rayjob(1, **b.RUNNING),),
        (b.ray_cluster(1, live, securityContext={}),),
        cluster={"workers": [{"name": "cpu", "minReplicas": 2, "maxReplicas": 3}]},
    )
    outcome = reconcile(observed, b.SETTINGS, b.NOW)
    (patch,) = outcome.patch
    assert [operation["op"] for operation in patch.operations] == ["test", "add", "add"]
    assert {o["path"]: o["value"] for o in patch.operations if o["op"] == "add"} == {
        "/spec/workerGroupSpecs/0/minReplicas": 2,
        "/spec/workerGroupSpecs/0/maxReplicas": 3,
    }
    assert outcome.status is not None
    assert [item["outcome"] for item in outcome.status["attempts"]] == ["Running"]


def test_keeping_the_cluster_afterwards_can_be_asked_for_while_it_runs() -> None:
    observed = see(b.status(b.record(1)), (b.rayjob(1, **b.RUNNING),), cluster={"keepSecondsAfterFinished": 600})
    (patch,) = reconcile(observed, b.SETTINGS, b.NOW).patch
    assert patch.operations == ({"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": 600},)


def test_a_run_stays_where_it_began_when_the_operators_storage_moves() -> None:
    from dataclasses import replace

    moved = replace(b.SETTINGS, storage=b.STORAGE.model_copy(update={"uri": "s3://elsewhere"}))
    status = reconcile(
        see(b.status(b.record(1), storageUri=b.FOLDER), (b.rayjob(1, **b.RUNNING),)), moved, b.NOW
    ).status
    assert status is not None
    assert status["storageUri"] == b.FOLDER


def test_the_time_that_a_cluster_is_kept_can_be_changed_after_the_end() -> None:
    job = b.rayjob(1, **b.SUCCEEDED)
    job["spec"]["ttlSecondsAfterFinished"] = 86400
    outcome = reconcile(see(b.status(b.record(1, "Succeeded")), (job,)), b.SETTINGS, b.NOW)
    ((patch,)) = outcome.patch
    assert patch.operations == ({"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": 0},)


def test_a_run_stays_in_the_storage_that_it_began_in_with_its_endpoint_and_credentials() -> None:
    begun = reconcile(see(), b.SETTINGS, b.NOW)
    assert begun.status
    moved = replace(b.SETTINGS, storage=Storage(uri="s3://new/runs", endpoint="http://new", credentials_secret="new"))  # noqa: S106
    for settings in (moved, replace(b.SETTINGS, storage=None)):
        after = reconcile(see(begun.status), settings, b.NOW)
        view = ExperimentView.of(see(begun.status), settings, b.NOW)
        assert view.storage == b.STORAGE
        assert not after.status or after.status["storageUri"] == b.FOLDER
    mended = replace(b.SETTINGS, storage=b.STORAGE.model_copy(update={"endpoint": "http://right"}))
    assert ExperimentView.of(see(begun.status), mended, b.NOW).storage == mended.storage
    own = ExperimentView.of(see(storage={"uri": "s3://own"}), b.SETTINGS, b.NOW)
    assert own.fields["storage"] is None
