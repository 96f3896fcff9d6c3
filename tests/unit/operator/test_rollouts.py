"""The behavior of a rollout as rows."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from rloperator.controller.converge import Converger, Key
from rloperator.kube import names
from rloperator.kube.types import Manifest, Observed, conditions_of, format_time
from rloperator.rollout.reconcile import reconcile
from rloperator.rollout.view import RolloutView

from rltrainer.api.status import RolloutStatus
from tests.unit.operator import builders as b
from tests.unit.operator.fake import FakeCluster
from tests.unit.operator.test_render import rollout

TRAINED = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c2"}, "bestCheckpoint": {"uri": "s3://b/c1"}}})
RETRAINED = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c9"}, "bestCheckpoint": {"uri": "s3://b/c9"}}})
DONE: Manifest = {"episodes": 10, "timesteps": 5000, "reward": "500.0 ± 0.0", "done": True}


def job(document: Manifest, **status: Any) -> Manifest:
    ran = status.pop("ran", None)
    view = RolloutView.of(Observed(document, source=TRAINED), b.SETTINGS, b.NOW)
    labels = {names.ROLLOUT_LABEL: "cartpole-rollout", names.OWNER_UID_LABEL: b.UID}
    annotations = {names.SPEC_HASH_ANNOTATION: view.spec_hash, names.CHECKPOINT_ANNOTATION: view.checkpoint}
    annotations |= {names.GENERATION_ANNOTATION: str(ran)} if ran else {}
    metadata = {"name": "cartpole-rollout", "namespace": "team", "uid": "j", "labels": labels,
                "annotations": annotations,
                "ownerReferences": b.made_by("RLRollout", "cartpole-rollout", document["metadata"]["uid"])}  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": status}


def see(jobs: tuple[Manifest, ...] = (), status: Manifest | None = None, source: Manifest | None = TRAINED,
        pods: tuple[Manifest, ...] = (), generation: int = 1, **spec: Any) -> Observed:  # fmt: skip
    document = rollout(**spec) | {"status": status or {}}
    document["metadata"] |= {"generation": generation}
    return Observed(document, jobs, pods=pods, source=source)


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

QUOTA = 'pods "cartpole-rollout-x" is forbidden: exceeded quota: cpu'

ROWS = (
    Row("new", see(), "Pending", "JobStarted", created=1),
    Row("no experiment", see(source=None), "Invalid", "ExperimentNotFound"),
    Row("no checkpoint yet", see(source=b.experiment()), "Pending", "WaitingForCheckpoint"),
    Row("under way", see((job(rollout(), ready=1),)), "Running", "JobRunning"),
    Row("its pod starts", see((job(rollout()),)), "Pending", "JobRunning"),
    Row("its image cannot be pulled", see((job(rollout()),), pods=(b.pod(1, **b.waiting("ErrImagePull", "no")),)),
        "Pending", "ImagePullBackOff"),
    Row("its pod is refused", replace(see((job(rollout()),)), complaint=QUOTA), "Pending", "PodsRefused"),
    Row("an earlier refusal, and a pod by now", replace(see((job(rollout(), ready=1),), pods=(b.pod(1, **b.READY),)),
                                                        complaint=QUOTA), "Running", "JobRunning"),
    Row("what the pod of an earlier document reports late",
        see((), {"results": DONE | {"generation": 1}}, generation=2), "Pending", "JobStarted", created=1),
    Row("what it reports before its Job is gone", see((job(rollout()),), {"results": DONE | {"generation": 1}},
                                                      generation=2, episodes=99), "Pending", "Replacing", deleted=1),
    Row("what it says is wrong with the earlier document", see((job(rollout(), **GIVEN_UP),), generation=2,
        status={"results": ERROR | {"generation": 0}}), "Failed", "BackoffLimitExceeded"),
    Row("the report on this document", see((job(rollout()),), {"results": DONE | {"generation": 2}}, generation=2),
        "Succeeded", "EpisodesFinished"),
    Row("a change that asks for the same", see((job(rollout(), ran=1),), {"results": DONE | {"generation": 1}},
                                               generation=2), "Succeeded", "EpisodesFinished"),
    Row("done before the document was changed", see((), {"results": DONE | {"generation": 1}, "phase": "Succeeded"},
                                                    generation=2), "Succeeded", "EpisodesFinished"),
    Row("done", see((job(rollout()),), {"results": DONE}), "Succeeded", "EpisodesFinished"),
    Row("done stays, the job and the experiment being gone", see((), {"results": DONE}, None), "Succeeded",
        "EpisodesFinished"),
    Row("given up", see((job(rollout(), **GIVEN_UP),)), "Failed", "BackoffLimitExceeded"),
    Row("no retry helps", see((job(rollout(), **GIVEN_UP),), {"results": ERROR}), "Invalid", "CheckpointNotFound"),
    Row("its checkpoint was pruned before its pod began, and there is another", see((job(rollout(), **GIVEN_UP),),
        {"results": ERROR}, source=RETRAINED), "Pending", "Replacing", deleted=1),
    Row("then that one is run", see((), {"results": ERROR}, source=RETRAINED), "Pending", "JobStarted", created=1),
    Row("another failure is no reason for another checkpoint", see((job(rollout(), **GIVEN_UP),), source=RETRAINED),
        "Failed", "BackoffLimitExceeded"),
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
    after = replace(row.observed, object=row.observed.object | {"status": first | results}, jobs=jobs)
    if row.created:
        settled = reconcile(after, b.SETTINGS, b.NOW).status
        assert settled is not None
        after = Observed(after.object | {"status": settled | results}, jobs, source=after.source)
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


def test_the_report_names_the_generation_that_was_run_and_the_job_carries_it() -> None:
    (made,) = reconcile(see(generation=7), b.SETTINGS, b.NOW).create
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "RLTRAINER_GENERATION", "value": "7"} in env
    assert made["metadata"]["annotations"][names.GENERATION_ANNOTATION] == "7"


def test_a_finished_rollout_that_is_changed_says_that_it_is_not_run_again() -> None:
    observed = see((), {"results": DONE | {"generation": 1}, "phase": "Succeeded"}, generation=2)
    status = reconcile(observed, b.SETTINGS, b.NOW).status
    assert status
    assert "The document was changed after that, and is not run again" in status["message"]


def test_why_a_job_makes_no_pod_is_read_from_its_newest_event() -> None:
    world = FakeCluster()
    world.put(TRAINED)
    world.put(rollout())
    converger, key = Converger(world, b.SETTINGS, world.clock), Key("RLRollout", "team", "cartpole-rollout")
    converger.reconcile_key(key)
    uid = world.objects["Job", "cartpole-rollout"]["metadata"]["uid"]
    for name, about, at, message in (
        ("old", uid, "01", "LimitRange"),
        ("new", uid, "02", QUOTA),
        ("x", "u", "03", "?"),
    ):
        world.put({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "team"},
                   "involvedObject": {"uid": about}, "lastTimestamp": f"2030-01-01T12:00:{at}Z",
                   "message": message})  # fmt: skip
    converger.reconcile_key(key)
    status = world.objects["RLRollout", "cartpole-rollout"]["status"]
    assert status["message"] == f"The Job cannot make its pod: {QUOTA}. It is tried again by itself"


@pytest.mark.parametrize(("age", "requeue"), [(89, 2.0), (91, None)])
@pytest.mark.parametrize("pods", [(), (b.pod(1, **b.waiting("ErrImagePull", "no")),)], ids=["no pod", "a bad image"])
def test_what_does_not_start_is_not_looked_at_every_two_seconds_for_ever(
    age: float, requeue: float | None, pods: tuple[Manifest, ...]
) -> None:
    made = job(rollout())
    made["metadata"]["creationTimestamp"] = format_time(b.NOW - timedelta(seconds=age))
    assert reconcile(see((made,), pods=pods), b.SETTINGS, b.NOW).requeue_after == requeue
