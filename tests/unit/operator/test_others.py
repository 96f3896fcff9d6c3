"""What others have made is not taken for ours, not taken over, not deleted; what they write cannot pass for ours."""

import copy
import io
import logging
from contextlib import suppress
from typing import Any

import pytest
from rloperator.__main__ import OneLine
from rloperator.controller.converge import Converger, Key
from rloperator.experiment.reconcile import reconcile
from rloperator.kube import names
from rloperator.kube.client import ApiError, ConflictError, KubeClient, NameTakenError
from rloperator.kube.types import Manifest, Observed

from tests.unit.operator import builders as b
from tests.unit.operator.fake import FakeCluster

KEY = Key("RLExperiment", "team", "cartpole")


def world(**spec: Any) -> FakeCluster:
    made = FakeCluster()
    made.put(b.experiment(**spec))
    return made


def look(world: FakeCluster) -> Manifest:
    """The status after one look of the operator, whatever that raises."""
    with suppress(NameTakenError, ConflictError):
        Converger(world, b.SETTINGS, world.clock).reconcile_key(KEY)
    return dict(world.objects["RLExperiment", "cartpole"]["status"])


@pytest.mark.parametrize("kind", ["ConfigMap", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount"])
def test_an_object_of_the_name_that_somebody_else_has_made_stays_as_it_is(kind: str) -> None:
    cluster = world()
    api = "rbac.authorization.k8s.io/v1" if kind.startswith("Role") else "v1"
    theirs = cluster.put({"apiVersion": api, "kind": kind, "metadata": {"name": "rlx-cartpole", "namespace": "team"}})
    status = look(cluster)
    assert cluster.objects[kind, "rlx-cartpole"] == theirs
    assert f"there is a {kind} rlx-cartpole that this operator has not made" in status["message"]
    assert not cluster.made


def test_what_goes_with_an_earlier_experiment_of_the_name_is_waited_for() -> None:
    cluster = world()
    owner = b.made_by("RLExperiment", "cartpole", "an earlier one")
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap",
                 "metadata": {"name": "rlx-cartpole", "namespace": "team", "ownerReferences": owner}})  # fmt: skip
    assert not look(cluster)
    del cluster.objects["ConfigMap", "rlx-cartpole"]
    assert look(cluster)["phase"] == "Provisioning"


def copied(child: Manifest, **metadata: Any) -> Manifest:
    """A child that somebody made of one of ours, by its YAML: labels and all."""
    child = copy.deepcopy(child)
    child["metadata"] |= {"name": "debug", "uid": "another"} | metadata
    return child


DEBUG = (
    copied(b.rayjob(1, **b.SUCCEEDED), ownerReferences=[]),
    copied(b.ray_cluster(1), ownerReferences=b.made_by("RayJob", "debug", "another")),
    copied(b.pod(1), ownerReferences=b.made_by("RayCluster", "debug-xyz", "another")),
)


@pytest.mark.parametrize("theirs", DEBUG, ids=lambda child: child["kind"])
def test_a_copy_of_a_child_is_not_the_child(theirs: Manifest) -> None:
    cluster = world(status=b.status(b.record(1)))
    cluster.put(b.rayjob(1, **b.RUNNING))
    cluster.put(theirs)
    observed = Converger(cluster, b.SETTINGS, cluster.clock).observe(KEY)
    assert observed
    assert [job["metadata"]["name"] for job in observed.jobs] == ["cartpole-a1"]
    assert not observed.clusters
    assert not observed.pods


def test_children_are_known_by_what_made_them() -> None:
    for child in (b.rayjob(3), b.ray_cluster(3), b.pod(3), b.rayjob(1, uid="an earlier experiment of the name")):
        assert names.descends(child, "RLExperiment", "cartpole")
        assert not names.descends(child, "RLExperiment", "cart")
    assert not names.is_owned(b.rayjob(1, uid="an earlier experiment of the name"), b.experiment())


def test_labels_of_a_pod_template_add_to_ours_and_take_none_away() -> None:
    theirs = {names.EXPERIMENT_LABEL: "other", names.OWNER_UID_LABEL: None, "team": "rl"}
    for labels in (theirs, None):
        head = {"podTemplate": {"metadata": {"labels": labels}}}
        (job,) = reconcile(Observed(b.experiment(cluster={"head": head})), b.SETTINGS, b.NOW).create
        made = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
        assert made[names.EXPERIMENT_LABEL] == "cartpole"
        assert made[names.OWNER_UID_LABEL] == b.UID
        assert made.get("team") == ("rl" if labels else None)


class Answering(KubeClient):
    """An API server that answers every POST alike, and has nothing."""

    def __init__(self, answer: ApiError) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.answer = answer

    def _request(self, method: str, path: str, *rest: Any) -> Manifest:
        if method == "POST":
            raise self.answer
        raise ApiError(404, "not found")


OURS: Manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob",
                  "metadata": b.rayjob(1)["metadata"]}  # fmt: skip


def test_a_conflict_over_something_else_is_no_object_that_is_there() -> None:
    """A ResourceQuota that is written in between makes a POST end in 409 too."""
    with pytest.raises(ConflictError):
        Answering(ConflictError(409, "Operation cannot be fulfilled on resourcequotas")).create(OURS)


@pytest.mark.parametrize(
    ("status", "is_said"),
    [(400, True), (422, True), (403, False), (404, False), (409, False), (429, False), (500, False), (503, False)],
)
def test_only_what_is_wrong_with_an_object_is_its_refusal(status: int, is_said: bool) -> None:
    answer = ConflictError(409, "why") if status == 409 else ApiError(status, "why")
    assert Answering(answer).refusal(OURS) == ("why" if is_said else None)


def test_a_message_of_somebody_else_is_no_line_of_the_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info("%s: Succeeded", "x\n2030 INFO all good\r\x1b[1m\u2028ö")
    assert stream.getvalue() == "INFO x\\n2030 INFO all good\\r\\x1b[1m\\u2028ö: Succeeded\n"
