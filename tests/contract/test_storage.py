"""Both stores keep one contract: a folder, and a real S3 server."""

import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from rltrainer.api.base import Metadata
from rltrainer.api.experiment import Storage
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import sync
from rltrainer.storage.checkpoint import CorruptCheckpointError
from rltrainer.storage.open import open_store
from rltrainer.storage.paths import run_uri
from rltrainer.storage.s3 import S3Store
from rltrainer.storage.store import FolderStore, StorageError, Store
from tests.contract.minio import PASSWORD, Minio, free_port, running

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


def test_of_several_that_create_one_key_one_does(store: Store) -> None:
    store.check()
    assert store.create("a/one", b"first")
    assert not store.create("a/one", b"second")
    assert store.read("a/one") == b"first"
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda i: store.create("a/two", b"%d" % i), range(8)))
    assert sum(created) == 1
    assert store.read("a/two") == b"%d" % created.index(True)


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


SPELLINGS = ("team/runs", "team//runs", "/team/runs", "./team/runs", "team/./runs//", "team/runs/")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_place_has_one_key_however_its_uri_is_spelled(spelling: str, minio: Minio, tmp_path: Path) -> None:
    """What one spelling wrote, each other one finds, at the key that a person would look for it at."""
    bucket, metadata = f"spelled-{next(NUMBER)}", Metadata(name="cartpole", namespace="me", uid="0a1b2c3d-0")
    minio.client().create_bucket(Bucket=bucket)
    uri = Storage.model_validate({"uri": f"s3://{bucket}/{spelling}"}).uri
    store = S3Store(run_uri(uri, metadata), minio.endpoint)
    put(store, tmp_path, "checkpoints/c/manifest.json")
    there = [item["Key"] for item in minio.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert there == ["team/runs/me/cartpole/0a1b2c3d/checkpoints/c/manifest.json"]
    assert store.uri == f"s3://{bucket}/team/runs/me/cartpole/0a1b2c3d"
    for other in SPELLINGS:
        again = S3Store(run_uri(f"s3://{bucket}/{other}", metadata), minio.endpoint)
        assert again.keys("checkpoints/") == ["checkpoints/c/manifest.json"]
        assert again.read("checkpoints/c/manifest.json") == b"content"


@pytest.mark.parametrize("uri", ["s3://bucket/a/../b", "s3://bucket/..", "s3://bucket/../b"])
def test_a_uri_that_climbs_is_refused(uri: str) -> None:
    with pytest.raises(ValidationError, match=r"no part of it may be \.\."):
        Storage.model_validate({"uri": uri})


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

    def create(self, key: str, content: bytes) -> bool:
        return self.store.create(key, content)

    def keys(self, prefix: str) -> list[str]:
        return self.store.keys(prefix)


def test_an_upload_that_dies_at_any_file_leaves_no_checkpoint(store: Store, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    for calls in range(2):
        with pytest.raises(Dies):
            sync.put(Mortal(store, calls), folder)
        assert sync.remote_manifests(store) == []
    sync.put(store, folder)
    assert len(sync.remote_manifests(store)) == 1


def test_another_of_the_same_name_takes_its_place_at_once_or_not_at_all(store: Store, tmp_path: Path) -> None:
    """The same iteration after a resume: whenever the upload dies, the one or the other is whole."""
    sync.put(store, checkpoint(tmp_path / "first"))
    other = ckpt.write(tmp_path / "second", {"run": {"iteration": 10, "again": True}}, 10, 11, {})
    target = tmp_path / "back" / "checkpoint_000010"
    for calls in range(2):
        with pytest.raises(Dies):
            sync.put(Mortal(store, calls), other)
        sync.fetch(store, "checkpoint_000010", target)
        assert ckpt.read(target)[1] == {"run": {"iteration": 10}}
    manifest = sync.put(store, other)
    for _ in range(2):  # with the files of the first beside it, and without them
        sync.fetch(store, "checkpoint_000010", target)
        assert ckpt.read(target)[1] == {"run": {"iteration": 10, "again": True}}
        sync.remove_replaced(store, manifest)
    assert len(store.keys("")) == 2


def test_a_checkpoint_of_an_earlier_version_is_read(store: Store, tmp_path: Path) -> None:
    """Its files lie beside its manifest."""
    folder = checkpoint(tmp_path / "here")
    for name in ("state.json", "manifest.json"):
        store.upload(folder / name, f"checkpoints/checkpoint_000010/{name}")
    sync.fetch(store, "checkpoint_000010", tmp_path / "there" / "checkpoint_000010")
    assert ckpt.read(tmp_path / "there" / "checkpoint_000010")[1] == {"run": {"iteration": 10}}
    sync.remove_replaced(store, sync.put(store, folder))
    assert not store.keys("checkpoints/checkpoint_000010/state.json")
    sync.fetch(store, "checkpoint_000010", tmp_path / "there" / "checkpoint_000010")


def test_a_refused_one_is_none_any_more_and_still_there(store: Store, tmp_path: Path) -> None:
    manifest = sync.put(store, checkpoint(tmp_path / "here"))
    sync.set_aside(store, manifest.name)
    assert sync.remote_manifests(store) == []
    assert [key.rpartition("/")[2] for key in store.keys("")] == ["state.json", "refused_manifest.json"]
    again = sync.put(store, ckpt.write(tmp_path / "again", {"run": {}}, 10, 10, {}))
    sync.remove_replaced(store, again)
    assert len(store.keys("")) == 4, "both, until the checkpoint is one too many"
    sync.remove(store, again)
    assert store.keys("") == []


def test_a_bucket_that_was_copied_to_disk_is_read_where_it_lies(tmp_path: Path) -> None:
    sync.put(FolderStore(tmp_path / "copy"), checkpoint(tmp_path / "here"))
    assert ckpt.read(tmp_path / "copy" / "checkpoints" / "checkpoint_000010")[1] == {"run": {"iteration": 10}}


def test_a_removal_that_dies_leaves_no_checkpoint(store: Store, tmp_path: Path) -> None:
    sync.put(store, checkpoint(tmp_path))
    manifest = sync.remote_manifests(store)[0]
    with pytest.raises(Dies):
        sync.remove(Mortal(store, 1), manifest)
    assert sync.remote_manifests(store) == []


def test_a_changed_byte_in_storage_is_refused(store: Store, tmp_path: Path) -> None:
    manifest = sync.put(store, checkpoint(tmp_path))
    key = f"checkpoints/checkpoint_000010/{manifest.generation}/state.json"
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


def test_the_server_that_is_really_asked_is_named(minio: Minio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", minio.endpoint)
    with pytest.raises(StorageError, match=re.escape(f"bucket nowhere at {minio.endpoint} does not exist")):
        S3Store("s3://nowhere/x").check()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match=re.escape("bucket nowhere at http://127.0.0.1:1 cannot be reached")):
        S3Store("s3://nowhere/x").check()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An MinIO behind a certificate of a CA that nobody knows: its endpoint, and the certificate."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certs").mkdir()
    names = "subjectAltName=IP:127.0.0.1"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout private.key -out public.crt -subj /CN=minio -addext"
    subprocess.run(["openssl", *command.split(), names], cwd=folder / "certs", check=True, capture_output=True)
    with running(folder, certs=folder / "certs") as server:
        yield server.endpoint, folder / "certs" / "public.crt"


def test_a_certificate_that_is_not_trusted_names_the_setting(
    tls: tuple[str, Path], minio: Minio, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, certificate = tls
    with pytest.raises(StorageError, match=f"{endpoint}: its certificate .* Set AWS_CA_BUNDLE") as caught:
        S3Store("s3://nowhere/x", endpoint).check()
    assert caught.value.permanent
    with pytest.raises(StorageError, match="does not speak TLS: give the endpoint as http://"):
        S3Store("s3://experiments/x", minio.endpoint.replace("http:", "https:")).check()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with pytest.raises(StorageError, match="does not exist"):
        S3Store("s3://nowhere/x", endpoint).check()


@pytest.mark.parametrize("endpoint", ["http://", "http://host:port"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(StorageError, match=r"Invalid endpoint|not a valid URI") as caught:
        S3Store("s3://experiments/x", endpoint).check()
    assert caught.value.permanent


POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::experiments"]},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::experiments/*"]},
    ],
}


