"""The background uploads, against a folder that can be made to fail."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rltrainer.api.experiment import Checkpoint
from rltrainer.api.status import SyncStatus
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.store import FolderStore, StorageError
from rltrainer.storage.sync import Uploader


class Flaky(FolderStore):
    """A folder that is away for as long as it is told to be."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = False
        self.uploads: list[str] = []

    def upload(self, path: Path, key: str) -> None:
        if self.away:
            raise StorageError("StorageUnreachable", "it is away")
        self.uploads.append(key)
        super().upload(path, key)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(sync, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(sync, "FILES_INTERVAL_S", 0.2)


@pytest.fixture
def store(tmp_path: Path) -> Flaky:
    return Flaky(tmp_path / "store")


def written(tmp_path: Path, iteration: int, reward: float = 0.0) -> Path:
    tree = {"run": {"iteration": iteration}}
    return ckpt.write(
        tmp_path / "run" / "checkpoints", tree, iteration, 10 * iteration, {"episode_reward_mean": reward}
    )


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to this")


def uploader(tmp_path: Path, store: Flaky, keep: int = 0) -> Uploader:
    return Uploader(store, tmp_path / "run", Checkpoint(keep=keep))


def test_the_manifest_is_uploaded_last_and_both_refs_are_known(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    uploads.add(written(tmp_path, 1, reward=5.0))
    uploads.add(written(tmp_path, 2, reward=3.0))
    assert uploads.close(5)
    assert [key.rsplit("/", 1)[1] for key in store.uploads] == ["state.json", "manifest.json"] * 2
    newest, best = uploads.references().values()
    assert newest is not None
    assert best is not None
    assert (newest.iteration, best.iteration) == (2, 1)
    assert newest.uri == f"{store.uri}/checkpoints/checkpoint_000002"
    assert (best.timesteps_total, best.episode_reward_mean) == (10, 5.0)


def test_storage_that_is_away_is_reported_and_tried_for_ever(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    store.away = True
    uploads.add(written(tmp_path, 1))
    wait_for(lambda: uploads.status().error)
    status = uploads.status()
    assert status.pending == 1
    assert status.error is not None
    assert (status.error.reason, status.error.message) == ("StorageUnreachable", "it is away")
    assert uploads.references() == {"checkpoint": None, "best_checkpoint": None}
    store.away = False
    wait_for(lambda: uploads.status() == SyncStatus(pending=0, error=None))
    assert uploads.close(5)


def test_a_checkpoint_is_waited_for(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    store.away = True
    first = written(tmp_path, 1)
    uploads.add(first)
    assert not uploads.wait_for(first, 0.1)
    store.away = False
    assert uploads.wait_for(first, 5)
    second = written(tmp_path, 2)
    assert not uploads.wait_for(second, 0.1)
    uploads.add(second)
    assert uploads.wait_for(second, 5)
    assert uploads.wait_for(first, 0), "a newer one is there"
    assert uploads.close(5)


def test_the_end_of_patience_is_said(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    store.away = True
    uploads.add(written(tmp_path, 1))
    assert not uploads.close(0.3)
    store.away = False
    assert uploads.close(5)


def test_what_is_not_worth_keeping_is_removed_from_storage(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store, keep=1)
    for iteration, reward in ((1, 1.0), (2, 9.0), (3, 2.0), (4, 3.0)):
        uploads.add(written(tmp_path, iteration, reward))
    assert uploads.close(5)
    assert [manifest.iteration for manifest in sync.remote_manifests(store)] == [2, 4]
    assert len(store.keys("")) == 4


def test_a_checkpoint_that_is_deleted_before_its_turn_is_forgotten(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    store.away = True
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    uploads.add(first)
    uploads.add(second)
    wait_for(lambda: uploads.status().error and uploads.forget(first))
    ckpt.delete(first)
    store.away = False
    assert uploads.close(5)
    assert [manifest.iteration for manifest in sync.remote_manifests(store)] == [2]


def test_files_are_uploaded_now_and_then_and_at_the_end(tmp_path: Path, store: Flaky) -> None:
    uploads = uploader(tmp_path, store)
    rows = tmp_path / "run" / "result.json"
    rows.parent.mkdir()
    for i in range(20):
        rows.write_text(f"{i}\n")
        uploads.touch(rows)
        time.sleep(0.02)
    uploads.touch(rows, tmp_path / "run" / "never-written")
    assert uploads.close(5)
    assert store.read("result.json") == b"19\n"
    assert len(store.uploads) <= 4, "not for each change"
