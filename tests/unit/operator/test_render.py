"""What is rendered, held against golden files, which RLOPERATOR_UPDATE_GOLDEN=1 in the environment rewrites."""

import copy
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rloperator.experiment.rayjob import AWAIT_TRIALS, rayjob, support_of
from rloperator.experiment.view import ExperimentView
from rloperator.kube import names
from rloperator.kube.merge import merge
from rloperator.kube.pods import RAY_VERSION
from rloperator.kube.types import Manifest, Observed
from rloperator.rollout.reconcile import reconcile as reconcile_rollout

from rltrainer.api.base import MAX_NAME
from rltrainer.api.experiment import ExperimentSpec
from tests.unit.operator import builders as b

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
UPDATE = os.environ.get("RLOPERATOR_UPDATE_GOLDEN") == "1"

FULL: Manifest = {
    "config": {"num_workers": 4, "num_gpus": 1},
    "storage": {"uri": "s3://own/prefix", "region": "eu-west-1"},
    "cluster": {
        "image": "registry/own:2",
        "imagePullPolicy": "Always",
        "imagePullSecrets": ["pull"],
        "head": {
            "cpu": 2,
            "podTemplate": {
                "metadata": {"annotations": {"team": "rl"}},
                "spec": {"containers": [{"name": "ray-head", "env": [{"name": "MUJOCO_GL", "value": "egl"}]}]},
            },
        },
        "workers": [
            {"name": "cpu", "maxReplicas": 4, "cpu": "1500m", "memory": "3Gi", "nodeSelector": {"pool": "cpu"}},
            {"name": "gpu", "minReplicas": 1, "maxReplicas": 1, "gpus": 1,
             "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
        ],
        "autoscaling": {"idleTimeoutSeconds": 30, "upscalingMode": "Aggressive"},
        "gracePeriodSeconds": 90,
        "keepSecondsAfterFinished": 120,
        "queueName": "rl",
        "priorityClassName": "high",
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}], "ports": [{"port": 8080}]}],
    },
}  # fmt: skip

SEARCH: Manifest = {
    "tune": {"numSamples": 4, "space": {"lr": {"loguniform": [0.0001, 0.01]}}, "scheduler": {"name": "AsyncHyperBand"}},
    "cluster": {"workers": [{"name": "trials", "maxReplicas": 2}], "gracePeriodSeconds": 90},
}


def view(restore_uri: str | None = None, **spec: Any) -> ExperimentView:
    return replace(ExperimentView.of(Observed(b.experiment(**spec)), b.SETTINGS, b.NOW), restore_uri=restore_uri)


def rollout(**spec: Any) -> Manifest:
    metadata = {"name": "cartpole-rollout", "namespace": "team", "uid": b.UID, "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLRollout", "metadata": metadata,
            "spec": {"experiment": "cartpole", **spec}, "status": {}}  # fmt: skip


def rollout_manifests() -> list[Manifest]:
    training = {"bestCheckpoint": {"uri": f"{b.FOLDER}/checkpoints/checkpoint_000040"}}
    source = b.experiment({"training": training}, cluster={"imagePullSecrets": ["pull"]})
    outcome = reconcile_rollout(Observed(rollout(episodes=20, video=True), source=source), b.SETTINGS, b.NOW)
    return [*outcome.apply, *outcome.create]


def attempt_manifests(view: ExperimentView, number: int) -> list[Manifest]:
    return [*support_of(view), rayjob(view, number)]


