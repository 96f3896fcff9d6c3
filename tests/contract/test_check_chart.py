"""The check of our manifests finds what a receiver would object to."""

from typing import Any

import pytest

from hack.check_chart import problems


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template} | spec,
    }


def rayjob(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "j"}, "spec": spec}


@pytest.mark.parametrize("manifest", [deployment(replicas=1), rayjob(entrypoint="true", submissionMode="SidecarMode")])
def test_what_is_right_passes(manifest: dict[str, Any]) -> None:
    assert list(problems(manifest)) == []


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (deployment(replica=1), "replica"),
        (deployment(replicas="one"), "replicas"),
        (rayjob(entrypoint="true", submissionmode="SidecarMode"), "submissionmode"),
        (rayjob(entrypoint="true", rayClusterSpec={"headGroupSpec": {"template": {"spec": {"x": 1}}}}), "'x'"),
        ({"apiVersion": "a/v1", "kind": "B", "metadata": {}}, "known to no schema"),
    ],
)
def test_what_is_wrong_is_named(manifest: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(manifest))
