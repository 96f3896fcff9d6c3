"""Both stores keep one contract: a folder, and a real S3 server."""

import itertools
import re
from pathlib import Path

import pytest

from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError
from rltrainer.storage.store import FolderStore, S3Store, StorageError, Store, open_store
from tests.contract.minio import PASSWORD, Minio, free_port

NUMBER = itertools.count()


@pytest.fixture(params=["folder", "s3", "s3-root"])
def store(request: pytest.FixtureRequest, tmp_path: Path, minio: Minio) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    bucket = "experiments" if request.param == "s3" else f"whole-{next(NUMBER)}"
    if request.param == "s3-root":
        minio.client().create_bucket(Bucket=bucket)
    prefix = f"/a/prefix-{next(NUMBER)}/" if request.param == "s3" else ""
    return S3Store(f"s3://{bucket}{prefix}", minio.endpoint)


def put(store: Store, tmp_path: Path, key: str, content: bytes = b"content") -> None:
    path = tmp_path / "source"
    path.write_bytes(content)
    store.upload(path, key)


def test_what_is_uploaded_is_read_and_listed(store: Store, tmp_path: Path) -> None:
    store.check()
    put(store, tmp_path, "a/b/one")
    put(store, tmp_path, "a/two", b"2")
    put(store, tmp_path, "a/two", b"two")
    assert store.read("a/two") == b"two"
    assert store.keys("a/") == ["a/b/one", "a/two"]
    assert store.keys("a/b") == ["a/b/one"]
    assert store.keys("nothing") == []
    assert store.download("a/b/one", tmp_path / "deep" / "one")
    assert (tmp_path / "deep" / "one").read_bytes() == b"content"


def test_what_is_not_there_is_no_error(store: Store, tmp_path: Path) -> None:
    assert store.read("nothing") is None
    assert not store.download("nothing", tmp_path / "nothing")
    store.delete(["nothing"])


def test_deleted_is_gone(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "a/one")
    put(store, tmp_path, "a/two")
    store.delete(["a/one"])
    assert store.keys("") == ["a/two"]


def test_a_large_file_arrives_whole(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (20 << 12)
    put(store, tmp_path, "large", content)
    assert store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def checkpoint(root: Path, iteration: int = 10) -> Path:
    return ckpt.write(root, {"run": {"iteration": iteration}}, iteration, iteration, {"episode_reward_mean": 1.0})


def test_a_checkpoint_travels_there_and_back(store: Store, tmp_path: Path) -> None:
    sync.put(store, checkpoint(tmp_path / "here"))
    assert [m.iteration for m in sync.remote_manifests(store)] == [10]
    sync.fetch(store, "checkpoint_000010", tmp_path / "there" / "checkpoint_000010")
    assert ckpt.read(tmp_path / "there" / "checkpoint_000010")[1] == {"run": {"iteration": 10}}
    sync.remove(store, sync.remote_manifests(store)[0])
    assert store.keys("") == []


class Dies(Exception):
    """The connection, after so many files."""


class Mortal:
    """A store that dies after so many uploads and deletions."""

    def __init__(self, store: Store, calls: int) -> None:
        self.store, self.uri, self.calls = store, store.uri, calls

    def _count(self) -> None:
        if self.calls == 0:
            raise Dies
        self.calls -= 1

    def check(self) -> None:
        self.store.check()

    def upload(self, path: Path, key: str) -> None:
        self._count()
        self.store.upload(path, key)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self._count()
            self.store.delete([key])

    def download(self, key: str, path: Path) -> bool:
        return self.store.download(key, path)

    def read(self, key: str) -> bytes | None:
        return self.store.read(key)

    def keys(self, prefix: str) -> list[str]:
        return self.store.keys(prefix)


def test_an_upload_that_dies_at_any_file_leaves_no_checkpoint(store: Store, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    for calls in range(3):
        with pytest.raises(Dies):
            sync.put(Mortal(store, calls), folder)
        assert sync.remote_manifests(store) == []
    sync.put(store, folder)
    # another run of the same iteration takes its place, and in between there is none
    with pytest.raises(Dies):
        sync.put(Mortal(store, 2), folder)
    assert sync.remote_manifests(store) == []


def test_a_removal_that_dies_leaves_no_checkpoint(store: Store, tmp_path: Path) -> None:
    sync.put(store, checkpoint(tmp_path))
    manifest = sync.remote_manifests(store)[0]
    with pytest.raises(Dies):
        sync.remove(Mortal(store, 1), manifest)
    assert sync.remote_manifests(store) == []


def test_a_changed_byte_in_storage_is_refused(store: Store, tmp_path: Path) -> None:
    sync.put(store, checkpoint(tmp_path))
    key = "checkpoints/checkpoint_000010/state.json"
    content = bytearray(store.read(key) or b"")
    content[3] ^= 1
    put(store, tmp_path, key, bytes(content))
    with pytest.raises(CorruptCheckpointError, match=r"state\.json was changed"):
        sync.fetch(store, "checkpoint_000010", tmp_path / "back" / "checkpoint_000010")
    assert not (tmp_path / "back" / "checkpoint_000010").exists()


def test_a_bucket_that_is_not_there_is_named(minio: Minio) -> None:
    with pytest.raises(StorageError, match=r"bucket nowhere at http.* does not exist") as caught:
        S3Store("s3://nowhere/x", minio.endpoint).check()
    assert caught.value.reason == "BucketNotFound"


def test_wrong_credentials_are_never_shown(minio: Minio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(StorageError, match=r"bucket experiments at .*: access denied") as caught:
        S3Store("s3://experiments/x", minio.endpoint).check()
    assert caught.value.reason == "AccessDenied"
    assert "a-wrong-secret" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_no_credentials_are_asked_for(minio: Minio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(StorageError, match="no credentials") as caught:
        S3Store("s3://experiments/x", minio.endpoint).check()
    assert caught.value.reason == "AccessDenied"


def test_a_server_that_is_away_is_named() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StorageError, match=re.escape(f"{endpoint} cannot be reached")) as caught:
        S3Store("s3://experiments/x", endpoint).check()
    assert caught.value.reason == "StorageUnreachable"


def test_a_uri_says_which_store(tmp_path: Path) -> None:
    assert isinstance(open_store("s3://bucket/x"), S3Store)
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert open_store(f"file://{tmp_path}").uri == str(tmp_path)
