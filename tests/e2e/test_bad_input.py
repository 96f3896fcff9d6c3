"""Bad input is refused where it is written, or a condition says what to correct, and correcting it goes on."""

import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from hack.deploy import STORAGE
from hack.kubectl import KubectlError, apply, get, kubectl, wait_until
from tests.e2e.experiments import PATIENCE, Experiment, document

REFUSED = [
    ({"run": "PPOO"}, "unknown algorithm"),
    ({"config": {"learning_rate": 0.001}}, "learning_rate"),
    ({"config": {"lr": "fast"}}, "spec.config.lr"),
    ({"config": {"gamma": 1.5}}, "spec.config.gamma"),
    ({"stop": {"reward": 475}}, "reward"),
    ({"cluster": {"workers": [{"name": "cpu", "minReplicas": 3, "maxReplicas": 2}]}}, "minReplicas must not exceed"),
    ({"restoreFrom": {"uri": "s3://bucket/a", "experiment": "b"}}, "either uri or experiment"),
    ({"storage": {"uri": "bucket/prefix"}}, "spec.storage.uri"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_apply_refuses_and_names_the_field(namespace: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(KubectlError, match=message):
        apply(document("refused", **spec), namespace)
    assert get("rlexperiment", "refused", namespace) is None


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"stpo": {}}, "spec has no field stpo"),
    ({"config": {"num_wrokers": 2}}, "spec.config has no field num_wrokers"),
    ({"cluster": {"head": {"cpus": 2}}}, "spec.cluster.head has no field cpus"),
    ({"cluster": {"workers": [{"name": "one"}, {"name": "two", "gpu": 1}]}}, "spec.cluster.workers has no field gpu"),
    ({"tune": {"space": {"lr": {"choise": [1]}}}}, "spec.tune.space has no field lr.choise"),
]


def applied_unchecked(name: str, namespace: str, **spec: Any) -> None:
    """Applies a document as a client does that does not ask to be told of unknown fields."""
    kubectl("apply", "--validate=ignore", "-f", "-", stdin=json.dumps(document(name, **spec)), namespace=namespace)


@pytest.mark.parametrize(("spec", "message"), UNKNOWN, ids=[message for _, message in UNKNOWN])
def test_a_field_that_there_is_not_is_refused_for_every_client(
    namespace: str, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(KubectlError, match=message):
        applied_unchecked("unchecked", namespace, **spec)


def test_without_the_policy_the_operator_names_the_field_and_the_nearest(namespace: str) -> None:
    binding = ("patch", "validatingadmissionpolicybinding", "rlexperiments.rltrainer.io", "--type=merge", "-p")

    def is_taken() -> bool:
        with contextlib.suppress(KubectlError):
            applied_unchecked("unchecked", namespace, config={"num_wrokers": 2})
        return get("rlexperiment", "unchecked", namespace) is not None

    kubectl(*binding, '{"spec":{"validationActions":["Audit"]}}')
    try:
        wait_until("the policy to let it through", is_taken, PATIENCE)
    finally:
        kubectl(*binding, '{"spec":{"validationActions":["Deny"]}}')
    accepted = Experiment("unchecked", namespace).until_condition("Accepted", "False", "InvalidOption")
    assert 'no option "num_wrokers"' in accepted["message"]
    assert 'Did you mean "num_workers"?' in accepted["message"]


def test_apply_refuses_a_name_too_long_for_kuberay(namespace: str) -> None:
    with pytest.raises(KubectlError, match="40 characters"):
        apply(document("a" * 41), namespace)


def test_explain_documents_every_option() -> None:
    from rltrainer.api.options import OPTIONS, option_names

    explained = kubectl("explain", "rlx.spec.config")
    for name in {name for options in OPTIONS.values() for name in option_names(options)}:
        assert f"  {name}\t" in explained
        described = kubectl("explain", f"rlx.spec.config.{name}")
        assert "DESCRIPTION:" in described
        assert "<empty>" not in described


def test_an_option_of_another_algorithm_is_a_condition(submit: Callable[..., Experiment]) -> None:
    experiment = submit("other", run="A2C", config={"clip": 0.1})
    accepted = experiment.until_condition("Accepted", "False", "InvalidOption")
    assert 'A2C has no option "clip"' in accepted["message"]
    assert "PPO" in accepted["message"]
    assert experiment.status["phase"] == "Invalid"
    kubectl("patch", "rlx", "other", "--type=json", "-p", '[{"op":"remove","path":"/spec/config/clip"}]',
            namespace=experiment.namespace)  # fmt: skip
    experiment.until_condition("Accepted", "True", "Accepted")


def test_a_missing_environment_is_a_condition_and_correcting_it_goes_on(submit: Callable[..., Experiment]) -> None:
    experiment = submit("env", env="CartPool-v1")
    accepted = experiment.until_condition("Accepted", "False", "EnvironmentNotFound")
    assert "CartPool-v1" in accepted["message"]
    assert experiment.status["phase"] == "Invalid"
    experiment.patch(env="CartPole-v1")
    status = experiment.until_phase("Succeeded")
    assert status["failures"] == 0
    with pytest.raises(KubectlError, match="restoreFrom"):
        experiment.patch(env="Acrobot-v1")


def test_image_secret_and_bucket_are_named_in_turn_and_corrected_in_turn(
    submit: Callable[..., Experiment], s3: Any
) -> None:
    bucket = f"made-later-{uuid.uuid4().hex[:8]}"
    storage = {
        "uri": f"s3://{bucket}/runs",
        "endpoint": STORAGE["storage.endpoint"],
        "region": "us-east-1",
        "credentialsSecret": "made-later",
    }
    experiment = submit("corrected", storage=storage, cluster={"image": "nowhere.invalid/no/image:1"})
    ready = experiment.until_condition("ClusterReady", "False", "ImagePullBackOff")
    assert "nowhere.invalid/no/image:1" in ready["message"]

    kubectl("patch", "rlx", "corrected", "--type=json", "-p", '[{"op":"remove","path":"/spec/cluster/image"}]',
            namespace=experiment.namespace)  # fmt: skip
    ready = experiment.until_condition("ClusterReady", "False", "CreateContainerConfigError")
    assert "made-later" in ready["message"]

    data = (get("secret", "s3-credentials", experiment.namespace) or {})["data"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "made-later"}, "data": data}
    kubectl("create", "-f", "-", stdin=json.dumps(secret), namespace=experiment.namespace)
    synced = experiment.until_condition("CheckpointSynced", "False", "BucketNotFound")
    assert bucket in synced["message"]

    s3.create_bucket(Bucket=bucket)
    status = experiment.until_phase("Succeeded")
    assert status["failures"] == 0
