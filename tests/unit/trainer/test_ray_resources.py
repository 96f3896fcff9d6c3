"""What a run reserves on Ray, and what is said where there is not as much."""

from typing import Any

import pytest
import ray

from rltrainer.backend.ray.cluster import connect, refuse, reserved, shortage
from rltrainer.errors import RunError
from tests.unit.trainer.helpers import worker_config


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A cluster of two nodes, and one that is gone."""
    sizes = ({"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}, {"CPU": 64.0})
    found = [{"Alive": i < 2, "Resources": resources} for i, resources in enumerate(sizes)]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    return found


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("bundles", "missing"),
    [
        ([{"CPU": 1.0}] * 6, None),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}], None),
        ([{"CPU": 1.0}] * 7, "7 CPUs, and Ray has 6 here"),
        ([{"CPU": 5.0}], "5 CPUs on one node, and Ray has no node here with more than 4"),
        ([{"CPU": 1.0, "GPU": 1.0}] * 2, "2 GPUs, and Ray has 1 here"),
    ],
)
def test_what_the_nodes_cannot_hold_is_said(bundles: list[dict[str, float]], missing: str | None) -> None:
    assert shortage(bundles) == missing
    if missing is None:
        refuse(bundles, "a trial")
        return
    with pytest.raises(RunError, match=f"a trial reserves {missing}, and would wait for ever") as caught:
        refuse(bundles, "a trial")
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("config", "cpus"),
    [({"num_workers": 1}, 1), ({"num_workers": 3}, 3), ({"num_workers": 3, "num_cpus_per_worker": 0.5}, 2)],
)
def test_a_machine_is_as_large_as_the_run_that_it_is_for(
    config: dict[str, Any], cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole CPUs: what Ray begins with follows from what the actors reserve."""
    begun: list[Any] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **arguments: begun.append(arguments["num_cpus"]))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": float(begun[-1])}}])
    connect(reserved(worker_config(**config).options))
    assert begun == [cpus]


def test_ray_that_does_not_start_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray raises where the machine has no time for it, and which is no more than an Exception."""

    def fails(**arguments: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore of it")  # noqa: TRY002 - Ray does

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(RunError, match=r"^Ray cannot be started .*: The current node timed out during startup\.\. .*"):
        connect([{"CPU": 1.0}])
