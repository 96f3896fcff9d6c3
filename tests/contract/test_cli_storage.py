"""Commands that take a checkpoint, with a real S3 server: by URI, and by the name of an experiment in a cluster."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rltrainer.storage import store as store_module
from rltrainer.storage import sync
from rltrainer.storage.s3 import S3Store
from tests.contract.minio import PASSWORD, USER, Minio
from tests.unit.api_server import EXPERIMENTS, api_server
from tests.unit.command import Command
from tests.unit.trainer.checkpoints import written_run

RUN = "s3://experiments/commands/team/cartpole"


@pytest.fixture(scope="module")
def uploaded(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose best checkpoint by its own attribute is its first."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    written_run(folder, "min-episode_len_mean", episode_len_mean=(1.0, 2.0, 3.0), episode_reward_mean=(1.0, 2.0, 3.0))
    store = S3Store(RUN, minio.endpoint)
    store._client = minio.client()
    for checkpoint in sorted((folder / "checkpoints").iterdir()):
        sync.put(store, checkpoint)
    (folder / "result.json").write_text('{"training_iteration": 1, "timesteps_total": 5, "episode_reward_mean": 3}\n')
    for name in ("params.json", "result.json"):
        store.upload(folder / name, name)
    return RUN


def test_a_uri_of_a_run(minio: Minio, uploaded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rltrainer, where = Command(capsys), ("--endpoint", minio.endpoint)
    for given, number in ((uploaded, 2), (f"{uploaded}/latest", 6), (f"{uploaded}/best/", 2)):
        found = json.loads(rltrainer("evaluate", given, "--episodes", "1", "--json", *where))
        assert found["checkpoint"] == f"{RUN}/checkpoints/checkpoint_00000{number}"
    out = "s3://experiments/played"
    rltrainer("rollout", uploaded, "--episodes", "2", "--out", out, *where)
    kept = S3Store(out, minio.endpoint)
    assert kept.keys("episode") == ["episode_000000.npz", "episode_000001.npz"]
    assert set(kept.keys("")) - set(kept.keys("episode")) == {"claims/000001.json", "claims/000001.ended"}
    said = rltrainer("export", uploaded, "--format", "checkpoint", "--out", tmp_path, *where)
    assert said.strip() == str(tmp_path / "checkpoint_000002")
    assert "cartpole" in rltrainer("plot", uploaded, *where)


@pytest.mark.parametrize("command", ["evaluate", "rollout", "export", "plot"])
def test_what_time_does_not_mend_ends_a_command_at_once(
    command: str, minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same words, with the same exit code."""
    rltrainer, where = Command(capsys), ("--endpoint", minio.endpoint)
    out = ("--out", tmp_path / "out") if command == "export" else ()
    monkeypatch.setattr(store_module, "sleep", lambda seconds: pytest.fail("it was tried again"))
    assert f"bucket nowhere-at-all at {minio.endpoint} does not exist: create it" in rltrainer(
        command, "s3://nowhere-at-all/x", *out, *where, code=2
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = rltrainer(command, "s3://experiments/x", *out, *where, code=2)
    assert "access denied (SignatureDoesNotMatch to " in refused
    assert "s3:PutObject" in refused
    file = tmp_path / "file"
    file.write_text("no folder")
    assert f"{file} is no folder" in rltrainer(command, file, *out, code=2)


def test_the_name_of_an_experiment(
    minio: Minio, uploaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The credentials are those of the Secret: the environment has none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")
    storage = {"uri": "s3://experiments/commands", "endpoint": minio.endpoint, "credentialsSecret": "s3"}
    uri = f"{uploaded}/checkpoints/checkpoint_000004"
    kept: dict[str, Any] = {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD}
    with api_server(tmp_path, monkeypatch) as objects:
        objects[EXPERIMENTS.format("team", "cartpole")] = {
            "spec": {"run": "PPO", "env": "CartPole-v1", "storage": storage},
            "status": {"training": {"bestCheckpoint": {"uri": uri}}},
        }
        objects["/api/v1/namespaces/team/secrets/s3"] = {
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in kept.items()}
        }
        said = Command(capsys)("rollout", "cartpole", "--episodes", "1")
    assert f"1 episodes of {uri}: mean return" in said
    assert os.environ["AWS_ACCESS_KEY_ID"] == USER
