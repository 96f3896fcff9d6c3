"""A whole life, with the operator dying after every single one of its writes: the end is always the same."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from rloperator.controller.converge import Converger, Key
from rloperator.kube.client import ConflictError
from rloperator.kube.types import Manifest

from tests.unit.operator.builders import SETTINGS, experiment
from tests.unit.operator.fake import CrashError, FakeCluster

KEY = Key("RLExperiment", "team", "cartpole")
CHECKPOINT = {"uri": "s3://bucket/c10", "iteration": 10, "timestepsTotal": 10}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
LOST = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "Ray head pod not found."}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}

Step = Callable[[FakeCluster], Any]

# Trained, head lost, next attempt, suspended, resumed, document changed, finished, RayJob gone.
LIFE: tuple[Step, ...] = (
    lambda world: None,
    lambda world: world.set_job("cartpole-a1", **RUNNING),
    lambda world: world.report("cartpole", attempt=1, timestepsTotal=10, checkpoint=CHECKPOINT),
    lambda world: world.report(
        "cartpole", sync={"pending": 1, "error": {"reason": "StorageUnreachable", "message": "s3"}}
    ),
    lambda world: world.report("cartpole", sync={"pending": 0}),
    lambda world: world.set_job("cartpole-a1", **LOST),
    lambda world: world.set_job("cartpole-a2", **RUNNING),
    lambda world: world.report("cartpole", attempt=2, restoredFrom=CHECKPOINT["uri"]),
    lambda world: world.edit("cartpole", suspend=True),
    lambda world: world.edit("cartpole", suspend=False),
    lambda world: world.set_job("cartpole-a3", **RUNNING),
    lambda world: world.edit("cartpole", stop={"timesteps_total": 99}),
    lambda world: world.set_job("cartpole-a4", **RUNNING),
    lambda world: world.report("cartpole", attempt=4, stoppedBy="timesteps_total", timestepsTotal=99),
    lambda world: world.set_job("cartpole-a4", **DONE),
    lambda world: world.objects.pop(("RayJob", "cartpole-a4")),
)


def settle(world: FakeCluster) -> None:
    """The operator and the world take turns until neither does anything; a dead operator comes back."""
    quiet = 0
    while quiet < 3:
        before = world.state()
        for _ in range(2):
            with suppress(CrashError, ConflictError):
                Converger(world, SETTINGS, world.clock).reconcile_key(KEY)
        world.tick()
        quiet = quiet + 1 if world.state() == before else 0


def live(deadly: frozenset[int] = frozenset()) -> FakeCluster:
    world = FakeCluster(deadly)
    world.put(experiment())
    for step in LIFE:
        step(world)
        settle(world)
    return world


def timeless(value: Any) -> Any:
    """Without the times, which a restart may shift."""
    if isinstance(value, dict):
        times = ("lastTransitionTime", "startedAt", "endedAt")
        return {key: timeless(item) for key, item in value.items() if key not in times}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def summary(world: FakeCluster) -> Manifest:
    return {
        "status": timeless(world.objects["RLExperiment", "cartpole"]["status"]),
        "children": sorted(key for key in world.objects if key[0] != "RLExperiment"),
        "made": world.made,
        "events": Counter(world.events.values()),
    }


@cache
def undisturbed() -> FakeCluster:
    return live()


def test_the_life_itself() -> None:
    world = undisturbed()
    status = world.objects["RLExperiment", "cartpole"]["status"]
    assert [item["outcome"] for item in status["attempts"]] == ["Failed", "Suspended", "Replaced", "Succeeded"]
    assert status["phase"] == "Succeeded"
    assert status["failures"] == 1
    assert world.made == ["cartpole-a1", "cartpole-a2", "cartpole-a3", "cartpole-a4"]
    assert [reason for reason, _ in world.events.values()] == [
        "AttemptStarted", "ClusterReady", "Training", "CheckpointSyncFailed", "CheckpointSyncRecovered",
        "AttemptFailed",
        "AttemptStarted", "ClusterReady", "Training", "RestoredCheckpoint", "Suspending", "Suspended",
        "AttemptStarted", "Resumed", "ClusterReady", "Training", "AttemptReplaced",
        "AttemptStarted", "ClusterReady", "Training", "RestoredCheckpoint", "Succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize("write", range(1, 81))
def test_death_after_any_write_changes_nothing(write: int) -> None:
    assert undisturbed().writes <= 80, "raise the range: some writes are not tried"
    assert summary(live(frozenset({write}))) == summary(undisturbed())


@effort(max_examples=30, deadline=None)
@given(st.frozensets(st.integers(1, 120), min_size=2, max_size=12))
def test_many_deaths_change_nothing(deadly: frozenset[int]) -> None:
    assert summary(live(deadly)) == summary(undisturbed())
