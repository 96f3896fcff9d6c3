"""What a podTemplate may ask for. The right answers are those of the Pod Security Standard "restricted"."""

from dataclasses import replace
from typing import Any

import pytest
from rloperator.config import PodTemplates
from rloperator.experiment.reconcile import reconcile
from rloperator.kube.types import Manifest, Observed
from rloperator.rollout.reconcile import reconcile as reconcile_rollout

from tests.unit.operator import builders as b
from tests.unit.operator.test_render import rollout

SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def head(**fields: Any) -> Manifest:
    """A template that changes fields of our container's security context."""
    return {"containers": [{"name": "ray-head", "securityContext": fields}]}


def sidecar(name: str = "sidecar", kind: str = "containers", **fields: Any) -> Manifest:
    """A template with a container of its own that is restricted but for these fields."""
    return {kind: [{"name": name, "image": "x", "securityContext": SAFE | fields}]}


FORBIDDEN: list[tuple[Manifest, str]] = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"hostIPC": True}, "hostIPC"),
    ({"serviceAccountName": "admin"}, "serviceAccountName"),
    ({"serviceAccount": "admin"}, "serviceAccount"),
    ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, "hostPath"),
    ({"volumes": [{"name": "h", "nfs": {"server": "s", "path": "/"}}]}, "nfs"),
    ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
    ({"securityContext": None}, "runAsNonRoot"),
    ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
    ({"securityContext": {"seccompProfile": None}}, "seccompProfile"),
    ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "kernel.msgmax"),
    ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "seLinuxOptions"),
    ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "hostProcess"),
    ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, "appArmorProfile"),
    (head(privileged=True), "privileged"),
    (head(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    (head(runAsUser=0), "runAsUser"),
    (head(runAsNonRoot=False), "runAsNonRoot"),
    (head(capabilities={"add": ["SYS_ADMIN"]}), "capabilities.add"),
    (head(capabilities={"drop": []}), "capabilities.drop"),
    (head(procMount="Unmasked"), "procMount"),
    (head(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    ({"containers": [{"name": "ray-head", "securityContext": None}]}, "allowPrivilegeEscalation"),
    ({"containers": [{"name": "ray-head", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "hostPort"),
    ({"containers": [{"name": "sidecar", "image": "x"}]}, "allowPrivilegeEscalation must be false"),
    (sidecar(kind="initContainers", privileged=True), "privileged"),
    (sidecar(kind="initContainers", runAsUser=0), "runAsUser"),
]

FINE: list[Manifest] = [
    {},
    {"hostNetwork": False},
    {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]},
    {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c"}}]},
    {"securityContext": {"runAsUser": 1000, "fsGroup": 1000}},
    {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}},
    {"nodeSelector": {"a": "b"}, "affinity": {}, "terminationGracePeriodSeconds": 5},
    head(readOnlyRootFilesystem=False),
    head(capabilities={"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}),
    sidecar(),
    sidecar(kind="initContainers"),
    {"containers": [{"name": "ray-head", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 1}]}]},
]


def status(spec: Manifest, allowed: PodTemplates = "restricted", group: bool = False) -> Manifest:
    """The status of an experiment whose head, or whose group of workers, has a template with this spec."""
    settings = replace(b.SETTINGS, pod_templates=allowed)
    pods = {"podTemplate": {"spec": spec}}
    cluster = {"workers": [{"name": "a", **pods}]} if group else {"head": pods}
    after = reconcile(Observed(b.experiment(cluster=cluster)), settings, b.NOW).status
    assert after
    return after


@pytest.mark.parametrize(("spec", "named"), FORBIDDEN, ids=lambda value: value if isinstance(value, str) else "")
def test_what_pod_security_restricted_forbids_is_refused_with_its_name(spec: Manifest, named: str) -> None:
    after = status(spec)
    accepted = next(each for each in after["conditions"] if each["type"] == "Accepted")
    assert (after["phase"], accepted["reason"]) == ("Invalid", "PodTemplateForbidden")
    where, _, rest = after["message"].partition(", and the operator's Helm value podTemplates is restricted")
    assert where.startswith("spec.cluster.head.podTemplate.spec.")
    assert rest
    assert named in where
    assert status(spec, "allowed")["phase"] == "Provisioning"


@pytest.mark.parametrize("spec", FINE)
def test_what_it_allows_is_taken(spec: Manifest) -> None:
    assert status(spec)["phase"] == "Provisioning"


def test_refused_refuses_every_template() -> None:
    assert "refused by the operator's Helm value podTemplates" in status({"hostNetwork": False}, "refused")["message"]
    plain = reconcile(Observed(b.experiment()), replace(b.SETTINGS, pod_templates="refused"), b.NOW)
    assert plain.create


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
@pytest.mark.parametrize("group", [False, True])
def test_a_template_turns_rays_own_authentication_neither_off_nor_to_a_token_that_others_read(
    name: str, group: bool
) -> None:
    container = "ray-worker" if group else "ray-head"
    env = [{"name": "A", "value": "1"}, {"name": name, "value": "disabled"}]
    message = status({"containers": [{"name": container, "env": env}]}, "allowed", group)["message"]
    assert f"{container}: env: {name}: KubeRay sets it" in message


TOKEN: list[Manifest] = [
    {"automountServiceAccountToken": True},
    {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
]


@pytest.mark.parametrize("spec", TOKEN)
def test_a_pod_without_an_identity_of_the_run_gets_no_token_of_another(spec: Manifest) -> None:
    assert "the token of another identity" in status(spec, group=True)["message"]
    assert status(spec)["phase"] == "Provisioning"


def test_a_rollout_has_the_same_limits() -> None:
    trained = b.experiment({"training": {"checkpoint": {"uri": "s3://b/c"}}})
    document = rollout(pods={"podTemplate": {"spec": {"hostNetwork": True}}})
    after = reconcile_rollout(Observed(document, source=trained), b.SETTINGS, b.NOW).status
    assert after
    assert after["message"].startswith("spec.pods.podTemplate.spec.hostNetwork is set")
