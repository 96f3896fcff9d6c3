"""An experiment on the real cluster that reads like what a person does with it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hack.kubectl import Manifest, get, items, kubectl, wait_until

PATIENCE = 240.0
"""Seconds that a step may take on a busy machine of two cores; no test measures speed."""


@dataclass
class Experiment:
    """An RLExperiment on the cluster."""

    name: str
    namespace: str

    @property
    def object(self) -> Manifest:
        found = get("rlexperiment", self.name, self.namespace)
        assert found is not None, f"{self.namespace}/{self.name} is gone"
        return found

    @property
    def status(self) -> Manifest:
        return Manifest(self.object.get("status", {}))

    @property
    def training(self) -> Manifest:
        return Manifest(self.status.get("training", {}))

    def condition(self, kind: str) -> Manifest:
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    def patch(self, **spec: Any) -> None:
        kubectl("patch", "rlx", self.name, "--type=merge", "-p", json.dumps({"spec": spec}), namespace=self.namespace)

    def until(self, what: str, probe: Callable[["Experiment"], Any], timeout: float = PATIENCE) -> Any:
        try:
            return wait_until(what, lambda: probe(self), timeout)
        except TimeoutError as error:
            story = kubectl("describe", "rlx", self.name, namespace=self.namespace)
            raise AssertionError(f"{error}\n{story}") from None

    def until_phase(self, phase: str, timeout: float = PATIENCE) -> Manifest:
        self.until(f"phase {phase}", lambda e: e.status.get("phase") == phase, timeout)
        return self.status

    def until_condition(self, kind: str, status: str, reason: str, timeout: float = PATIENCE) -> Manifest:
        def holds(experiment: "Experiment") -> Manifest | None:
            found = experiment.condition(kind)
            return found if found.get("status") == status and found.get("reason") == reason else None

        found: Manifest = self.until(f"{kind}={status} {reason}", holds, timeout)
        return found

    def until_steps(self, steps: int) -> int:
        """Training has done `steps` environment steps."""
        self.until(f"{steps} steps", lambda e: e.training.get("timestepsTotal", 0) >= steps)
        return int(self.training["timestepsTotal"])

    def until_checkpoint(self) -> Manifest:
        """A checkpoint is in storage."""
        found: Manifest = self.until("a checkpoint in storage", lambda e: e.training.get("checkpoint"))
        return found

    @property
    def job_status(self) -> str:
        """How the newest RayJob stands, as KubeRay heard it from Ray."""
        jobs = items("rayjobs", self.namespace, f"rltrainer.io/experiment={self.name}")
        return str(jobs[-1].get("status", {}).get("jobStatus", "")) if jobs else ""

    def pods(self, node_type: str) -> list[Manifest]:
        """The live pods of the attempt's cluster: head or worker."""
        cluster = self.status.get("cluster")
        found = (
            items("pods", self.namespace, f"ray.io/cluster={cluster},ray.io/node-type={node_type}") if cluster else []
        )
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def kill(self, pod: Manifest) -> None:
        """SIGKILL, without a grace period, as a lost machine does it."""
        kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0", namespace=self.namespace)


def document(name: str, **spec: Any) -> Manifest:
    """A CartPole experiment of PPO; `spec` replaces or adds fields."""
    return {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": name},
        "spec": {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 2}, **spec},
    }


LONG: Manifest = {
    "config": {"seed": 1},
    "stop": {"time_total_s": 40},
    "checkpoint": {"frequency": 20, "keep": 5},
}
"""A run that lasts long enough to be disturbed, on a fast machine and on a busy one."""


def listed(s3: Any, uri: str) -> list[str]:
    """The keys below an s3:// URI, relative to it."""
    place = urlsplit(uri)
    prefix = place.path.strip("/") + "/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix)
    return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]


def sample_for(seconds: float, probe: Callable[[], Any], every: float = 0.5) -> list[Any]:
    """What `probe` sees over a span of time."""
    seen, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.append(probe())
        time.sleep(every)
    return seen
