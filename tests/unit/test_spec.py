"""The documents: what is read, what is refused, and with which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment, Rollout

EXAMPLES = Path(__file__).parents[2] / "examples"


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "test"},
        "spec": {"run": "PPO", "env": "CartPole-v1"} | spec,
    }


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_document(path: Path) -> None:
    kinds = {"RLExperiment": Experiment, "RLRollout": Rollout}
    kinds[yaml.safe_load(path.read_text())["kind"]].from_yaml(path)


def test_what_kubernetes_adds_is_accepted() -> None:
    read = document() | {"status": {"phase": "Running"}}
    read["metadata"] |= {"uid": "1", "managedFields": [], "namespace": "a"}
    assert Experiment.parse(read).metadata.namespace == "a"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"run": "PPOO"}, 'unknown algorithm "PPOO". Did you mean "PPO"?'),
        ({"stop": {"reward": 1}}, "spec.stop.reward"),
        (
            {"stop": {"episode_reward_mean": float("nan")}},
            "spec.stop.episode_reward_mean: Input should be a finite number",
        ),
        ({"stop": {"time_total_s": float("inf")}}, "spec.stop.time_total_s: Input should be a finite number"),
        ({"stop": {"evaluation/episode_reward_mean": -float("inf")}, "evaluation": {}}, "should be a finite number"),
        ({"config": {"learning_rate": 1}}, 'Did you mean "lr"?'),
        ({"storage": {"uri": "bucket"}}, "spec.storage.uri"),
        ({"cluster": {"head": {"memory": "4 GB"}}}, "spec.cluster.head.memory"),
        ({"cluster": {"workers": [{"name": "a", "minReplicas": 3}]}}, "minReplicas 3 exceeds maxReplicas 1"),
        ({"restoreFrom": {}}, "takes either uri or experiment"),
        ({"cluster": {"keepSecondsAfterFinished": 2**31}}, "spec.cluster.keepSecondsAfterFinished"),
        ({"cluster": {"autoscaling": {"idleTimeoutSeconds": 2**31}}}, "spec.cluster.autoscaling.idleTimeoutSeconds"),
        ({"config": {"rollout_fragment_length": 2**63}}, "rollout_fragment_length"),
        ({"tune": {"space": {}, "scheduler": {"type": "ASHA", "maxT": 2**63}}}, "maxT"),
        (
            {"storage": {"uri": "s3://bucket", "endpoint": "https://me:secret@host"}},
            "name a Secret in credentialsSecret",
        ),
    ],
)
def test_a_wrong_document_is_refused_with_its_field(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Experiment.parse(document(**spec), where="file.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("file.yaml: ")


def pods(field: str, value: Any) -> dict[str, Any]:
    """A document whose head has `value` in a field of its own, by a path as `ports.0.containerPort`."""
    for key in reversed(field.split(".")):
        value = [value] if key.isdigit() else {key: value}
    return document(cluster={"head": {"podTemplate": {"spec": value}}})


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ("containers.0.ports.0.containerPort", "spec.containers[0].ports[0].containerPort"),
        ("terminationGracePeriodSeconds", "spec.terminationGracePeriodSeconds"),
        ("volumes.0.configMap.defaultMode", "spec.volumes[0].configMap.defaultMode"),
    ],
)
@pytest.mark.parametrize("number", [2**31, -(2**31), 10**30, 1.5, float("inf"), float("nan")])
def test_a_number_that_no_field_of_a_pod_holds_is_refused_where_it_is(field: str, where: str, number: float) -> None:
    """Fields of 32 bits hold -2**31 to 2**31 - 1; the API server takes more, and then KubeRay fails for all."""
    with pytest.raises(DocumentError, match="is no whole number") as caught:
        Experiment.parse(pods(field, number))
    assert f"spec.cluster.head.podTemplate: {where}: {number} " in str(caught.value).replace("Value error, ", "")


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("securityContext.runAsUser", 2**31 - 1),
        ("volumes.0.emptyDir.sizeLimit", 2**40),
        ("containers.0.resources.limits.memory", 64 * 2**30),
        ("terminationGracePeriodSeconds", 30.0),
        ("hostNetwork", True),
    ],
)
def test_a_number_that_a_field_of_a_pod_holds_is_taken(field: str, number: Any) -> None:
    assert Experiment.parse(pods(field, number)).spec.cluster.head.pod_template


def test_a_toleration_has_the_numbers_of_a_pod() -> None:
    forever = {"key": "spot", "tolerationSeconds": 10**10}
    with pytest.raises(DocumentError, match=r"\[0\].tolerationSeconds: 10000000000 is no whole number"):
        Experiment.parse(document(cluster={"workers": [{"name": "a", "tolerations": [forever]}]}))


def test_a_name_that_kuberay_could_not_take_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"metadata\.name"):
        Experiment.parse(document() | {"metadata": {"name": "a" * 41}})


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1,\nb: 2", r"file\.yaml:2:5: not YAML"), ("", "holds no document"), ("- 1", "holds no document")],
)
def test_a_file_that_is_no_document(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said):
        Experiment.from_yaml(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.yaml: No such file"):
        Experiment.from_yaml(tmp_path / "none.yaml")
