"""The demo, as a person runs it, and what a rollout leaves behind."""

import subprocess
import sys
from typing import Any

import pytest

from hack.demo import EXPERIMENT, NAMESPACE, ROLLOUT
from hack.kubectl import ROOT, apply, environment, get, kubectl, wait_until
from tests.e2e.experiments import PATIENCE, listed


@pytest.mark.timeout(900)
def test_demo_then_a_rollout_with_trajectories_and_video(s3: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hack.demo"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in ("Succeeded", "manifest.json", "returns:", EXPERIMENT, ROLLOUT):
        assert shown in done.stdout
    training = (get("rlexperiment", EXPERIMENT, NAMESPACE) or {})["status"]["training"]
    assert (training["progressPercentage"], training["estimatedRemainingSeconds"]) == (100, 0)

    spec = {"experiment": EXPERIMENT, "episodes": 3, "out": True, "video": True, "deterministic": False}
    name = "with-video"
    kubectl("delete", "rlrollout", name, "--ignore-not-found", namespace=NAMESPACE)
    apply({"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLRollout", "metadata": {"name": name}, "spec": spec},
          NAMESPACE)  # fmt: skip
    phase = wait_until("the rollout", lambda: _final(name), PATIENCE)
    assert phase == "Succeeded", kubectl("describe", "rlr", name, namespace=NAMESPACE)
    results = (get("rlrollout", name, NAMESPACE) or {})["status"]["results"]
    assert results["episodes"] == 3
    assert len(results["returns"]) == 3
    assert results["rewardMin"] <= results["rewardMean"] <= results["rewardMax"]
    assert sum(key.endswith(".npz") for key in listed(s3, results["trajectoriesUri"])) == 3
    bucket, key = results["videoUri"].removeprefix("s3://").split("/", 1)
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 1000


def _final(name: str) -> str | None:
    phase = (get("rlrollout", name, NAMESPACE) or {}).get("status", {}).get("phase")
    return phase if phase in ("Succeeded", "Failed", "Invalid") else None
