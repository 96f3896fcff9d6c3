"""Workers come when the run asks for them, are replaced when they are lost, and go when nobody needs them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kubectl import ROOT, apply, environment, items, kubectl
from tests.e2e.experiments import Experiment


@pytest.fixture
def gpus() -> Iterator[None]:
    """The node says that it has two GPUs. They are simulated: scheduled and counted, but no device is there."""
    command = [sys.executable, "-m", "hack.cluster", "fake-gpus"]
    subprocess.run([*command, "2"], check=True, env=environment(), cwd=ROOT)
    yield
    subprocess.run([*command, "0"], check=True, env=environment(), cwd=ROOT)


def group_sizes(experiment: Experiment) -> dict[str, int]:
    groups = [pod["metadata"]["labels"]["ray.io/group"] for pod in experiment.pods("worker")]
    return {group: groups.count(group) for group in ("cpu", "gpu")}


@pytest.mark.usefixtures("gpus")
@pytest.mark.timeout(600)
def test_workers_and_a_simulated_gpu_come_and_go_and_a_killed_worker_is_replaced(namespace: str) -> None:
    apply(Path(ROOT / "examples" / "autoscaling.yaml"), namespace)
    experiment = Experiment("autoscaling", namespace)
    experiment.until("the head", lambda e: e.pods("head"))
    sizes = [group_sizes(experiment)]
    experiment.until("2 CPU workers and 1 GPU worker", lambda e: group_sizes(e) == {"cpu": 2, "gpu": 1})
    experiment.until_steps(10_000)

    victim = next(pod for pod in experiment.pods("worker") if pod["metadata"]["labels"]["ray.io/group"] == "cpu")
    experiment.kill(victim)
    killed_at = experiment.training["timestepsTotal"]
    experiment.until_steps(killed_at + 20_000)

    status = experiment.until_phase("Succeeded", timeout=400)
    assert sizes[0] == {"cpu": 0, "gpu": 0}
    assert status["attempt"] == 1
    assert status["failures"] == 0
    experiment.until("no worker while the head is still there", _only_the_head)


def _only_the_head(experiment: Experiment) -> bool:
    return group_sizes(experiment) == {"cpu": 0, "gpu": 0} and len(experiment.pods("head")) == 1


def test_more_replicas_reach_the_running_cluster_without_a_restart(submit: Callable[..., Experiment]) -> None:
    workers = [{"name": "cpu", "minReplicas": 0, "maxReplicas": 1, "cpu": "300m", "memory": "1Gi"}]
    cluster = {"head": {"cpu": "1", "memory": "3Gi"}, "workers": workers}
    experiment = submit("scaled", stop={"timesteps_total": 10_000_000}, cluster=cluster)
    experiment.until_steps(1)
    experiment.patch(cluster=cluster | {"workers": [workers[0] | {"minReplicas": 2, "maxReplicas": 3}]})
    experiment.until("two workers", lambda e: group_sizes(e)["cpu"] == 2)
    assert experiment.status["attempt"] == 1
    assert len(items("rayjobs", experiment.namespace)) == 1
    kubectl("delete", "rlx", "scaled", namespace=experiment.namespace)
