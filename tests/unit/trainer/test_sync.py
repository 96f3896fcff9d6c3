"""The background uploads, against a folder that can be made to fail."""

import shutil
import threading
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


def test_it_is_not_all_uploaded_while_the_last_file_is_under_way(tmp_path: Path, store: Flaky) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    class Slow(Flaky):
        def upload(self, path: Path, key: str) -> None:
            under_way.set()
            assert go_on.wait(30)
            super().upload(path, key)

    slow = Slow(tmp_path / "slow")
    uploads = uploader(tmp_path, slow)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("rows")
    uploads.touch(tmp_path / "run" / "result.json")
    assert not uploads.close(0)
    assert under_way.wait(30)
    assert not uploads.close(0.1), "it is under way"
    assert slow.read("result.json") is None
    go_on.set()
    assert uploads.close(30)
    assert slow.read("result.json") == b"rows"


@pytest.mark.parametrize("damage", ["cut", "removed", "no manifest", "gone"])
def test_a_broken_checkpoint_is_not_in_the_way_of_those_after_it(tmp_path: Path, store: Flaky, damage: str) -> None:
    folders = [written(tmp_path, iteration) for iteration in (1, 2, 3)]
    match damage:
        case "cut":
            (folders[1] / "state.json").write_bytes(b"{")
        case "removed":
            (folders[1] / "state.json").unlink()
        case "no manifest":
            (folders[1] / "manifest.json").unlink()
        case _:
            shutil.rmtree(folders[1])
    uploads = uploader(tmp_path, store)
    for folder in folders:
        uploads.add(folder)
    assert uploads.close(30)
    assert [manifest.iteration for manifest in sync.remote_manifests(store)] == [1, 3]
    assert [manifest.iteration for manifest in ckpt.manifests_in(folders[0].parent)] == [1, 3]
    assert (folders[1].parent / "refused_checkpoint_000002").exists() is (damage != "gone")


class Undeletable(Flaky):
    """Refuses to delete, so many times."""

    def __init__(self, root: Path, times: int, reason: str) -> None:
        super().__init__(root)
        self.times, self.reason, self.refusals = times, reason, 0

    def delete(self, keys: list[str]) -> None:
        if self.refusals < self.times:
            self.refusals += 1
            raise StorageError(self.reason, "not now")
        super().delete(keys)


def test_a_failed_delete_is_made_up_for(tmp_path: Path) -> None:
    store = Undeletable(tmp_path / "store", 5, "StorageUnreachable")
    uploads = uploader(tmp_path, store, keep=1)
    for iteration in (1, 2, 3):
        uploads.add(written(tmp_path, iteration, reward=iteration))
        wait_for(lambda: uploads.status().pending == 0)
    wait_for(lambda: [manifest.iteration for manifest in sync.remote_manifests(store)] == [3])
    assert store.refusals == 5
    assert uploads.close(30)
    assert len(store.keys("")) == 2


def test_a_role_that_may_not_delete_uploads_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of one name too; that nothing is deleted is said once, and is no error of the uploads."""
    store = Undeletable(tmp_path / "store", 10**6, "AccessDenied")
    uploads = uploader(tmp_path, store, keep=1)
    for iteration, reward in ((1, 1.0), (2, 2.0), (2, 3.0), (3, 4.0)):
        uploads.add(written(tmp_path, iteration, reward))
        wait_for(lambda: uploads.status() == SyncStatus(pending=0, error=None))
    assert uploads.close(30)
    assert [m.metrics["episode_reward_mean"] for m in sync.remote_manifests(store)] == [1.0, 3.0, 4.0]
    sync.fetch(store, "checkpoint_000002", tmp_path / "back" / "checkpoint_000002")
    assert [record.message for record in caplog.records].count("old checkpoints stay in storage: not now") == 1
