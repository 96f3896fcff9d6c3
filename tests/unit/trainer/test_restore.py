"""What a run goes on from: a broken checkpoint costs one checkpoint, and a lost one is never begun anew in silence."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rltrainer.errors import RunError
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import locate, restore, sync
from rltrainer.storage.paths import CHECKPOINTS
from rltrainer.storage.restore import OwnCheckpoints
from rltrainer.storage.store import FolderStore, StorageError, Store, retry

DAMAGES = ("flip", "cut", "remove", "manifest", "renamed")


def written(folder: Path, *iterations: int) -> Path:
    for iteration in iterations:
        tree = {"policy": {}, "run": {"iteration": iteration}}
        ckpt.write(folder / CHECKPOINTS, tree, iteration, iteration, {"episode_reward_mean": float(iteration)})
    return folder


def damage(checkpoint: Path, how: str) -> None:
    """Break the checkpoint in `checkpoint`, a folder of a run or of a bucket, in one way."""
    [state] = checkpoint.rglob("state.json")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    match how:
        case "flip":
            content = bytearray(state.read_bytes())
            content[-2] ^= 1
            state.write_bytes(content)
        case "cut":
            state.write_bytes(state.read_bytes()[:-1])
        case "remove":
            state.unlink()
        case "manifest":
            (checkpoint / "manifest.json").write_bytes(b'{"format": 1')
        case "renamed":  # it says that it is of another iteration, and would rank as the newest for ever
            (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "iteration": 999_999}))


T = TypeVar("T")


def own(folder: Path, store: Store | None = None) -> OwnCheckpoints:
    def at_once(action: Callable[[], T], /) -> T:
        return action()

    return restore.own_checkpoints(folder, store, at_once)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_local_checkpoint_costs_itself(tmp_path: Path, how: str) -> None:
    root = written(tmp_path, 1, 2, 3) / CHECKPOINTS
    damage(root / "checkpoint_000003", how)
    found = own(tmp_path)
    assert found.newest is not None
    assert found.newest.tree["run"] == {"iteration": 2}
    assert names(root) == ["checkpoint_000001", "checkpoint_000002", "refused_checkpoint_000003"]
    written(tmp_path, 3)
    assert [m.iteration for m in ckpt.to_prune(ckpt.manifests_in(root), 1, "min-episode_reward_mean")] == [2]
    damage(root / "checkpoint_000003", how)
    own(tmp_path)
    assert names(root)[-2:] == ["refused_checkpoint_000003", "refused_checkpoint_000003.2"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_one_in_storage_costs_itself(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    store = FolderStore(tmp_path / "store")
    for folder in sorted((written(tmp_path / "here", 1, 2, 3) / CHECKPOINTS).iterdir()):
        sync.put(store, folder)
    damage(tmp_path / "store" / CHECKPOINTS / "checkpoint_000003", how)
    target = tmp_path / "fetched"
    with caplog.at_level(logging.WARNING):
        assert locate.fetch(store.uri, target).endswith("checkpoint_000002"), "somebody else reads, and renames nothing"
    assert ckpt.read(target)[1]["run"] == {"iteration": 2}
    assert "checkpoint_000003" in caplog.text, "it is said"
    assert store.read("checkpoints/checkpoint_000003/manifest.json")
    found = own(tmp_path / "other", store)
    assert found.newest is not None
    assert found.newest.tree["run"] == {"iteration": 2}
    assert [manifest.iteration for manifest in sync.remote_manifests(store)] == [1, 2]
    assert store.read("checkpoints/checkpoint_000003/refused_manifest.json")


def test_one_that_is_broken_here_and_whole_in_storage_is_fetched(tmp_path: Path) -> None:
    store, root = FolderStore(tmp_path / "store"), written(tmp_path / "run", 1, 2) / CHECKPOINTS
    sync.put(store, root / "checkpoint_000002")
    damage(root / "checkpoint_000002", "flip")
    found = own(tmp_path / "run", store)
    assert found.newest is not None
    assert found.newest.tree["run"] == {"iteration": 2}
    assert names(root) == ["checkpoint_000001", "checkpoint_000002", "refused_checkpoint_000002"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("remote", [False, True])
def test_where_none_can_be_read_nothing_begins_anew(tmp_path: Path, how: str, remote: bool) -> None:
    root = written(tmp_path / "run", 1, 2) / CHECKPOINTS
    store = FolderStore(tmp_path / "store")
    for folder in sorted(root.iterdir()):
        sync.put(store, folder)
    place = tmp_path / "store" / CHECKPOINTS if remote else root
    for number in (1, 2):
        damage(place / f"checkpoint_00000{number}", how)
    for _ in range(2):  # the next start finds the same
        with pytest.raises(RunError, match="can be read: checkpoint_000001, checkpoint_000002") as caught:
            own(tmp_path / "elsewhere", store) if remote else own(tmp_path / "run")
        assert (caught.value.reason, caught.value.permanent) == ("CheckpointLost", True)


def test_one_of_a_later_version_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    path = written(tmp_path, 1) / CHECKPOINTS / "checkpoint_000001" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(RunError, match="can be read"):
        own(tmp_path)
    written(tmp_path, 2)
    (tmp_path / CHECKPOINTS / "checkpoint_000003").mkdir()
    (path.parent.parent / "checkpoint_000003" / "manifest.json").write_text(path.read_text())
    assert own(tmp_path).newest is not None
    assert "checkpoint_000001" in names(tmp_path / CHECKPOINTS), "it is whole, and stays where it is"


def test_nothing_half_written_promises_a_checkpoint(tmp_path: Path) -> None:
    root = written(tmp_path, 1) / CHECKPOINTS
    (root / "checkpoint_000001" / "manifest.json").unlink()  # a crash in the middle of a deletion
    (root / ".checkpoint_000002.part").mkdir()
    assert own(tmp_path).newest is None


@pytest.mark.parametrize("expected", ["s3://b/r/checkpoints/checkpoint_000002", "checkpoint_000002"])
def test_a_checkpoint_that_was_promised_must_be_there(
    tmp_path: Path, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    restore.check_expected(OwnCheckpoints(None), None, "here")
    with pytest.raises(RunError, match=r"checkpoint_000002, and there is no checkpoint in here: bring back") as caught:
        restore.check_expected(OwnCheckpoints(None), expected, "here")
    assert (caught.value.reason, caught.value.permanent) == ("CheckpointLost", True)
    restore.check_expected(own(written(tmp_path, 2)), expected, "here")
    assert not caplog.records
    restore.check_expected(own(written(tmp_path / "older", 1)), expected, "here")
    assert "does again what came after" in caplog.text


@pytest.mark.parametrize("which", ["best", "latest"])
def test_a_named_checkpoint_has_no_substitute(tmp_path: Path, which: str) -> None:
    root = written(tmp_path, 1, 2) / CHECKPOINTS
    damage(root / "checkpoint_000002", "flip")
    assert locate.fetch(str(tmp_path), tmp_path / "fetched", which=which).endswith("checkpoint_000001")
    with pytest.raises(RunError, match="was changed after it was written"):
        locate.fetch(str(root / "checkpoint_000002"), tmp_path / "named", which=which)
    damage(root / "checkpoint_000001", "cut")
    with pytest.raises(RunError, match=r"no checkpoint in .* that is whole"):
        locate.fetch(str(tmp_path), tmp_path / "fetched", which=which)


def mutations(content: bytes) -> list[bytes]:
    """One change for each byte: another bit, a path's character, or nothing at all."""
    changes: list[Any] = []
    for at in range(len(content)):
        changes += [content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]]
        changes += [content[:at] + b"/."[at % 2 : at % 2 + 1] + content[at + 1 :], content[:at]]
    return changes


