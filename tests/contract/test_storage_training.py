"""Whole runs with a real S3 server: what arrives, what is kept, what a restart finds, and S3 away in the middle."""

import itertools
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.documents import Experiment
from rltrainer.api.status import SyncStatus
from rltrainer.errors import RunError
from rltrainer.runs import train
from rltrainer.runs.context import RunContext, storage_uri
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import Run
from rltrainer.storage import sync
from rltrainer.storage.s3 import S3Store
from tests.contract.minio import Minio, running
from tests.unit.trainer.helpers import experiment, quick

NUMBER = itertools.count()
UID = "0a1b2c3d-0000-4000-8000-000000000000"


def document(minio: Minio, bucket: str, iterations: int, **spec: Any) -> Experiment:
    given = experiment(
        config=quick(),
        storage={"uri": f"s3://{bucket}/demo", "endpoint": minio.endpoint},
        checkpoint={"frequency": 2, "keep": 2, "scoreAttribute": "training_iteration"},
        **{"stop": {"training_iteration": iterations}, **spec},
    )
    metadata = given.metadata.model_copy(update={"namespace": "team", "uid": UID})
    return given.model_copy(update={"metadata": metadata})


@pytest.fixture
def bucket(minio: Minio) -> str:
    name = f"training-{next(NUMBER)}"
    minio.client().create_bucket(Bucket=name)
    return name


def remote(minio: Minio, bucket: str) -> S3Store:
    return S3Store(f"s3://{bucket}/demo/team/test/0a1b2c3d", minio.endpoint)


def iterations(store: S3Store) -> list[int]:
    return [manifest.iteration for manifest in sync.remote_manifests(store)]


def rows(store: S3Store) -> list[int]:
    content = store.read("result.json") or b""
    return [json.loads(line)["training_iteration"] for line in content.splitlines()]


def test_a_run_leaves_its_folder_in_s3(minio: Minio, bucket: str, tmp_path: Path) -> None:
    train.run(document(minio, bucket, 7), tmp_path)
    store = remote(minio, bucket)
    assert iterations(store) == [6, 7], "the best two, of which the newest is one"
    names = {key.partition("/")[0].partition(".tfevents")[0] for key in store.keys("")}
    assert names == {"checkpoints", "claims", "params.json", "result.json", "progress.csv", "train.log", "events.out"}
    assert rows(store) == list(range(1, 8))
    assert json.loads(store.read("params.json") or b"")["config"]["seed"] == 7


def test_another_attempt_on_another_node_goes_on(minio: Minio, bucket: str, tmp_path: Path) -> None:
    train.run(document(minio, bucket, 4), tmp_path / "first")
    train.run(document(minio, bucket, 6), tmp_path / "second", attempt=2)
    store = remote(minio, bucket)
    assert rows(store) == list(range(1, 7))
    log = (store.read("train.log") or b"").decode()
    assert log.index("done: training_iteration >= 4") < log.index("restored from s3://")
    straight = train.run(experiment(config=quick(), stop={"training_iteration": 6}), tmp_path / "straight")
    here, there = straight.row, json.loads((store.read("result.json") or b"").splitlines()[-1])
    assert here["info"] == there["info"], "as if it had not stopped"
    assert here["episodes_total"] == there["episodes_total"]


def test_finished_work_is_not_run_again(minio: Minio, bucket: str, tmp_path: Path) -> None:
    train.run(document(minio, bucket, 3), tmp_path / "first")
    result = train.run(document(minio, bucket, 3), tmp_path / "second")
    assert result.stopped_by == "training_iteration >= 3"
    assert rows(remote(minio, bucket)) == [1, 2, 3]


def test_a_changed_byte_makes_the_one_before_count(minio: Minio, bucket: str, tmp_path: Path) -> None:
    train.run(document(minio, bucket, 5), tmp_path / "first")
    store = remote(minio, bucket)
    [key] = [key for key in store.keys("checkpoints/checkpoint_000005/") if key.endswith("policy.safetensors")]
    content = bytearray(store.read(key) or b"")
    content[-1] ^= 1
    (tmp_path / "changed").write_bytes(content)
    store.upload(tmp_path / "changed", key)
    train.run(document(minio, bucket, 6), tmp_path / "second", attempt=2)
    log = (store.read("train.log") or b"").decode()
    assert "policy.safetensors was changed after it was written" in log
    assert "checkpoint_000004, after" in log
    assert rows(store) == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "second" / "test" / "checkpoints" / "checkpoint_000004").is_dir()
    assert store.read("checkpoints/checkpoint_000005/refused_manifest.json"), "it is renamed"
    assert iterations(store) == [4, 6]


def test_a_half_uploaded_checkpoint_does_not_count(minio: Minio, bucket: str, tmp_path: Path) -> None:
    train.run(document(minio, bucket, 5), tmp_path / "first")
    store = remote(minio, bucket)
    store.delete(["checkpoints/checkpoint_000005/manifest.json"])
    train.run(document(minio, bucket, 6), tmp_path / "second", attempt=2)
    assert "checkpoint_000004, after" in (store.read("train.log") or b"").decode()


