"""ClusterReady and Training say what is so now, and not what was so when the run began."""

from datetime import timedelta
from typing import Any

import pytest
from rloperator.experiment.reconcile import reconcile
from rloperator.kube.types import Manifest, Observed, conditions_of, format_time

from tests.unit.operator import builders as b

QUOTA = 'pods "w" is forbidden: exceeded quota: gpus'
REFUSING = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": QUOTA}]}


def ago(seconds: float) -> str:
    return format_time(b.NOW - timedelta(seconds=seconds))


def head(ready: str, since: float = 60) -> Manifest:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": ago(since), "message": "unready: [ray-head]"}
    return b.pod(1, conditions=[condition])


def worker(name: str, phase: str = "Failed", **metadata: Any) -> Manifest:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    made = b.pod(1, "worker", phase=phase, containerStatuses=[{"name": "ray-worker", "image": "i", "state": state}])
    return made | {"metadata": made["metadata"] | {"name": name, "uid": name} | metadata}


def see(
    pods: tuple[Manifest, ...] = (head("True"),), training: Manifest | None = None, job: Manifest | None = None,
    **more: Any,
) -> Observed:  # fmt: skip
    status = b.status(b.record(1), training=training or {"attempt": 1, "heartbeatAt": ago(20)})
    return Observed(b.experiment(status), (b.rayjob(1, **b.RUNNING, **(job or {})),), pods=pods, **more)


DYING = tuple(worker(f"w{number}") for number in range(3))
CLUSTER: tuple[tuple[str, Observed, str, str], ...] = (
    ("ready", see(), "HeadReady", "is ready"),
    ("a probe missed a moment ago", see((head("False", 14),)), "HeadReady", "is ready"),
    ("not ready for a while", see((head("False", 16),)), "HeadNotReady", "not ready: unready: [ray-head]"),
    ("its node is silent", see((head("Unknown"),)), "HeadNotReady", "cartpole-a1-head is not ready"),
    ("gone", see(()), "HeadMissing", "The head pod is gone"),
    ("workers refused", see(clusters=(b.ray_cluster(1) | {"status": REFUSING},)), "PodsRefused", QUOTA),
    ("a worker fits nowhere", see((head("True"), b.pod(1, "worker", conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}]))),
     "Unschedulable", "no GPU"),
    ("a worker's image is not there", see((head("True"), b.pod(1, "worker", **b.waiting("ErrImagePull", "no")))),
     "ImagePullBackOff", "no"),
    ("two workers failed", see(lost=DYING[:2]), "HeadReady", "is ready"),
    ("three workers failed", see((head("True"), DYING[0]), lost=DYING[1:]), "WorkersFail",
     '3 did of late, the last, w2 by exit code 137 of container "ray-worker"'),
    ("three workers were let go", see(lost=tuple(worker(f"w{n}", deletionTimestamp=ago(9)) for n in range(3))),
     "HeadReady", "is ready"),
    ("three workers ended well", see(lost=tuple(worker(f"w{n}", phase="Succeeded") for n in range(3))),
     "HeadReady", "is ready"),
)  # fmt: skip
STARTED = {"rayJobInfo": {"startTime": ago(61)}}
TRAINING: tuple[tuple[str, Observed, str, str, str], ...] = (
    ("heard of just now", see(), "True", "Training", ""),
    ("heard of a minute ago", see(training={"attempt": 1, "heartbeatAt": ago(60)}), "True", "Training", ""),
    ("not heard of for longer", see(training={"attempt": 1, "heartbeatAt": ago(61)}), "Unknown", "ReportLate",
     f"Attempt 1 was last heard of at {ago(61)}"),
    ("an older trainer's report", see(training={"attempt": 1, "updatedAt": ago(61)}), "Unknown", "ReportLate", ""),
    ("nothing new for an hour, and there", see(training={"attempt": 1, "updatedAt": ago(3600), "heartbeatAt": ago(1)}),
     "True", "Training", ""),
    ("no report yet", see(training={"attempt": 0}, job={"rayJobInfo": {"startTime": ago(59)}}), "True", "Training", ""),
    ("no report for long", see(training={"attempt": 0}, job=STARTED), "Unknown", "NoReport", "and has not reported"),
)  # fmt: skip


@pytest.mark.parametrize(("what", "observed", "reason", "message"), CLUSTER, ids=[row[0] for row in CLUSTER])
def test_the_cluster_as_it_is_now(what: str, observed: Observed, reason: str, message: str) -> None:
    outcome = reconcile(observed, b.SETTINGS, b.NOW)
    assert outcome.status
    condition = conditions_of(outcome.status).get("ClusterReady")
    assert (condition["status"], condition["reason"]) == ("True" if reason == "HeadReady" else "False", reason)
    assert message in condition["message"]
    assert outcome.status["phase"] == "Running", "it trains as long as its trainer does"
    if reason != "HeadReady":
        assert condition["message"].rstrip(".") in outcome.status["message"]
        assert reason in [event.reason for event in outcome.events if event.type == "Warning"]
    assert reconcile(b.settled(observed), b.SETTINGS, b.NOW).status is None


@pytest.mark.parametrize(
    ("what", "observed", "status", "reason", "message"), TRAINING, ids=[row[0] for row in TRAINING]
)
def test_the_trainer_as_it_is_heard_of_now(
    what: str, observed: Observed, status: str, reason: str, message: str
) -> None:
    outcome = reconcile(observed, b.SETTINGS, b.NOW)
    assert outcome.status
    condition = conditions_of(outcome.status).get("Training")
    assert (condition["status"], condition["reason"]) == (status, reason)
    assert message in condition["message"]
    assert (reason in [event.reason for event in outcome.events if event.type == "Warning"]) is (status != "True")
    later = reconcile(b.settled(observed), b.SETTINGS, b.NOW + timedelta(seconds=30 if status != "True" else 0))
    assert later.status is None, "the same state is the same status, whenever it is looked at"
