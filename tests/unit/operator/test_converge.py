"""What the API server refuses is reported on the object, and taken up again once it no longer does."""

import pytest
from rloperator.controller.converge import Converger, Key
from rloperator.kube.client import ApiError, NameTakenError
from rloperator.kube.types import Manifest

from tests.unit.operator.builders import SETTINGS, experiment
from tests.unit.operator.fake import FakeCluster

KEY = Key("RLExperiment", "team", "cartpole")
QUOTA = "rayjobs.ray.io is forbidden: exceeded quota: jobs"


class Refusing(FakeCluster):
    """Takes no new RayJob as long as there is an error to raise."""

    error: Exception | None = ApiError(403, QUOTA)

    def create(self, manifest: Manifest) -> None:
        if self.error:
            raise self.error
        super().create(manifest)

    @property
    def status(self) -> Manifest:
        return dict(self.objects["RLExperiment", "cartpole"]["status"])


@pytest.mark.parametrize("error", [ApiError(403, QUOTA), NameTakenError("another cartpole-a1 is there")], ids=str)
def test_a_refusal_is_reported_once_and_is_no_attempt(error: Exception) -> None:
    world = Refusing()
    world.error = error
    world.put(experiment())
    converger = Converger(world, SETTINGS, world.clock)
    for _ in range(3):
        with pytest.raises(type(error)):
            converger.reconcile_key(KEY)
    assert world.status["phase"] == "Pending"
    assert str(error) in world.status["message"]
    assert "attempts" not in world.status
    assert [reason for reason, _ in world.events.values()].count("Refused") == 1

    world.error = None
    converger.reconcile_key(KEY)
    assert world.status["phase"] == "Provisioning"
    assert world.made == ["cartpole-a1"]


@pytest.mark.parametrize("error", [ApiError(500, "etcd has no leader"), ApiError(429, "Too many requests")], ids=str)
def test_an_api_server_in_trouble_is_not_the_documents_trouble(error: ApiError) -> None:
    world = Refusing()
    world.error = error
    world.put(experiment())
    with pytest.raises(ApiError):
        Converger(world, SETTINGS, world.clock).reconcile_key(KEY)
    assert not world.status
    assert not world.events


def test_an_object_that_is_gone_is_nothing_to_do() -> None:
    assert Converger(FakeCluster(), SETTINGS).reconcile_key(KEY) is None