def test_a_new_run_starts_from_another_ones_checkpoint(
    minio: Minio, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.run(document(minio, bucket, 4), tmp_path / "first")
    origin = f"s3://{bucket}/demo/team/test/0a1b2c3d"
    heir = document(minio, bucket, 1, restoreFrom={"uri": origin})
    heir = heir.model_copy(update={"metadata": heir.metadata.model_copy(update={"name": "heir", "uid": None})})
    result = train.run(heir, tmp_path / "second")
    assert result.row["training_iteration"] == 1, "its counters are its own"
    assert f"restored from {origin}" in (result.folder / "train.log").read_text()
    monkeypatch.setenv("RLTRAINER_RESTORE_URI", f"{origin}/checkpoints/checkpoint_000004")
    named = heir.model_copy(update={"metadata": heir.metadata.model_copy(update={"name": "third"})})
    assert "checkpoint_000004" in (train.run(named, tmp_path / "third").folder / "train.log").read_text()


def test_a_missing_bucket_is_waited_for(minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster, where somebody is making it."""
    monkeypatch.setenv("RLTRAINER_NAME", "test")
    statuses: list[Any] = []
    monkeypatch.setattr(RunContext, "_report_storage", _remember(RunContext._report_storage, statuses))
    creation = threading.Timer(4, lambda: minio.client().create_bucket(Bucket="late"))
    creation.start()
    train.run(document(minio, "late", 2), tmp_path)
    creation.join()
    assert statuses[0].sync.error.reason == "BucketNotFound"
    assert "bucket late at" in statuses[0].sync.error.message
    assert iterations(remote(minio, "late")) == [2]


def _remember(real: Any, statuses: list[Any]) -> Any:
    def call(self: RunContext, error: Any) -> None:
        real(self, error)
        statuses.append(self.report)

    return call


def test_a_missing_bucket_ends_a_run_at_a_terminal(minio: Minio, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"bucket none-such at http.* does not exist: create it") as caught:
        train.run(document(minio, "none-such", 2), tmp_path)
    assert (caught.value.reason, caught.value.exit_code) == ("BucketNotFound", 2)


def test_an_emptied_folder_is_no_reason_to_begin_anew(
    minio: Minio, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In storage, by what the operator knows; on disk, by what the run has noted."""
    first = train.run(document(minio, bucket, 2), tmp_path)
    store = remote(minio, bucket)
    promised = f"{store.uri}/checkpoints/checkpoint_000002"
    store.delete(store.keys("checkpoints/"))
    shutil.rmtree(first.folder / "checkpoints")
    with pytest.raises(RunError, match="there is no checkpoint in s3://") as caught:
        train.run(document(minio, bucket, 3), tmp_path, attempt=2)
    assert (caught.value.reason, caught.value.exit_code) == ("CheckpointLost", 2)
    monkeypatch.setenv("RLTRAINER_EXPECTED_CHECKPOINT", promised)
    for _ in range(2):
        with pytest.raises(RunError, match=f"has written {promised}, and there is no checkpoint in {store.uri}"):
            train.run(document(minio, bucket, 3), tmp_path / "another node", attempt=3)
    assert rows(store) == [1, 2], "nothing was written over"


def test_a_run_whose_uploads_are_refused_ends_with_the_reason(
    minio: Minio, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a terminal nothing is waited for once the run is done."""
    real = Run.end

    def end(self: Run) -> None:
        client = minio.client()
        client.meta.events.register("before-call.s3.DeleteBucket", with_all_that_is_in_it)
        client.delete_bucket(Bucket=bucket)
        real(self)

    def with_all_that_is_in_it(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-minio-force-delete"] = "true"

    monkeypatch.setattr(Run, "end", end)
    with pytest.raises(
        RunError, match=r"last files did not reach storage \(bucket .* does not exist.*--resume"
    ) as caught:
        train.run(document(minio, bucket, 1), tmp_path)
    assert caught.value.reason == "BucketNotFound"


@pytest.fixture
def mortal_minio(tmp_path: Path) -> Iterator[Minio]:
    with running(tmp_path) as server:
        server.client().create_bucket(Bucket="experiments")
        yield server


def test_training_goes_on_while_s3_is_away(mortal_minio: Minio, tmp_path: Path) -> None:
    """The server dies in the middle; checkpoints wait on the node, the status says so, and they arrive later."""
    given = document(mortal_minio, "experiments", 10**6, stop={"time_total_s": 12})
    interrupt = Interrupt()
    seen: list[Any] = []
    context = RunContext(tmp_path, storage_uri(given, UID), given.spec.storage, interrupt)
    run = Run(given, context)

    def away() -> None:
        while not run.row or run.row["training_iteration"] < 5:
            time.sleep(0.05)
        mortal_minio.stop()
        before = run.row["training_iteration"]
        while not (context.uploader and context.uploader.status().error):
            time.sleep(0.05)
        time.sleep(0.5)
        seen.extend([run.status(), run.row["training_iteration"] - before])
        mortal_minio.start()

    thread = threading.Thread(target=away)
    thread.start()
    result = train.drive(run)
    thread.join()
    status, progress = seen
    assert status.sync.error.reason == "StorageUnreachable"
    assert status.sync.pending >= 1
    assert progress > 0, "it did not wait"
    store = remote(mortal_minio, "experiments")
    assert iterations(store)[-1] == result.row["training_iteration"]
    assert run.status().sync == SyncStatus(pending=0, error=None)


def test_a_local_checkpoint_that_never_arrived_is_uploaded_by_the_next_attempt(
    minio: Minio, bucket: str, tmp_path: Path
) -> None:
    train.run(document(minio, bucket, 4), tmp_path)
    store = remote(minio, bucket)
    store.delete(store.keys("checkpoints/checkpoint_000004"))
    assert iterations(store) == [2]
    train.run(document(minio, bucket, 4), tmp_path, attempt=2)
    assert iterations(store) == [2, 4]


def test_nothing_but_storage_is_needed_to_go_on(minio: Minio, bucket: str, tmp_path: Path) -> None:
    first = train.run(document(minio, bucket, 4), tmp_path)
    shutil.rmtree(first.folder)
    second = train.run(document(minio, bucket, 5), tmp_path, attempt=2)
    assert second.row["training_iteration"] == 5