CASES = {
    "small": lambda: attempt_manifests(view(), 1),
    "full": lambda: attempt_manifests(view("s3://bucket/other/checkpoint_000007", **FULL), 3),
    "search": lambda: attempt_manifests(view("s3://bucket/other/checkpoint_000007", **SEARCH), 1),
    "rollout": rollout_manifests,
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_golden(name: str) -> None:
    rendered = CASES[name]()
    path = GOLDEN / f"{name}.yaml"
    if UPDATE:
        path.write_text(yaml.safe_dump_all(copy.deepcopy(rendered), sort_keys=False, width=120))
    assert list(yaml.safe_load_all(path.read_text())) == rendered


def containers(name: str) -> list[Manifest]:
    result: list[Manifest] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            result.extend(value.get("containers", []))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(CASES[name]())
    return result


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_container_is_restricted(name: str) -> None:
    assert containers(name)
    for container in containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_secret_stands_in_a_manifest_and_only_what_trains_gets_one(name: str) -> None:
    for container in containers(name):
        secrets = [env for env in container["env"] if env["name"].startswith("AWS_")]
        assert all("value" not in env and "secretKeyRef" in env["valueFrom"] for env in secrets)
        assert not (secrets and container["name"] == "ray-worker" and name != "search")


def test_the_workers_of_a_search_are_trainers_that_report_nothing() -> None:
    """Trials run there: they reach storage and are given time, but who reports is the search in the head."""
    job = rayjob(view("s3://bucket/c7", **SEARCH), 1)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    env = {item["name"]: item for item in pod["containers"][0]["env"]}
    assert env["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "s3-credentials"
    assert env["RLTRAINER_RESTORE_URI"]["value"] == "s3://bucket/c7"
    assert env["RLTRAINER_TRIALS"]["value"] == "1"
    assert not {"RLTRAINER_NAME", "RLTRAINER_NAMESPACE"} & env.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "rlx-cartpole"
    assert pod["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize(
    ("spec", "training", "expected"),
    [
        ({}, {}, None),
        ({}, {"iteration": 3}, None),
        ({}, {"iteration": 3, "checkpoint": {"uri": "s3://bucket/c3"}}, "s3://bucket/c3"),
        (SEARCH, {"trials": {"pending": 4}, "iteration": 0}, None),
        (SEARCH, {"trials": {"running": 1}, "iteration": 3}, f"{b.STORAGE.uri}/team/cartpole/0a1b2c3d/search.json"),
    ],
)
def test_a_trainer_is_told_what_it_must_find(spec: Manifest, training: Manifest, expected: str | None) -> None:
    observed = Observed(b.experiment({"training": training}, **spec))
    job = rayjob(ExperimentView.of(observed, b.SETTINGS, b.NOW), 2)
    [container] = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env.get("RLTRAINER_EXPECTED_CHECKPOINT") == expected


CONNECTED = "   1: 0A0A000A:C350 0B0A000A:18EB 01 00000000:00000000\n"
LEFT = "   1: 0A0A000A:C350 0B0A000A:18EB 06 00000000:00000000\n"


@pytest.mark.parametrize(
    ("title", "connections", "waits"),
    [
        ("ray::ResourceTrainable.train", CONNECTED, True),
        ("ray::WorkerActor", CONNECTED, True),
        ("ray::IDLE", CONNECTED, False),
        ("ray::DashboardAgent", CONNECTED, False),
        ("ray::RuntimeEnvAgent", CONNECTED, False),
        ("/opt/venv/ray/raylet", CONNECTED, False),
        ("ray::ResourceTrainable.train", LEFT, False),
        ("ray::ResourceTrainable.train", "", False),
    ],
)
def test_a_worker_of_a_search_stays_while_a_trial_lives_and_the_head_is_there(
    tmp_path: Path, title: str, connections: str, waits: bool
) -> None:
    for name, content in (
        ("42/cmdline", f"{title}\0\0"),
        ("net/tcp", "  sl  local_address rem_address   st\n" + connections),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    once = AWAIT_TRIALS.replace("/proc", str(tmp_path)).replace("sleep 0.5", "echo waits; break")
    done = subprocess.run(["/bin/bash", "-c", once], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("waits\n" if waits else "", "")


def test_a_run_is_somebody_of_its_own_whom_document_and_operator_annotate() -> None:
    settings = replace(b.SETTINGS, account_annotations={"role": "default", "team": "rl"}, image_pull_secrets=("all",))
    document = b.experiment(cluster={"serviceAccount": {"annotations": {"role": "mine"}}})
    found = ExperimentView.of(Observed(document), settings, b.NOW)
    account, _, binding, *_ = support_of(found)
    assert account["metadata"]["annotations"] == {"role": "mine", "team": "rl"}
    assert [subject["name"] for subject in binding["subjects"]] == ["rlx-cartpole"]
    head = rayjob(found, 1)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert (head["serviceAccountName"], head["imagePullSecrets"]) == ("rlx-cartpole", [{"name": "all"}])


def test_a_run_is_whom_its_document_names_where_the_operator_lets_it() -> None:
    document = b.experiment(cluster={"serviceAccount": {"name": "ml"}, "imagePullSecrets": ["own"]})
    refusal = ExperimentView.of(Observed(document), b.SETTINGS, b.NOW).rejection
    assert refusal is not None
    assert refusal.reason == "ServiceAccountForbidden"
    assert 'nobody run as "ml"' in refusal.message
    for settings in (replace(b.SETTINGS, accounts=("ml",)), replace(b.SETTINGS, pod_templates="allowed")):
        found = ExperimentView.of(Observed(document), replace(settings, image_pull_secrets=("all",)), b.NOW)
        assert found.rejection is None
        assert [manifest["kind"] for manifest in support_of(found)[:3]] == ["Role", "RoleBinding", "ConfigMap"]
        assert [subject["name"] for subject in support_of(found)[1]["subjects"]] == ["ml"]
        head = rayjob(found, 1)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        assert (head["serviceAccountName"], head["imagePullSecrets"]) == ("ml", [{"name": "own"}])


@pytest.mark.parametrize(
    ("own", "source", "expected"),
    [
        (None, {"name": "ml"}, "ml"),
        ({"name": "own"}, {"name": "ml"}, "own"),
        ({}, {"name": "ml"}, "rlr-cartpole-rollout"),
        (None, None, "rlr-cartpole-rollout"),
    ],
)
def test_a_rollout_is_whom_it_names_or_else_its_experiment(own: Any, source: Any, expected: str) -> None:
    training = {"checkpoint": {"uri": f"{b.FOLDER}/checkpoints/checkpoint_000040"}}
    experiment = b.experiment({"training": training}, cluster={"serviceAccount": source} if source else {})
    document = rollout(**({} if own is None else {"serviceAccount": own}))
    settings = replace(b.SETTINGS, accounts=("ml", "own"))
    [job] = reconcile_rollout(Observed(document, source=experiment), settings, b.NOW).create
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == expected
    forbidden = reconcile_rollout(Observed(document, source=experiment), b.SETTINGS, b.NOW)
    assert bool(forbidden.create) == (expected == "rlr-cartpole-rollout")


def test_credentials_are_handed_on_under_the_keys_that_they_have() -> None:
    keys = {"accessKeyId": "id", "secretAccessKey": "key", "sessionToken": "token"}
    found = view(storage={"uri": "s3://bucket/b", "credentialsSecret": "mine", "credentialsKeys": keys})
    [head] = rayjob(found, 1)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in head["env"] if "valueFrom" in each}
    assert references == {
        "AWS_ACCESS_KEY_ID": {"name": "mine", "key": "id"},
        "AWS_SECRET_ACCESS_KEY": {"name": "mine", "key": "key"},
        "AWS_SESSION_TOKEN": {"name": "mine", "key": "token", "optional": True},
    }


def test_the_document_for_the_trainer_holds_no_defaults() -> None:
    """An older trainer image refuses fields that it does not know, and the API server fills in all that there are."""
    stated = {"run": "PPO", "env": "CartPole-v1", "stop": {"timesteps_total": 5}, "evaluation": {}}
    whole = ExperimentSpec.model_validate(stated).model_dump(by_alias=True, exclude_none=True, mode="json")
    document = b.experiment(**whole)
    support = support_of(ExperimentView.of(Observed(document), b.SETTINGS, b.NOW))
    config_map = next(manifest for manifest in support if manifest["kind"] == "ConfigMap")
    spec = yaml.safe_load(config_map["data"]["experiment.yaml"])["spec"]
    assert {key: value for key, value in spec.items() if key != "storage"} == stated
    assert spec["storage"].keys() == {"uri", "endpoint", "credentialsSecret"}


def test_the_role_is_the_status_of_this_one_experiment() -> None:
    [role] = [manifest for manifest in support_of(view()) if manifest["kind"] == "Role"]
    assert role["rules"] == [
        {"apiGroups": ["rltrainer.io"], "resources": ["rlexperiments/status"],
         "resourceNames": ["cartpole"], "verbs": ["get", "patch"]}
    ]  # fmt: skip


def test_the_operator_holds_every_right_that_it_grants() -> None:
    """Else the API server refuses the Role: nobody grants more than he has."""
    text = (ROOT / "charts/rl-operator/templates/rbac.yaml").read_text().split("---")[0]
    own = yaml.safe_load(re.sub(r"^.*\{\{.*$", "", text, flags=re.MULTILINE))["rules"]
    held = {(g, r, v) for rule in own for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    rules = [rule for case in CASES.values() for manifest in case() for rule in manifest.get("rules", [])]
    for rule in rules:
        granted = {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
        assert granted <= held, f"the chart's role lacks {granted - held}"
    assert len(rules) == len(CASES)
    assert ("rltrainer.io", "rlexperiments", "patch") not in held
    assert not any(resource == "secrets" for _, resource, _ in held)


def test_names_fit_what_kuberay_allows() -> None:
    assert len(names.rayjob("a" * MAX_NAME, 99999)) <= 47


def test_the_ray_version_is_the_trainers() -> None:
    assert f'"ray[default,tune]=={RAY_VERSION}"' in (ROOT / "pyproject.toml").read_text()


SAME: tuple[Manifest, ...] = (
    {"suspend": True},
    {"maxFailures": 7},
    {"cluster": {"keepSecondsAfterFinished": 9}},
    {"cluster": {"ingress": [{"ports": [{"port": 8080}]}]}},
    {"checkpoint": {"frequency": 10}},
)
OTHER: tuple[Manifest, ...] = (
    {"config": {"lr": 0.1}},
    {"stop": {"timesteps_total": 1}},
    {"cluster": {"image": "x"}},
    {"cluster": {"workers": [{"name": "cpu"}]}},
    {"storage": {"uri": "s3://other"}},
    {"tune": {}},
)


@pytest.mark.parametrize("spec", SAME, ids=str)
def test_the_hash_leaves_out_what_needs_no_restart(spec: Manifest) -> None:
    assert b.hash_of(**spec) == b.hash_of()


@pytest.mark.parametrize("spec", OTHER, ids=str)
def test_the_hash_tells_what_needs_a_restart(spec: Manifest) -> None:
    assert b.hash_of(**spec) != b.hash_of()


def test_the_hash_leaves_out_the_bounds_of_a_group() -> None:
    def sized(low: int, high: int) -> str:
        return b.hash_of(cluster={"workers": [{"name": "cpu", "minReplicas": low, "maxReplicas": high}]})

    assert sized(0, 1) == sized(3, 9)


def test_the_hash_of_a_search_is_of_what_it_says_and_not_of_the_defaults_that_the_api_server_adds() -> None:
    filled = {"numSamples": 4, "metric": "episode_reward_mean", "search": {"name": "Random", "seed": 0},
              "scheduler": {"name": "FIFO", "timeAttr": "training_iteration"}}  # fmt: skip
    assert b.hash_of(tune={"numSamples": 4}) == b.hash_of(tune=filled)
    assert b.hash_of(tune={"numSamples": 4}) != b.hash_of(tune={"numSamples": 5})
    lr, wider = ({"lr": {"uniform": [0.1, high]}} for high in (0.2, 0.3))
    assert b.hash_of(tune={"space": lr}) != b.hash_of(tune={"space": wider})


def test_merge_goes_by_name_and_null_removes() -> None:
    base: Manifest = {
        "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "image": "i"}],
        "volumes": [{"name": "v"}],
    }
    over = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}], "image": None}, {"name": "b"}],
            "nodeSelector": {"k": "v"}}  # fmt: skip
    assert merge(base, over) == {
        "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "b"}],
        "volumes": [{"name": "v"}],
        "nodeSelector": {"k": "v"},
    }
    assert base["containers"][0]["image"] == "i", "the base is left as it was"
