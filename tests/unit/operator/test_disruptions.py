"""Pods that are taken from a run by what is around it are no failure of the run."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from rloperator.controller import handlers
from rloperator.controller.converge import Converger, Key
from rloperator.controller.witness import Witness
from rloperator.experiment.disruptions import MAX_EXCUSED
from rloperator.experiment.reconcile import reconcile
from rloperator.kube.disruption import disruption
from rloperator.kube.types import Manifest, Observed, format_time

from tests.unit.operator import builders as b
from tests.unit.operator.fake import FakeCluster

ENDED = (b.rayjob(1, **b.failed()),)
RUNS = (b.rayjob(1, **b.RUNNING),)
MANY_GB = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. "
TAKEN = (
    ("EvictionByEvictionAPI", "Eviction API: evicting", "was evicted, as when its node is drained"),
    ("PreemptionByScheduler", "default-scheduler: preempting", "was preempted for a pod of higher priority"),
    ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", "was deleted for a taint of its node"),
    ("DeletionByPodGC", "PodGC: node no longer exists", "was deleted, because its node is gone or out of service"),
    ("TerminationByKubelet", "Pod was terminated in response to imminent node shutdown.", "was ended by its node"),
    ("CloudTookIt", "", "was taken away"),
)
ENDED_AS = (
    ("Evicted", MANY_GB, "was evicted by its node"),
    ("Preempting", "Preempted in order to admit critical pod", "was preempted"),
    ("NodeLost", "Node spot-3 which was running pod is unresponsive", "was lost with its node"),
    ("NodeShutdown", "Pod was rejected as the node is shutting down.", "was ended as its node shut down"),
    ("Terminated", "Pod was terminated in response to imminent node shutdown.", "was ended as its node shut down"),
)
OWN = (
    'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi". ',
    "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
    'Container ray-head exceeded its local ephemeral storage limit "1Gi". ',
)


def target(reason: str = "PreemptionByScheduler", message: str = "preempting", status: str = "True") -> Manifest:
    return {"conditions": [{"type": "DisruptionTarget", "status": status, "reason": reason, "message": message}]}


def pod(kind: str = "head", number: int = 1, **state: Any) -> Manifest:
    return b.pod(number, kind, **state) | {"spec": {"nodeName": "spot-3"}}


def look(observed: Observed, ago: float = 0) -> Manifest:
    """The whole status after a look, that many seconds before the last one."""
    now = b.NOW - timedelta(seconds=ago)
    return {"training": {}} | observed.status | (reconcile(observed, b.SETTINGS, now).status or {})


def see(status: Manifest, jobs: tuple[Manifest, ...] = ENDED, pods: tuple[Manifest, ...] = (),
        lost: tuple[Manifest, ...] = (), **spec: Any) -> Observed:  # fmt: skip
    return Observed(b.experiment(status, **spec), jobs, pods=pods, lost=lost)


CASES = [
    *((target(reason, message), reason, did) for reason, message, did in TAKEN),
    *(({"phase": "Failed", "reason": reason, "message": message}, reason, did) for reason, message, did in ENDED_AS),
]


@pytest.mark.parametrize(("state", "reason", "did"), CASES, ids=[case[1] for case in CASES])
@pytest.mark.parametrize("where", ["there", "gone"])
def test_a_head_that_is_taken_away_is_no_failure(state: Manifest, reason: str, did: str, where: str) -> None:
    head = (pod(**state),)
    observed = see(b.status(b.record(1)), pods=head) if where == "there" else see(b.status(b.record(1)), lost=head)
    outcome = reconcile(replace(observed, object=b.experiment(observed.status, maxFailures=0)), b.SETTINGS, b.NOW)
    assert outcome.status
    (attempt,) = outcome.status["attempts"]
    assert (outcome.status["phase"], outcome.status["failures"], attempt["outcome"]) == ("Retrying", 0, "Lost")
    assert f"Pod cartpole-a1-head on node spot-3 {did} ({reason}" in outcome.status["message"]
    assert "is no failure of the run" in outcome.status["message"]
    assert outcome.requeue_after == 10
    assert {item["reason"] for item in outcome.status["conditions"] if item["type"] == "Training"} == {reason}
    assert [event.reason for event in outcome.events] == ["AttemptLost"]


@pytest.mark.parametrize("message", OWN)
def test_an_eviction_for_a_limit_of_its_own_is_a_failure(message: str) -> None:
    status = look(see(b.status(b.record(1)), pods=(pod(phase="Failed", reason="Evicted", message=message),)))
    assert (status["failures"], status["attempts"][0]["outcome"]) == (1, "Failed")
    assert message.strip().rstrip(".") in status["message"]


@pytest.mark.parametrize("state", [{}, target(status="False"), {"reason": "DeadlineExceeded"}], ids=str)
def test_what_nobody_took_away_is_a_failure(state: Manifest) -> None:
    assert look(see(b.status(b.record(1)), pods=(pod(**state),)))["failures"] == 1


def test_a_head_that_is_killed_for_its_memory_is_a_failure_wherever_its_pod_goes_then() -> None:
    killed = [{"name": "ray-head", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]
    status = look(see(b.status(b.record(1)), pods=(pod(containerStatuses=killed, **target()),)))
    assert status["failures"] == 1
    assert "ran out of memory" in status["message"]


def test_it_is_written_down_while_the_pod_is_there_and_known_when_the_pod_is_gone() -> None:
    running = look(see(b.status(b.record(1)), RUNS, (pod(**target()),)), ago=20)
    assert "Pod cartpole-a1-head on node spot-3 was preempted" in running["message"]
    assert running["attempts"][0]["disruption"]["node"] == "spot-3"
    assert look(see(running))["failures"] == 0
    assert look(see(running, jobs=()))["failures"] == 0, "KubeRay may have deleted the RayJob by then"


@pytest.mark.parametrize("ago", [121, 3600])
def test_a_loss_that_the_attempt_outlived_explains_no_later_end(ago: float) -> None:
    running = look(see(b.status(b.record(1)), RUNS, (pod("worker", **target()),)), ago=ago)
    assert look(see(running))["failures"] == 1
    assert "disruption" not in look(see(running, RUNS))["attempts"][0]


def test_a_preemption_that_is_called_off_is_forgotten() -> None:
    running = look(see(b.status(b.record(1)), RUNS, (pod(**target()),)), ago=20)
    assert "disruption" not in look(see(running, RUNS, (pod(**target(status="False")),)))["attempts"][0]


def test_a_long_grace_period_is_still_the_same_end() -> None:
    status = b.status(b.record(1))
    for ago in range(600, 0, -15):
        status = look(see(status, RUNS, (pod(**target()),)), ago=ago)
    assert look(see(status))["failures"] == 0


def test_a_worker_that_is_taken_away_explains_the_trainers_end_and_no_deadline() -> None:
    failed = b.rayjob(1, **b.failed("Job entrypoint command failed with exit code 1"))
    late = b.rayjob(1, jobDeploymentStatus="Failed", reason="DeadlineExceeded")
    for job, failures in ((failed, 0), (late, 1)):
        assert look(see(b.status(b.record(1)), (job,), (pod("worker", **target()),)))["failures"] == failures


def test_a_pod_of_another_attempt_explains_nothing() -> None:
    assert look(see(b.status(b.record(1)), lost=(pod(number=2, **target()),)))["failures"] == 1


def test_the_trainers_own_word_on_the_document_holds() -> None:
    training = {"attempt": 1, "error": {"reason": "EnvironmentNotFound", "message": "none"}}
    status = look(see(b.status(b.record(1), training=training), pods=(pod(**target()),)))
    assert status["attempts"][0]["outcome"] == "Invalid"


def lives(rounds: int, iteration: Any = lambda number: None) -> list[tuple[Manifest, float | None]]:
    """An experiment whose every attempt is preempted; `iteration` is the checkpoint that attempt came to."""
    status, seen, now = b.status(), [], b.NOW
    for number in range(1, rounds + 1):
        begun = b.record(number) | {"startedAt": format_time(now)}
        checkpoint = {"uri": "s3://b/c", "iteration": iteration(number)} if iteration(number) else None
        status = status | {"attempt": number, "attempts": [*status.get("attempts", []), begun][-20:],
                           "training": {"attempt": number, "checkpoint": checkpoint}}  # fmt: skip
        observed = see(status, (b.rayjob(number, **b.failed()),), (pod(number=number, **target()),), maxFailures=3)
        outcome = reconcile(observed, b.SETTINGS, now)
        assert outcome.status
        seen.append((outcome.status, outcome.requeue_after))
        status, now = outcome.status, now + timedelta(seconds=400)
    return seen


def test_losses_without_progress_wait_longer_each_time_and_come_to_an_end() -> None:
    seen = lives(MAX_EXCUSED + 4)
    waits = [wait for _, wait in seen]
    assert waits[:MAX_EXCUSED] == [10, 20, 40, 80, 160, 300, 300, 300, 300]
    assert [status["failures"] for status, _ in seen] == [0] * MAX_EXCUSED + [1, 2, 3, 4]
    assert [status["phase"] for status, _ in seen] == ["Retrying"] * (MAX_EXCUSED + 3) + ["Failed"]
    assert "10 attempts were lost without a new checkpoint in between" in seen[MAX_EXCUSED][0]["message"]


def test_losses_with_progress_are_never_too_many_and_never_wait_long() -> None:
    seen = lives(60, iteration=lambda number: 10 * number)
    assert {(status["phase"], status["failures"], wait) for status, wait in seen} == {("Retrying", 0, 10)}


def test_a_pod_that_is_gone_by_the_time_of_the_look_was_seen_by_its_watch() -> None:
    world = FakeCluster()
    world.put(b.experiment())
    converger = Converger(world, b.SETTINGS, world.clock)
    key = Key("RLExperiment", "team", "cartpole")
    converger.reconcile_key(key)
    for _ in range(3):
        world.tick()
        converger.reconcile_key(key)
    converger.witness.saw(("team", "cartpole"), pod(**target("DeletionByPodGC", "node no longer exists")))
    world.objects = {name: item for name, item in world.objects.items() if name[0] != "Pod"}
    world.set_job("cartpole-a1", **b.failed())
    converger.reconcile_key(key)
    status = world.objects["RLExperiment", "cartpole"]["status"]
    assert (status["failures"], status["attempts"][0]["reason"]) == (0, "DeletionByPodGC")


def test_a_witness_forgets_after_a_minute_and_tells_only_of_pods_that_are_gone() -> None:
    now = 0.0
    witness = Witness(lambda: now)
    witness.saw(("team", "cartpole"), pod(**target()))
    assert witness.gone(("team", "cartpole"), (pod(),)) == ()
    assert witness.gone(("team", "other"), ()) == ()
    (gone,) = witness.gone(("team", "cartpole"), ())
    assert disruption(gone, datetime.now(b.NOW.tzinfo))
    now = 61.0
    assert witness.gone(("team", "cartpole"), ()) == ()


def test_the_watch_of_pods_tells_only_of_those_that_are_taken_away() -> None:
    queued: list[Key] = []
    memo = kopf.Memo(witness=Witness(), queue=SimpleNamespace(add=queued.append))
    changed = cast(Any, handlers.pod_changed)
    for state in (b.READY, target(status="False"), {"phase": "Succeeded"}, target()):
        asyncio.run(changed(body=kopf.Body(cast(Any, pod(**state))), memo=memo))
    assert queued == [Key("RLExperiment", "team", "cartpole")]
    (gone,) = memo["witness"].gone(("team", "cartpole"), ())
    assert gone["status"] == target()


def test_the_watch_of_pods_tells_of_those_that_fail_for_as_long_as_they_are_counted() -> None:
    now = 0.0
    witness = Witness(lambda: now)
    memo = kopf.Memo(witness=witness, queue=SimpleNamespace(add=lambda key: None))
    asyncio.run(cast(Any, handlers.pod_changed)(body=kopf.Body(cast(Any, pod("worker", phase="Failed"))), memo=memo))
    now = 599.0
    assert len(witness.gone(("team", "cartpole"), ())) == 1
    now = 601.0
    assert witness.gone(("team", "cartpole"), ()) == ()
