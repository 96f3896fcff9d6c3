"""A document that cannot be made into pods is refused with its place, and costs no attempt that is under way."""

from typing import Any

import pytest
from rloperator.controller.converge import Converger, Key
from rloperator.experiment.reconcile import reconcile
from rloperator.kube.merge import malformed, merge
from rloperator.kube.types import Manifest, Observed, conditions_of
from rloperator.rollout.reconcile import reconcile as reconcile_rollout

from tests.unit.operator import builders as b
from tests.unit.operator.fake import FakeCluster
from tests.unit.operator.test_render import rollout

KEY = Key("RLExperiment", "team", "cartpole")

MALFORMED = [
    ({"spec": {"containers": ["sidecar"]}}, "spec.containers must be"),
    ({"spec": {"containers": [{"name": {}}]}}, "spec.containers must be"),
    ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers must be"),
    ({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}, "spec.containers must be"),
    ({"spec": {"containers": {"name": "a"}}}, "spec.containers must be"),
    ({"spec": {"containers": [None]}}, "spec.containers must be"),
    ({"spec": {"containers": None}}, "spec.containers must be"),
    ({"spec": {"volumes": ["x"]}}, "spec.volumes must be"),
    ({"spec": {"containers": [{"name": "ray-head", "env": ["A=1"]}]}}, "spec.containers[0].env must be"),
    ({"spec": {"containers": [{"name": "ray-head", "volumeMounts": [{"name": "a"}]}]}},
     "spec.containers[0].volumeMounts must be"),
    ({"spec": "x"}, "spec must be an object"),
    ({"spec": None}, "spec must be an object"),
    ({"metadata": []}, "metadata must be an object"),
    ({"metadata": {"labels": ["a"]}}, "metadata.labels must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "said"), MALFORMED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_pod_template_that_cannot_be_merged_is_refused_where_it_is_wrong(template: Manifest, said: str) -> None:
    for spec, place in (
        ({"head": {"podTemplate": template}}, "spec.cluster.head"),
        ({"workers": [{"name": "a", "podTemplate": template}]}, "spec.cluster.workers[0]"),
    ):
        outcome = reconcile(Observed(b.experiment(cluster=spec)), b.SETTINGS, b.NOW)
        assert outcome.status
        assert outcome.status["phase"] == "Invalid"
        assert f"{place}.podTemplate.{said}" in outcome.status["message"]
    trained = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c"}}})
    observed = Observed(rollout(pods={"podTemplate": template}), source=trained)
    outcome = reconcile_rollout(observed, b.SETTINGS, b.NOW)
    assert outcome.status
    assert f"spec.pods.podTemplate.{said}" in outcome.status["message"]


def test_a_pod_template_of_what_one_writes_is_not_malformed() -> None:
    template = {
        "metadata": {"labels": None, "annotations": {"a": "b"}},
        "spec": {
            "volumes": [{"name": "data", "nfs": {"server": "s", "path": "/"}}],
            "containers": [{"name": "ray-head", "env": [{"name": "A", "value": "1"}], "args": ["x", "x"],
                            "ports": [{"containerPort": 53, "protocol": "TCP"},
                                      {"containerPort": 53, "protocol": "UDP"}]}],
        },
    }  # fmt: skip
    assert malformed(template) is None


@pytest.mark.parametrize(
    ("field", "base", "over", "merged"),
    [
        ("env", [{"name": "A", "value": "1"}], [{"name": "A", "valueFrom": {"fieldRef": {}}}],
         [{"name": "A", "valueFrom": {"fieldRef": {}}}]),
        ("env", [{"name": "A", "valueFrom": {"fieldRef": {}}}], [{"name": "A", "value": "1"}],
         [{"name": "A", "value": "1"}]),
        ("volumes", [{"name": "tmp", "emptyDir": {}}], [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}],
         [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}]),
        ("volumes", [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
         [{"name": "tmp", "emptyDir": {"sizeLimit": 1}}],
         [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": 1}}]),
        ("lifecycle", {"preStop": {"exec": {"command": ["a"]}}}, {"preStop": {"httpGet": {"port": 1}}},
         {"preStop": {"httpGet": {"port": 1}}}),
        ("lifecycle", {"preStop": {"exec": {"command": ["a"]}}}, {"postStart": {"exec": {"command": ["b"]}}},
         {"preStop": {"exec": {"command": ["a"]}}, "postStart": {"exec": {"command": ["b"]}}}),
    ],
)  # fmt: skip
def test_one_of_several_fields_takes_the_place_of_another(field: str, base: Any, over: Any, merged: Any) -> None:
    assert merge({field: base}, {field: over}) == {field: merged}


class Strict(FakeCluster):
    """Takes no RayJob that asks for a field that Pods have not."""

    def refusal(self, manifest: Manifest) -> str | None:
        return 'unknown field "spec.hostnetwork"' if "hostnetwork" in str(manifest) else None


TYPO: Manifest = {"head": {"podTemplate": {"spec": {"hostnetwork": True}}}}


def test_what_the_api_server_would_not_take_is_no_attempt() -> None:
    world = Strict()
    world.put(b.experiment(cluster=TYPO))
    converger = Converger(world, b.SETTINGS, world.clock)
    for _ in range(3):
        converger.reconcile_key(KEY)
    status = world.objects["RLExperiment", "cartpole"]["status"]
    accepted = conditions_of(status).get("Accepted")
    assert (status["phase"], accepted["status"], accepted["reason"]) == ("Invalid", "False", "RefusedByCluster")
    assert 'unknown field "spec.hostnetwork"' in status["message"]
    assert not world.made
    assert [reason for reason, _ in world.events.values()] == ["RefusedByCluster"]
    world.edit("cartpole", cluster={})
    converger.reconcile_key(KEY)
    assert world.made == ["cartpole-a1"]


def test_an_edit_that_the_api_server_would_not_take_ends_no_attempt() -> None:
    world = Strict()
    world.put(b.experiment())
    converger = Converger(world, b.SETTINGS, world.clock)
    converger.reconcile_key(KEY)
    world.tick()
    world.set_job("cartpole-a1", **b.RUNNING)
    world.edit("cartpole", cluster=TYPO)
    for _ in range(2):
        converger.reconcile_key(KEY)
        world.tick()
    status = world.objects["RLExperiment", "cartpole"]["status"]
    assert "deletionTimestamp" not in world.objects["RayJob", "cartpole-a1"]["metadata"]
    assert (status["phase"], status["attempts"][-1]["outcome"]) == ("Running", "Running")
    assert conditions_of(status).get("Accepted")["reason"] == "RefusedByCluster"
    world.edit("cartpole", cluster={"head": {"cpu": "2"}})
    converger.reconcile_key(KEY)
    assert world.objects["RLExperiment", "cartpole"]["status"]["attempts"][-1]["outcome"] == "Replaced"


def test_a_fault_of_the_operator_is_told_on_the_object_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("jobs")

    monkeypatch.setattr("rloperator.controller.converge.reconcile_experiment", broken)
    world = FakeCluster()
    world.put(b.experiment())
    for _ in range(2):
        with pytest.raises(KeyError):
            Converger(world, b.SETTINGS, world.clock).reconcile_key(KEY)
    status = world.objects["RLExperiment", "cartpole"]["status"]
    assert status["message"].endswith("which is a fault of the operator: KeyError('jobs')")
    assert list(world.events.values()) == [("OperatorFailed", status["message"])]


class Unreachable(FakeCluster):
    """Gives no answer to whether it would take a manifest."""

    def refusal(self, manifest: Manifest) -> str | None:
        raise TimeoutError("read timed out")


def test_an_api_server_that_does_not_answer_is_no_fault_of_the_operator() -> None:
    world = Unreachable()
    world.put(b.experiment())
    with pytest.raises(TimeoutError):
        Converger(world, b.SETTINGS, world.clock).reconcile_key(KEY)
    assert not world.events
    assert not world.objects["RLExperiment", "cartpole"]["status"]
