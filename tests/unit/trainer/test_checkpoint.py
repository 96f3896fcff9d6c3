"""Checkpoints: what goes in comes out, a crash at any moment leaves the one before, and a changed byte is noticed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rltrainer.errors import RunError
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import locate
from rltrainer.storage.checkpoint import CorruptCheckpointError, FileEntry, Manifest

TREE = {
    "policy": {"layer.weight": torch.arange(6.0).reshape(2, 3)},
    "learner": {"rng": torch.Generator().get_state(), "memory": {"kl_coeff": 0.2}, "empty": {}},
    "workers": {"0": {"obs": np.ones((2, 4), np.float32), "seed": 2**100, "flags": [True, None, 1.5]}, "1": None},
    "run": {"spec": {"env": "CartPole-v1"}},
}
FILES = ["policy.safetensors", "learner.safetensors", "workers.safetensors", "state.json"]


def write(root: Path, iteration: int = 10, tree: dict[str, Any] = TREE) -> Path:
    return ckpt.write(root, tree, iteration, iteration * 100, {"episode_reward_mean": 1.5, "episode_len_mean": None})


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    manifest, tree = ckpt.read(write(tmp_path))
    assert (manifest.iteration, manifest.timesteps_total, manifest.name) == (10, 1000, "checkpoint_000010")
    assert torch.equal(tree["policy"]["layer.weight"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(tree["learner"]["rng"], torch.Generator().get_state())
    assert tree["learner"]["memory"] == {"kl_coeff": 0.2}
    worker = tree["workers"]["0"]
    assert isinstance(worker["obs"], np.ndarray)
    assert worker["obs"].tolist() == [[1.0] * 4] * 2
    assert worker["seed"] == 2**100
    assert worker["flags"] == [True, None, 1.5]
    assert tree["workers"]["1"] is None


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    names = {path.name for path in write(tmp_path).iterdir()}
    assert names == {*FILES, "manifest.json"}
    for name in names:
        assert not (tmp_path / "checkpoint_000010" / name).read_bytes().startswith((b"\x80", b"PK"))


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/b", "..", ".", "", ".bashrc", "a\\b", "a\x00b", "x" * 256, "../checkpoint_1/x", "~/../x/y"],
)
def test_a_manifest_that_names_a_path_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    manifest = json.loads((write(tmp_path) / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["state.json"]
    (tmp_path / "checkpoint_000010" / "manifest.json").write_text(json.dumps(manifest))
    for look in (ckpt.read, ckpt.verify, ckpt.read_policy, ckpt.manifest_of):
        with pytest.raises(CorruptCheckpointError, match=r"manifest.json is not valid: it names .*no name of a file"):
            look(tmp_path / "checkpoint_000010")


@pytest.mark.parametrize("name", ["../x", "/x", "a/b"])
def test_a_published_checkpoint_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    """Fetched as rollout, evaluate, export and restoreFrom fetch: what is named outside stays away."""
    folder = write(tmp_path / "published" / "checkpoints")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["state.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    place = folder / name.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "state.json", place)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"no name of a file|no checkpoint"):
        locate.fetch(str(folder), tmp_path / "here" / "fetched")
    new = set(tmp_path.rglob("*")) - set(before)
    assert {path.relative_to(tmp_path).parts[0] for path in new} <= {"here"}
    assert not any(path.name == Path(name).name for path in new)


@pytest.mark.parametrize("best", ["../../other", "/other", "..", 3])
def test_a_search_that_names_a_path_as_its_best_trial_is_refused(tmp_path: Path, best: object) -> None:
    (tmp_path / "search.json").write_text(json.dumps({"best": best, "metric": "", "mode": "max", "trials": []}))
    with pytest.raises(RunError, match=r"search.json is not valid: its best trial, .*, is no name of a folder"):
        locate.fetch(str(tmp_path), tmp_path / "fetched")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_to_any_file_is_noticed_and_named(tmp_path: Path, name: str, damage: str) -> None:
    path = write(tmp_path) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x80
    path.write_bytes(content if damage == "flip" else content[:-1])
    if damage == "remove":
        path.unlink()
    with pytest.raises(CorruptCheckpointError, match=name.replace(".", r"\.")):
        ckpt.read(path.parent)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(CorruptCheckpointError, match="format 99, and this rltrainer reads format 1"):
        ckpt.read(path.parent)


class Crash(BaseException):
    """The process ends here: nothing may catch it."""


def crash_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the n-th of the operations that write to the disk the last; returns what was done, to count them."""
    done: list[str] = []

    def counted(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(done) == calls:
                raise Crash
            done.append(name)
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(ckpt, "save_file", counted("save", save_file))
    monkeypatch.setattr(os, "fsync", counted("fsync", os.fsync))
    monkeypatch.setattr(shutil, "rmtree", counted("rmtree", shutil.rmtree))
    for name in ("mkdir", "write_text", "rename", "unlink"):
        monkeypatch.setattr(Path, name, counted(name, getattr(Path, name)))
    return done


@pytest.mark.parametrize("existing", [False, True])
def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    """Every operation of the protocol in turn is the last: what is then found is whole, and the next write succeeds."""
    with monkeypatch.context() as patch:
        total = len(operations(tmp_path / "dry", patch, existing))
    assert total > 15
    for calls in range(total):
        root = tmp_path / str(calls)
        write(root, 9)
        if existing:
            write(root, 10)
        with monkeypatch.context() as patch, pytest.raises(Crash):
            crash_after(calls, patch)
            write(root, 10)
        found = ckpt.manifests_in(root)
        assert found[0].iteration == 9
        for manifest in found:
            ckpt.read(root / manifest.name)
        write(root, 10)
        assert [manifest.iteration for manifest in ckpt.manifests_in(root)] == [9, 10]


def operations(root: Path, patch: pytest.MonkeyPatch, existing: bool) -> list[str]:
    """What a write does when it is let."""
    write(root, 9)
    if existing:
        write(root, 10)
    done = crash_after(10**6, patch)
    write(root, 10)
    return done


def manifests(**rewards: float | None) -> list[Manifest]:
    """One for each iteration, named i1, i2, ..., with its mean return."""
    files = {"state.json": FileEntry(size=1, sha256="0" * 64)}
    return [
        Manifest(
            format=1, iteration=int(name[1:]), timesteps_total=0, metrics={"episode_reward_mean": reward}, files=files
        )
        for name, reward in rewards.items()
    ]


@pytest.mark.parametrize(
    ("keep", "attribute", "left"),
    [
        (0, "episode_reward_mean", [1, 2, 3, 4, 5]),
        (1, "episode_reward_mean", [2, 5]),
        (2, "episode_reward_mean", [2, 4, 5]),
        (2, "min-episode_reward_mean", [1, 3, 5]),
        (2, "training_iteration", [4, 5]),
    ],
)
def test_the_best_and_the_newest_are_kept(keep: int, attribute: str, left: list[int]) -> None:
    all_of_them = manifests(i1=None, i2=90.0, i3=10.0, i4=50.0, i5=20.0)
    if attribute.startswith("min-"):
        all_of_them = manifests(i1=5.0, i2=90.0, i3=10.0, i4=50.0, i5=20.0)
    gone = ckpt.to_prune(all_of_them, keep, attribute)
    assert [m.iteration for m in all_of_them if m not in gone] == left


def test_the_newer_of_equals_is_the_best() -> None:
    best = ckpt.best(manifests(i1=5.0, i2=9.0, i3=9.0, i4=None), "episode_reward_mean")
    assert best is not None
    assert best.iteration == 3
    assert ckpt.best([], "episode_reward_mean") is None


def test_a_deleted_checkpoint_stops_existing_before_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # the process ends before this
    ckpt.delete(folder)
    assert ckpt.manifests_in(tmp_path) == []