def test_each_byte_of_a_manifest_is_fuzzed(tmp_path: Path) -> None:
    """It opens with the same content, or is refused; and nothing is written outside its place."""
    published = tmp_path / "published"
    folder = written(published, 1) / CHECKPOINTS / "checkpoint_000001"
    content, expected = (folder / "manifest.json").read_bytes(), ckpt.read(folder)[1]
    outside = sorted(tmp_path.rglob("*"))
    opened = refused = 0
    for changed in mutations(content):
        (folder / "manifest.json").write_bytes(changed)
        target = tmp_path / "here" / "fetched"
        try:
            locate.fetch(str(folder), target)
            assert ckpt.read(target)[1] == expected
            opened += 1
        except RunError as error:
            assert error.reason == "CheckpointNotFound"
            refused += 1
        inside = [path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] == "here"]
        assert {path.relative_to(tmp_path).parts[1:2] for path in inside} <= {(), ("fetched",), (".fetched.part",)}
        assert sorted(set(tmp_path.rglob("*")) - set(inside)) == outside
    assert opened > 0, "blanks, and numbers that only rank"
    assert refused > len(content)


NAMES = ["../x", "..", ".", "", "/x", "a/b", "a\\b", "x\x00", "ä" * 128, "x" * 256, "manifest.json", "STATE.JSON", "~"]


@pytest.mark.parametrize("name", NAMES)
def test_each_name_of_a_manifest_is_fuzzed(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "published", 1) / CHECKPOINTS / "checkpoint_000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"].pop("state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"CheckpointNotFound|not valid|not there|Error"):
        locate.fetch(str(folder), tmp_path / "here" / "fetched")
    new = set(tmp_path.rglob("*")) - set(before)
    assert {path.relative_to(tmp_path).parts[0] for path in new} <= {"here"}


ODD_STATES: list[Any] = [
    [],
    3,
    None,
    {},
    {"policy": 3, "run": {}},
    {"run": {"$tensor": "x"}},
    {"policy": {"$tensor": 1}},
]


@pytest.mark.parametrize("state", ODD_STATES)
def test_a_state_that_is_whole_and_makes_no_sense_is_refused(tmp_path: Path, state: Any) -> None:
    """Its checksums are right: somebody made it."""
    folder = written(tmp_path, 1) / CHECKPOINTS / "checkpoint_000001"
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / "state.json"
    manifest["files"]["state.json"] = {"size": path.stat().st_size, "sha256": ckpt.digest(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ckpt.CorruptCheckpointError):
        ckpt.read_policy(folder)


@pytest.mark.parametrize("where", ["RLTRAINER_NAME", "RLTRAINER_TRIALS", None])
@pytest.mark.parametrize("reason", ["AccessDenied", "BucketNotFound", "InvalidStorage", "StorageUnreachable"])
def test_what_time_does_not_mend_is_tried_again_in_a_cluster_alone(
    where: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There somebody may be mending it. What may pass is tried again everywhere."""
    monkeypatch.delenv("RLTRAINER_NAME", raising=False)
    if where:
        monkeypatch.setenv(where, "x")
    answers: Iterator[StorageError | str] = iter([StorageError(reason, "no"), StorageError(reason, "no"), "there"])

    def action() -> str:
        answer = next(answers)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    if where is None and reason != "StorageUnreachable":
        with pytest.raises(StorageError):
            retry(action, sleep=lambda seconds: None)
        assert next(answers), "it was tried once"
    else:
        assert retry(action, sleep=lambda seconds: None) == "there"