def test_a_role_that_may_not_delete_writes_and_replaces(
    minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = minio.restricted(POLICY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", credentials["SessionToken"])
    store = S3Store("s3://experiments/no-delete", minio.endpoint)
    sync.put(store, checkpoint(tmp_path / "first"))
    manifest = sync.put(store, ckpt.write(tmp_path / "second", {"run": {"again": True}}, 10, 10, {}))
    with pytest.raises(StorageError, match=r"access denied \(AccessDenied to DeleteObject\).*s3:DeleteObject"):
        sync.remove_replaced(store, manifest)
    sync.fetch(store, "checkpoint_000010", tmp_path / "back" / "checkpoint_000010")
    assert ckpt.read(tmp_path / "back" / "checkpoint_000010")[1] == {"run": {"again": True}}


class TokenService(BaseHTTPRequestHandler):
    """A token service as AWS has it: temporary credentials for whoever shows the token of a pod."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append(asked)  # type: ignore[attr-defined]
        given = self.server.credentials  # type: ignore[attr-defined]
        tags = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
        body = (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<AssumeRoleWithWebIdentityResult><Credentials>{tags}</Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Says nothing."""


def test_the_identity_of_a_pod_is_enough(minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As IRSA gives it: a token in a file and the name of a role, which the token service takes for credentials."""
    service = ThreadingHTTPServer(("127.0.0.1", 0), TokenService)
    given = minio.restricted(POLICY)
    credentials = {name: given[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
    service.credentials = {**credentials, "Expiration": "2099-01-01T00:00:00Z"}  # type: ignore[attr-defined]
    asked: list[dict[str, list[str]]] = []
    service.asked = asked  # type: ignore[attr-defined]
    threading.Thread(target=service.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("of-this-pod")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/trainer")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{service.server_port}")
    try:
        store = S3Store("s3://experiments/identity", minio.endpoint)
        sync.put(store, checkpoint(tmp_path / "first"))
        assert [manifest.name for manifest in sync.remote_manifests(store)] == ["checkpoint_000010"]
    finally:
        service.shutdown()
        service.server_close()
    [request] = asked
    assert (request["WebIdentityToken"], request["RoleArn"]) == (["of-this-pod"], ["arn:aws:iam::1:role/trainer"])
