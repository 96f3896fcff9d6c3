"""Who may connect to an experiment's pods, as its NetworkPolicy has it."""

from dataclasses import replace
from typing import Any

import pytest
from rloperator.config import Settings
from rloperator.controller.converge import Converger, Key
from rloperator.experiment.rayjob import rayjob, support_of
from rloperator.experiment.view import ExperimentView
from rloperator.kube.types import Manifest, Observed, conditions_of

from tests.unit.operator import builders as b
from tests.unit.operator.fake import FakeCluster

KEY = Key("RLExperiment", "team", "cartpole")
OFF = replace(b.SETTINGS, network_policies=False)
PROMETHEUS: Manifest = {"from": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}], "ports": [{"port": 8080}]}
JUMP: Manifest = {"from": [{"ipBlock": {"cidr": "10.0.0.7/32"}}]}
PODS: Manifest = {"matchLabels": {"rltrainer.io/experiment": "cartpole", "rltrainer.io/owner-uid": b.UID}}


def view(settings: Settings = b.SETTINGS, **cluster: Any) -> ExperimentView:
    return ExperimentView.of(Observed(b.experiment(cluster=cluster)), settings, b.NOW)


def policies(seen: ExperimentView) -> list[Manifest]:
    return [manifest for manifest in support_of(seen) if manifest["kind"] == "NetworkPolicy"]


def test_to_a_runs_pods_connect_its_own_kuberay_and_who_is_named() -> None:
    settings = replace(b.SETTINGS, network_ingress=(PROMETHEUS,), kuberay_namespace="ray")
    [policy] = policies(view(settings, ingress=[JUMP]))
    kuberay = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ray"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
    }
    assert policy["spec"] == {
        "podSelector": PODS,
        "policyTypes": ["Ingress"],
        "ingress": [
            JUMP,
            {"from": [{"podSelector": PODS}]},
            {"from": [kuberay], "ports": [{"port": 8265}]},
            PROMETHEUS,
        ],
    }
    [reference] = policy["metadata"]["ownerReferences"]
    assert (policy["metadata"]["name"], reference["uid"], reference["controller"]) == ("rlx-cartpole", b.UID, True)


def test_the_policy_is_of_every_pod_whatever_labels_its_template_has() -> None:
    labels = {"metadata": {"labels": {"rltrainer.io/experiment": "another", "rltrainer.io/owner-uid": None}}}
    seen = view(head={"podTemplate": labels}, workers=[{"name": "cpu", "podTemplate": labels}])
    spec = rayjob(seen, 1)["spec"]["rayClusterSpec"]
    templates = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    assert len(templates) == 2
    for template in templates:
        assert template["metadata"]["labels"].items() >= PODS["matchLabels"].items()


def test_ray_asks_for_a_token() -> None:
    for cluster in ({}, {"workers": [{"name": "cpu"}]}):
        assert rayjob(view(b.SETTINGS, **cluster), 1)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_an_operator_that_is_to_make_none_makes_none() -> None:
    assert policies(view(OFF, ingress=[JUMP])) == []


class Counting(FakeCluster):
    """Takes no rule that is for everybody, and notes which kinds are asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[str] = []

    def refusal(self, manifest: Manifest) -> str | None:
        self.tried.append(manifest["kind"])
        return "spec.ingress[0].from[0]: not valid" if "nobody" in str(manifest["spec"]) else None

    @property
    def rules(self) -> list[Manifest]:
        return list(self.objects["NetworkPolicy", "rlx-cartpole"]["spec"]["ingress"])


def running(converger: Converger, world: Counting) -> None:
    world.put(b.experiment())
    converger.reconcile_key(KEY)
    world.tick()
    world.set_job("cartpole-a1", **b.RUNNING)
    converger.reconcile_key(KEY)
    assert ("NetworkPolicy", "rlx-cartpole") in world.objects


def test_rules_of_the_document_reach_what_runs_and_replace_no_attempt() -> None:
    world = Counting()
    converger = Converger(world, b.SETTINGS, world.clock)
    running(converger, world)
    assert world.tried == ["RayJob"], "our own rules are asked about"
    world.edit("cartpole", cluster={"ingress": [PROMETHEUS]})
    converger.reconcile_key(KEY)
    assert world.rules[0] == PROMETHEUS
    assert world.made == ["cartpole-a1"]
    assert "deletionTimestamp" not in world.objects["RayJob", "cartpole-a1"]["metadata"]


def test_who_is_named_after_the_end_may_look_at_a_cluster_that_is_kept() -> None:
    world = Counting()
    converger = Converger(world, b.SETTINGS, world.clock)
    running(converger, world)
    world.report("cartpole", attempt=1, stoppedBy="timesteps_total >= 1")
    world.set_job("cartpole-a1", **b.SUCCEEDED)
    world.report("cartpole", attempt=1, stoppedBy="training_iteration >= 3")
    world.edit("cartpole", cluster={"ingress": [JUMP]})
    converger.reconcile_key(KEY)
    assert world.objects["RLExperiment", "cartpole"]["status"]["phase"] == "Succeeded"
    converger.reconcile_key(KEY)
    assert world.rules[0] == JUMP


def test_rules_that_the_api_server_would_not_take_are_refused_and_the_earlier_ones_hold() -> None:
    world = Counting()
    converger = Converger(world, b.SETTINGS, world.clock)
    running(converger, world)
    before = world.rules
    world.edit("cartpole", cluster={"ingress": [{"from": [{"podSelector": "nobody"}]}]})
    for _ in range(2):
        converger.reconcile_key(KEY)
    status = world.objects["RLExperiment", "cartpole"]["status"]
    accepted = conditions_of(status).get("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "RefusedByCluster")
    assert "spec.ingress[0].from[0]: not valid" in accepted["message"]
    assert status["phase"] == "Running"
    assert world.rules == before


@pytest.mark.parametrize("owner", [b.UID, "another"])
def test_a_policy_that_was_made_goes_once_none_is_to_be_made_and_anothers_stays(owner: str) -> None:
    world = Counting()
    running(Converger(world, b.SETTINGS, world.clock), world)
    policy = world.objects["NetworkPolicy", "rlx-cartpole"]
    policy["metadata"]["ownerReferences"][0]["uid"] = owner
    Converger(world, OFF, world.clock).reconcile_key(KEY)
    assert ("deletionTimestamp" in policy["metadata"]) == (owner == b.UID)
