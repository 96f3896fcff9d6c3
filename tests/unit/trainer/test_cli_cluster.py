"""The name of an RLExperiment as a CHECKPOINT: what its status, its documents and its Secret say."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rltrainer.cli import parser
from rltrainer.cli.checkpoints import Source, source_of
from rltrainer.cli.common import UsageError
from tests.unit.api_server import EXPERIMENTS, api_server, point_at
from tests.unit.command import Command

STORAGE = {"uri": "s3://bucket/experiments", "endpoint": "http://minio:9000", "credentialsSecret": "s3"}
RUN = "s3://bucket/experiments/team/cartpole/12345678/checkpoints/checkpoint_00000"
TRAINING = {
    name: {"uri": RUN + number, "iteration": 1, "timestepsTotal": 1}
    for name, number in (("checkpoint", "4"), ("bestCheckpoint", "2"))
}


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "own")
    with api_server(tmp_path, monkeypatch) as found:
        yield found


def experiment(objects: dict[str, Any], namespace: str = "team", storage: Any = STORAGE, **status: Any) -> None:
    spec = {"run": "PPO", "env": "CartPole-v1", **({"storage": storage} if storage else {})}
    objects[EXPERIMENTS.format(namespace, "cartpole")] = {"spec": spec, "status": {"phase": "Running", **status}}


def secret(objects: dict[str, Any]) -> None:
    data = {"AWS_ACCESS_KEY_ID": "kept-id", "AWS_SECRET_ACCESS_KEY": "kept-key", "other": "x"}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    objects["/api/v1/namespaces/team/secrets/s3"] = {"data": encoded}


def source(*arguments: str) -> Source:
    return source_of(parser().parse_args(["evaluate", *arguments]))


def keys() -> tuple[str, str]:
    return os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("cartpole",), "2"),
        (("cartpole/best",), "2"),
        (("cartpole", "--which", "latest"), "4"),
        (("cartpole/latest",), "4"),
        (("cartpole/latest", "--which", "best"), "4"),
    ],
)
def test_the_status_says_where_the_checkpoint_is(
    objects: dict[str, Any], arguments: tuple[str, ...], number: str
) -> None:
    experiment(objects, training=TRAINING)
    secret(objects)
    found = source(*arguments)
    assert found.uri == RUN + number
    assert found.storage is not None
    assert (found.storage.endpoint, found.storage.region) == ("http://minio:9000", None)
    assert keys() == ("kept-id", "kept-key")


def test_another_namespace_and_another_way_to_storage(objects: dict[str, Any]) -> None:
    experiment(objects, "other", training=TRAINING)
    found = source("cartpole", "-n", "other", "--endpoint", "http://localhost:9000", "--region", "here").storage
    assert found is not None
    assert (found.endpoint, found.region) == ("http://localhost:9000", "here")


def test_a_search_has_the_checkpoint_of_its_best_trial(objects: dict[str, Any]) -> None:
    experiment(objects, training={"best": {"trial": "a", "checkpoint": {"uri": RUN + "6"}}})
    assert source("cartpole").uri == source("cartpole/latest").uri == RUN + "6"


def test_credentials_that_cannot_be_read_are_taken_from_the_environment(objects: dict[str, Any]) -> None:
    experiment(objects, training=TRAINING)
    objects["/api/v1/namespaces/team/secrets/s3"] = 403
    assert source("cartpole").uri == RUN + "2"
    assert keys() == ("own", "own")


def test_the_operators_storage_is_in_the_document_that_it_hands_on(objects: dict[str, Any]) -> None:
    experiment(objects, storage=None, training=TRAINING)
    document = yaml.safe_dump({"spec": {"storage": STORAGE}})
    objects["/api/v1/namespaces/team/configmaps/rlx-cartpole"] = {"data": {"experiment.yaml": document}}
    secret(objects)
    found = source("cartpole")
    assert found.storage is not None
    assert found.storage.endpoint == "http://minio:9000"
    assert keys() == ("kept-id", "kept-key")


def test_a_storage_that_is_not_known_can_be_told(objects: dict[str, Any]) -> None:
    experiment(objects, storage=None, training=TRAINING)
    found = source("cartpole", "--endpoint", "http://localhost:9000").storage
    assert found is not None
    assert found.endpoint == "http://localhost:9000"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (404, "there is no RLExperiment cartpole in namespace team of context here"),
        (403, "RLExperiment cartpole in namespace team of context here cannot be read: 403"),
        ({"spec": {}, "status": {"phase": "Provisioning"}}, "has no checkpoint in storage yet; it is Provisioning"),
        ({"spec": {}}, "has no checkpoint in storage yet; it is Pending"),
    ],
)
def test_what_there_is_not(objects: dict[str, Any], answer: Any, said: str) -> None:
    objects[EXPERIMENTS.format("team", "cartpole")] = answer
    with pytest.raises(UsageError) as caught:
        source("cartpole")
    assert str(caught.value).startswith("there is no folder cartpole, and ")
    assert said in str(caught.value)


def test_a_cluster_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="the API server of context here cannot be reached"):
        source("cartpole")


@pytest.mark.parametrize("command", ["rollout", "evaluate", "export"])
def test_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    out = ("--out", tmp_path) if command == "export" else ()
    said = Command(capsys)(command, "cartpole", *out, code=2)
    assert "there is no folder cartpole, and no cluster is configured" in said


def test_a_folder_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cartpole").mkdir()
    monkeypatch.chdir(tmp_path)
    assert source("cartpole") == Source("cartpole", None, "best")
    assert source("cartpole/latest") == Source("cartpole/latest", None, "best")
