"""What is lost while a run goes on: the head, the operator, the storage, a checkpoint's bytes."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from hack.deploy import NAMESPACE, RELEASE
from hack.kubectl import items, kubectl, wait_until
from tests.e2e.experiments import LONG, Experiment, listed, sample_for

OURS = "app.kubernetes.io/name=rl-operator"


def test_a_killed_head_is_followed_by_an_attempt_from_the_last_checkpoint(submit: Callable[..., Experiment]) -> None:
    experiment = submit("head", **LONG)
    experiment.until_steps(40_000)
    before = experiment.until_checkpoint()
    (head,) = experiment.pods("head")
    name = head["metadata"]["name"]
    assert "reward" in kubectl("logs", name, "-c", "ray-job-submitter", namespace=experiment.namespace)
    experiment.kill(head)
    at_kill = experiment.training["timestepsTotal"]

    experiment.until("attempt 2", lambda e: e.status.get("attempt") == 2)
    experiment.until("attempt 2 training", lambda e: e.training.get("attempt") == 2 and e.training.get("restoredFrom"))
    interval = LONG["checkpoint"]["frequency"] * 8 * 128
    restored = experiment.training
    assert restored["timestepsTotal"] >= before["timestepsTotal"]
    assert restored["timestepsTotal"] >= at_kill - interval

    status = experiment.until_phase("Succeeded")
    assert status["training"]["timestepsTotal"] > restored["timestepsTotal"]
    assert status["training"]["stoppedBy"] == "time_total_s >= 40"
    assert status["failures"] == 1
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Failed", "Succeeded"]
    story = kubectl("describe", "rlx", "head", namespace=experiment.namespace)
    for event in ("AttemptStarted", "AttemptFailed", "RestoredCheckpoint", "Succeeded"):
        assert event in story


@pytest.fixture
def operator() -> Iterator[None]:
    """The operator is back when the test ends."""
    yield
    kubectl("scale", "deployment", RELEASE, "--replicas=1", namespace=NAMESPACE)
    kubectl("rollout", "status", f"deployment/{RELEASE}", "--timeout=120s", namespace=NAMESPACE)


def kill_operator() -> None:
    for pod in items("pods", NAMESPACE, OURS):
        name = pod["metadata"]["name"]
        kubectl("delete", "pod", name, "--force", "--grace-period=0", "--ignore-not-found", namespace=NAMESPACE)


@pytest.mark.usefixtures("operator")
def test_the_operator_killed_ten_times_and_away_at_the_end_changes_nothing(submit: Callable[..., Experiment]) -> None:
    chance = random.Random(0)  # noqa: S311
    experiment = submit("killed", **LONG | {"stop": {"time_total_s": 75}})
    for _ in range(10):
        time.sleep(chance.uniform(0.0, 6.0))
        kill_operator()
    experiment.until_steps(20_000)
    kubectl("scale", "deployment", RELEASE, "--replicas=0", namespace=NAMESPACE)
    experiment.until("the end", lambda e: e.training.get("stoppedBy"))
    assert experiment.status["phase"] != "Succeeded"
    (job,) = items("rayjobs", experiment.namespace)
    wait_until("the RayJob's end", lambda: experiment.job_status == "SUCCEEDED", 120)
    kubectl("scale", "deployment", RELEASE, "--replicas=1", namespace=NAMESPACE)

    status = experiment.until_phase("Succeeded")
    assert status["attempt"] == 1
    assert status["failures"] == 0
    assert [j["metadata"]["uid"] for j in items("rayjobs", experiment.namespace)] == [job["metadata"]["uid"]]
    story = kubectl("describe", "rlx", "killed", namespace=experiment.namespace)
    assert story.count("AttemptStarted") == 1
    assert "Succeeded" in story


@pytest.fixture
def minio() -> Iterator[None]:
    """The S3 server is back when the test ends."""
    yield
    scale_minio(1)


def scale_minio(replicas: int) -> None:
    (workload,) = [
        f"{kind}/minio" for kind in ("deployment", "statefulset")
        if kubectl("get", kind, "minio", "--ignore-not-found", namespace="minio")
    ]  # fmt: skip
    kubectl("scale", workload, f"--replicas={replicas}", namespace="minio")
    if replicas:
        kubectl("rollout", "status", workload, "--timeout=120s", namespace="minio")


@pytest.mark.usefixtures("minio")
def test_training_goes_on_while_s3_is_away_and_the_checkpoint_arrives_later(submit: Callable[..., Experiment]) -> None:
    long = LONG | {"stop": {"timesteps_total": 10_000_000}}
    experiment = submit("s3away", **long)
    before = experiment.until_checkpoint()
    scale_minio(0)
    away = time.monotonic()
    steps = experiment.training["timestepsTotal"]
    experiment.until_condition("CheckpointSynced", "False", "StorageUnreachable")
    experiment.until("a checkpoint that waits", lambda e: e.training["sync"]["pending"] >= 1)
    time.sleep(max(0.0, 60 - (time.monotonic() - away)))
    assert experiment.training["timestepsTotal"] > steps
    scale_minio(1)
    experiment.until("a later checkpoint", lambda e: e.training["checkpoint"]["iteration"] > before["iteration"])
    experiment.until("synced again", lambda e: e.condition("CheckpointSynced").get("status") == "True")
    status = experiment.status
    assert status["attempt"] == 1
    assert status["failures"] == 0


def test_suspend_checkpoints_and_resume_refuses_a_damaged_checkpoint(
    submit: Callable[..., Experiment], s3: Any
) -> None:
    experiment = submit("suspended", **LONG)
    experiment.until_steps(30_000)
    experiment.patch(suspend=True)
    status = experiment.until_phase("Suspended")
    assert experiment.condition("Suspended")["status"] == "True"
    assert not items("pods", experiment.namespace)
    newest = status["training"]["checkpoint"]
    assert newest["timestepsTotal"] == status["training"]["timestepsTotal"], "the run was cut without a checkpoint"
    uri = f"{status['storageUri']}/checkpoints"
    complete = sorted(key.split("/")[0] for key in listed(s3, uri) if key.endswith("/manifest.json"))
    assert newest["uri"].endswith(complete[-1])

    of_newest = [key for key in listed(s3, uri) if key.startswith(f"{complete[-1]}/")]
    flip_a_byte(s3, f"{uri}/{next(key for key in of_newest if key.endswith('/policy.safetensors'))}")
    half = f"{uri}/checkpoint_999999/policy.safetensors"
    place = urlsplit(half)
    s3.put_object(Bucket=place.netloc, Key=place.path.lstrip("/"), Body=b"half")

    experiment.patch(suspend=False)
    experiment.until("attempt 2", lambda e: e.training.get("attempt") == 2 and e.training.get("restoredFrom"))
    assert experiment.training["restoredFrom"].rstrip("/").endswith(complete[-2])
    status = experiment.until_phase("Succeeded")
    assert status["failures"] == 0


def flip_a_byte(s3: Any, uri: str) -> None:
    place = urlsplit(uri)
    bucket, key = place.netloc, place.path.lstrip("/")
    body = bytearray(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    body[len(body) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(body))


def test_deleting_removes_everything_in_the_cluster_and_leaves_s3(submit: Callable[..., Experiment], s3: Any) -> None:
    experiment = submit("deleted", **LONG)
    experiment.until_checkpoint()
    uri = experiment.status["storageUri"]
    kubectl("delete", "rlx", "deleted", namespace=experiment.namespace)

    def left() -> list[str]:
        rights = "serviceaccounts,roles,rolebindings,networkpolicies,secrets"
        kinds = f"rayjobs,rayclusters,pods,configmaps,jobs,services,{rights}"
        names = kubectl("get", kinds, "-o", "name", namespace=experiment.namespace).split()
        kept = ("serviceaccount/default", "configmap/kube-root-ca.crt", "secret/s3-credentials")
        return [name for name in names if name not in kept]

    wait_until("everything to be gone", lambda: not left(), 180)
    assert any(key.endswith("manifest.json") for key in listed(s3, uri))
    assert not any(sample_for(5, left)), "something was made again"
