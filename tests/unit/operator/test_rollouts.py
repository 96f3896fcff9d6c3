"""The behavior of a rollout as rows."""

from dataclasses import dataclass
from typing import Any

import pytest
from rloperator.kube import names
from rloperator.kube.types import Manifest, Observed, conditions_of
from rloperator.rollout.reconcile import reconcile
from rloperator.rollout.view import RolloutView

from rltrainer.api.status import RolloutStatus
from tests.unit.operator import builders as b
from tests.unit.operator.test_render import rollout

TRAINED = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c2"}, "bestCheckpoint": {"uri": "s3://b/c1"}}})
DONE: Manifest = {"episodes": 10, "timesteps": 5000, "reward": "500.0 ± 0.0", "done": True}


def job(document: Manifest, **status: Any) -> Manifest:
    view = RolloutView.of(Observed(document, source=TRAINED), b.SETTINGS, b.NOW)
    labels = {names.ROLLOUT_LABEL: "cartpole-rollout", names.OWNER_UID_LABEL: b.UID}
    annotations = {names.SPEC_HASH_ANNOTATION: view.spec_hash, names.CHECKPOINT_ANNOTATION: view.checkpoint}
    metadata = {"name": "cartpole-rollout", "namespace": "team", "uid": "j", "labels": labels,
                "annotations": annotations,
                "ownerReferences": b.made_by("RLRollout", "cartpole-rollout", document["metadata"]["uid"])}  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": status}


def see(jobs: tuple[Manifest, ...] = (), status: Manifest | None = None, source: Manifest | None = TRAINED,
        pods: tuple[Manifest, ...] = (), **spec: Any) -> Observed:  # fmt: skip
    return Observed(rollout(**spec) | {"status": status or {}}, jobs, pods=pods, source=source)


@dataclass(frozen=True)
class Row:
    what: str
    observed: Observed
    phase: str
    reason: str
    created: int = 0
    deleted: int = 0


GIVEN_UP = {
    "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "No more retries"}]
}
ERROR = {"episodes": 0, "timesteps": 0, "error": {"reason": "CheckpointNotFound", "message": "No checkpoint s3://b/c1"}}

ROWS = (
    Row("new", see(), "Pending", "JobStarted", created=1),
    Row("no experiment", see(source=None), "Invalid", "ExperimentNotFound"),
    Row("no checkpoint yet", see(source=b.experiment()), "Pending", "WaitingForCheckpoint"),
    Row("under way", see((job(rollout(), ready=1),)), "Running", "JobRunning"),
    Row("its pod starts", see((job(rollout()),)), "Pending", "JobRunning"),
    Row("its image cannot be pulled", see((job(rollout()),), pods=(b.pod(1, **b.waiting("ErrImagePull", "no")),)),
        "Pending", "ImagePullBackOff"),
    Row("done", see((job(rollout()),), {"results": DONE}), "Succeeded", "EpisodesFinished"),
    Row("done stays, the job and the experiment being gone", see((), {"results": DONE}, None), "Succeeded",
        "EpisodesFinished"),
    Row("given up", see((job(rollout(), **GIVEN_UP),)), "Failed", "BackoffLimitExceeded"),
    Row("no retry helps", see((job(rollout(), **GIVEN_UP),), {"results": ERROR}), "Invalid", "CheckpointNotFound"),
    Row("an error of an earlier pod is not this one's", see((job(rollout(), ready=1),), {"results": ERROR}), "Running",
        "JobRunning"),
    Row("the experiment is gone, and its rollout goes on", see((job(rollout(), ready=1),), source=None), "Running",
        "JobRunning"),
    Row("another document, another job", see((job(rollout()),), episodes=99), "Pending", "Replacing", deleted=1),
    Row("the earlier job is gone", see((), episodes=99), "Pending", "JobStarted", created=1),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_row(row: Row) -> None:
    outcome = reconcile(row.observed, b.SETTINGS, b.NOW)
    assert outcome.status is not None
    assert (outcome.status["phase"], len(outcome.create), len(outcome.delete)) == (row.phase, row.created, row.deleted)
    checked = RolloutStatus.model_validate(outcome.status)
    kind = "Accepted" if row.phase == "Invalid" else "Succeeded"
    assert conditions_of(outcome.status).get(kind)["reason"] == row.reason
    assert [condition.type for condition in checked.conditions] == ["Accepted", "Succeeded", "Failed"]
    assert len(outcome.events) == 1
    assert outcome.status["message"][0].isupper()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_second_look_changes_nothing(row: Row) -> None:
    first = reconcile(row.observed, b.SETTINGS, b.NOW).status
    assert first is not None
    jobs = (job(row.observed.object),) if row.created else row.observed.jobs
    results = {"results": row.observed.status["results"]} if "results" in row.observed.status else {}
    after = Observed(
        row.observed.object | {"status": first | results}, jobs, (), row.observed.pods, row.observed.source
    )
    if row.created:
        settled = reconcile(after, b.SETTINGS, b.NOW).status
        assert settled is not None
        after = Observed(after.object | {"status": settled}, jobs, source=after.source)
    again = reconcile(after, b.SETTINGS, b.NOW)
    assert (again.status, again.events, again.create) == (None, (), ())


@pytest.mark.parametrize(("which", "uri"), [("best", "s3://b/PPO_3/c1"), ("latest", "s3://b/PPO_3/c2")])
def test_of_a_search_the_best_trials_checkpoint_is_run(which: str, uri: str) -> None:
    best, newest = ({"uri": f"s3://b/PPO_3/{name}", "iteration": 1, "timestepsTotal": 1} for name in ("c1", "c2"))
    trial = {"trial": "PPO_3", "options": {"lr": 0.1}, "reward": 5.0, "checkpoint": best}
    training = {"checkpoint": newest, "bestCheckpoint": best, "best": trial}
    source = b.experiment({"training": training, "best": trial}, tune={"numSamples": 8})
    status = reconcile(see(source=source, which=which), b.SETTINGS, b.NOW).status
    assert status is not None
    assert status["checkpoint"] == uri


@pytest.mark.parametrize(("which", "uri"), [("best", "s3://b/c1"), ("latest", "s3://b/c2")])
def test_the_checkpoint_is_chosen_once(which: str, uri: str) -> None:
    outcome = reconcile(see(which=which), b.SETTINGS, b.NOW)
    assert outcome.status is not None
    assert outcome.status["checkpoint"] == uri
    env = outcome.create[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "RLTRAINER_CHECKPOINT_URI", "value": uri} in env
    later = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c9"}, "bestCheckpoint": {"uri": "s3://b/c9"}}})
    document = rollout(which=which) | {"status": outcome.status}
    status = reconcile(Observed(document, (job(document, ready=1),), source=later), b.SETTINGS, b.NOW).status
    assert status is not None
    assert status["checkpoint"] == uri
