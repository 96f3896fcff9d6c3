"""Objects as the API server holds them, for the operator's tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from rloperator.config import Settings
from rloperator.experiment.attempts import spec_hash
from rloperator.experiment.reconcile import reconcile
from rloperator.kube import names
from rloperator.kube.types import Manifest, Observed, format_time

from rltrainer.api.experiment import ExperimentSpec, Storage

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
UID = "0a1b2c3d-0000-4000-8000-000000000001"
STORAGE = Storage(uri="s3://bucket/runs", endpoint="http://s3:9000", credentials_secret="s3-credentials")  # noqa: S106
SETTINGS = Settings(trainer_image="trainer:1", storage=STORAGE)
FOLDER = "s3://bucket/runs/team/cartpole/0a1b2c3d"


def experiment(status: Manifest | None = None, generation: int = 1, uid: str = UID, **spec: Any) -> Manifest:
    """A CartPole experiment."""
    return {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "cartpole", "namespace": "team", "uid": uid, "generation": generation,
                     "resourceVersion": "1"},
        "spec": {"run": "PPO", "env": "CartPole-v1", **spec},
        "status": status or {},
    }  # fmt: skip


def hash_of(**spec: Any) -> str:
    return spec_hash(ExperimentSpec.model_validate({"run": "PPO", "env": "CartPole-v1", **spec}))


def record(number: int, outcome: str = "Running", ago: float = 60, **fields: Any) -> Manifest:
    """An attempt as the status records it; an ended one ended `ago` seconds before NOW."""
    begun = {"number": number, "outcome": outcome, "startedAt": format_time(NOW - timedelta(seconds=600)),
             "specHash": hash_of()}  # fmt: skip
    end = {} if outcome == "Running" else {"endedAt": format_time(NOW - timedelta(seconds=ago))}
    return begun | end | fields


def status(*attempts: Manifest, failures: int = 0, **fields: Any) -> Manifest:
    """A status with these attempts."""
    number = attempts[-1]["number"] if attempts else 0
    return {"attempt": number, "failures": failures, "attempts": list(attempts), **fields}


def made_by(kind: str, name: str, uid: str) -> list[Manifest]:
    """The reference to what made a child."""
    return [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def rayjob(number: int, uid: str = UID, ran: str | None = None, **state: Any) -> Manifest:
    """An attempt's RayJob with a status."""
    labels = {names.EXPERIMENT_LABEL: "cartpole", names.OWNER_UID_LABEL: uid, names.ATTEMPT_LABEL: str(number)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": f"cartpole-a{number}",
            "namespace": "team",
            "uid": f"job-{number}",
            "labels": labels,
            "ownerReferences": made_by("RLExperiment", "cartpole", uid),
            "annotations": {names.SPEC_HASH_ANNOTATION: ran or hash_of()},
            "creationTimestamp": format_time(NOW - timedelta(seconds=600)),
        },
        "spec": {"ttlSecondsAfterFinished": 0},
        "status": {"rayClusterName": f"cartpole-a{number}-xyz", **state},
    }


RUNNING: Manifest = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
SUCCEEDED: Manifest = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
STOPPED: Manifest = {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}
INVALID: Manifest = {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "too long"}


def failed(message: str = "Ray head pod not found.") -> Manifest:
    return {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "AppFailed", "message": message}


def ray_cluster(number: int, workers: list[Manifest] | None = None, **sidecar: Any) -> Manifest:
    """The RayCluster of an attempt, as KubeRay makes it in SidecarMode."""
    containers = [
        {"name": names.HEAD_CONTAINER, "securityContext": {}},
        {"name": names.SUBMITTER_CONTAINER, "env": [], **sidecar},
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": f"cartpole-a{number}-xyz",
            "namespace": "team",
            "uid": f"cluster-{number}",
            "ownerReferences": made_by("RayJob", f"cartpole-a{number}", f"job-{number}"),
            "labels": {
                names.EXPERIMENT_LABEL: "cartpole",
                names.OWNER_UID_LABEL: UID,
                names.ATTEMPT_LABEL: str(number),
            },
        },
        "spec": {
            "headGroupSpec": {"template": {"spec": {"containers": containers}}},
            "workerGroupSpecs": workers or [],
        },
    }


def pod(number: int, kind: str = "head", **state: Any) -> Manifest:
    """A pod of an attempt."""
    labels = {names.EXPERIMENT_LABEL: "cartpole", names.OWNER_UID_LABEL: UID, names.ATTEMPT_LABEL: str(number),
              "ray.io/node-type": kind}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"cartpole-a{number}-{kind}",
            "namespace": "team",
            "uid": f"pod-{number}",
            "labels": labels,
            "ownerReferences": made_by("RayCluster", f"cartpole-a{number}-xyz", f"cluster-{number}"),
            "creationTimestamp": format_time(NOW - timedelta(seconds=300)),
        },
        "status": state,
    }


READY: Manifest = {"conditions": [{"type": "Ready", "status": "True"}]}


def waiting(reason: str, message: str, image: str = "trainer:1") -> Manifest:
    """A pod status whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "ray-head", "image": image, "state": state}]}


def settled(observed: Observed) -> Observed:
    """The same, with the status that reconcile gives it: its events have been recorded."""
    outcome = reconcile(observed, SETTINGS, NOW)
    training = observed.status.get("training")
    after = (outcome.status or observed.status) | ({"training": training} if training else {})
    return Observed(
        observed.object | {"status": after},
        observed.jobs,
        observed.clusters,
        observed.pods,
        observed.source,
        lost=observed.lost,
    )
