"""What is applied stays as it is applied: what vanishes or is changed by others comes back."""

import copy
import json
from typing import Any

import pytest
from rloperator.experiment.rayjob import support_of
from rloperator.experiment.view import ExperimentView
from rloperator.kube import client as module
from rloperator.kube.client import ApiError, KubeClient
from rloperator.kube.merge import covers
from rloperator.kube.types import Manifest, Observed

from tests.unit.operator import builders as b

SUPPORT = support_of(ExperimentView.of(Observed(b.experiment()), b.SETTINGS, b.NOW))


class Server(KubeClient):
    """Keeps what is applied, with fields of its own beside it, and lists the requests."""

    def __init__(self) -> None:
        self._applied = {}
        self.objects: dict[str, Manifest] = {}
        self.requests: list[str] = []

    def _request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None, content_type: str = ""
    ) -> Manifest:
        self.requests.append(method)
        if method == "PATCH":
            sent: Manifest = json.loads(body)
            self.objects[path] = sent | {"metadata": sent["metadata"] | {"uid": "u", "resourceVersion": "7"}}
        if path not in self.objects:
            raise ApiError(404, "not found")
        return copy.deepcopy(self.objects[path])


@pytest.fixture
def server() -> Server:
    made = Server()
    for manifest in SUPPORT:
        made.apply(manifest)
    made.requests.clear()
    return made


def writes(server: Server) -> int:
    """Writes of one more round, all of whose objects are looked at."""
    server.requests.clear()
    for manifest in SUPPORT:
        server.apply(manifest)
    return server.requests.count("PATCH")


def test_what_was_applied_a_moment_ago_is_not_even_looked_at(server: Server) -> None:
    assert writes(server) == 0
    assert server.requests == []


def test_what_stands_is_looked_at_and_not_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AFTER", 0.0)
    assert writes(server) == 0
    assert server.requests == ["GET"] * len(SUPPORT)


@pytest.mark.parametrize("index", range(len(SUPPORT)), ids=[manifest["kind"] for manifest in SUPPORT])
def test_what_vanishes_or_is_changed_comes_back(index: int, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AFTER", 0.0)
    path = list(server.objects)[index]
    del server.objects[path]
    assert writes(server) == 1
    server.objects[path]["metadata"]["labels"] = {}
    assert writes(server) == 1
    assert covers(server.objects[path], SUPPORT[index])
    assert writes(server) == 0


def test_it_is_looked_for_within_seconds() -> None:
    assert module._LOOK_AFTER <= 10


@pytest.mark.parametrize(
    ("there", "is_covered"),
    [
        ({"a": 1, "b": [{"c": 1, "d": 2}], "e": 3}, True),
        ({"a": 2, "b": [{"c": 1}]}, False),
        ({"a": 1, "b": []}, False),
        ({"a": 1, "b": [{"c": 1}, {"c": 1}]}, False),
        ({"a": 1, "b": [{"d": 1}]}, False),
        ({"a": 1}, False),
        (None, False),
    ],
    ids=str,
)
def test_covers(there: Any, is_covered: bool) -> None:
    assert covers(there, {"a": 1, "b": [{"c": 1}]}) is is_covered
