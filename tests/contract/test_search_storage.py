"""A search with a real S3 server: what arrives, and what another machine goes on from."""

import json
import re
from pathlib import Path

import pytest
import yaml

from rltrainer.storage import sync
from rltrainer.storage.s3 import S3Store
from rltrainer.tune.journal import Journal
from tests.contract.minio import PASSWORD, USER, Minio
from tests.unit.trainer.test_cli import QUICK
from tests.unit.trainer.test_cli_train import rows, trained

UID = "0a1b2c3d-0000-4000-8000-000000000000"


def document(place: Path, minio: Minio, iterations: int) -> str:
    spec = {
        "run": "PPO",
        "env": "tests.unit.trainer.toy_tasks:Numbers",
        "config": json.loads(QUICK),
        "stop": {"training_iteration": iterations},
        "checkpoint": {"frequency": 2},
        "storage": {"uri": "s3://searches/demo", "endpoint": minio.endpoint},
        "tune": {"space": {"lr": {"grid_search": [0.02, 0.001]}}},
    }
    head = {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "metadata": {"name": "lost", "uid": UID}}
    path = place / "search.yaml"
    path.write_text(yaml.safe_dump({**head, "spec": spec}))
    return str(path)


def journal(store: S3Store) -> Journal:
    return Journal.model_validate_json(store.read("search.json") or b"")


@pytest.mark.timeout(600)
def test_a_search_goes_on_from_s3_alone(minio: Minio, tmp_path: Path) -> None:
    """The machine is lost with one trial done and one in the middle."""
    minio.client().create_bucket(Bucket="searches")
    keys = {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD}
    trained("train", "-f", document(tmp_path, minio, 6), "--local-dir", str(tmp_path / "first"), **keys)
    store = S3Store("s3://searches/demo/default/lost/0a1b2c3d", minio.endpoint)
    done, cut = journal(store).trials
    for entry in (done, cut):
        held = store.keys(f"{entry.name}/")
        wanted = {"result.json", "progress.csv", "params.json", "train.log"}
        assert wanted <= {key.removeprefix(f"{entry.name}/") for key in held}
        assert any("events.out.tfevents" in key for key in held)
        assert entry.checkpoint is not None
        assert entry.checkpoint.uri == f"{store.uri}/{entry.name}/checkpoints/checkpoint_000006"
    assert not [key for key in store.keys("") if key.endswith(".pkl")]

    noted = journal(store)
    noted.trials[1].status = "running"
    store.upload(noted.write(tmp_path), "search.json")
    newest = sync.remote_manifests(S3Store(f"{store.uri}/{cut.name}", minio.endpoint))[-1]
    sync.remove(S3Store(f"{store.uri}/{cut.name}", minio.endpoint), newest)
    before = store.read(f"{done.name}/result.json")

    trained("train", "-f", document(tmp_path, minio, 8), "--local-dir", str(tmp_path / "second"), **keys)
    first, second = journal(store).trials
    assert (first.training_iteration, second.training_iteration) == (6, 8)
    assert store.read(f"{done.name}/result.json") == before
    assert not (tmp_path / "second" / "lost" / done.name / "checkpoints").exists()
    assert [row["training_iteration"] for row in rows(tmp_path / "second" / "lost" / cut.name)] == list(range(1, 9))
    assert "restored from s3://" in (tmp_path / "second" / "lost" / cut.name / "train.log").read_text()


@pytest.mark.parametrize("search", [False, True])
def test_upload_dir_has_the_same_tree(search: bool, minio: Minio, tmp_path: Path) -> None:
    bucket = f"uploads-{int(search)}"
    minio.client().create_bucket(Bucket=bucket)
    config = {**json.loads(QUICK), **({"lr": {"grid_search": [0.01]}} if search else {})}
    trained(
        *("train", "--run", "PPO", "--env", "CartPole-v1", "--config", json.dumps(config), "--experiment-name", "up"),
        *("--stop", '{"training_iteration": 2}', "--local-dir", str(tmp_path), "--upload-dir", f"s3://{bucket}/runs"),
        *("--export-formats", "model"),
        AWS_ENDPOINT_URL=minio.endpoint,
        AWS_ACCESS_KEY_ID=USER,
        AWS_SECRET_ACCESS_KEY=PASSWORD,
    )
    uid = json.loads((tmp_path / "up" / "run.json").read_text())["uid"]
    keys = S3Store(f"s3://{bucket}/runs/default/up/{uid[:8]}", minio.endpoint).keys("")
    there = {re.sub(r"(checkpoint_\d+)/[0-9a-f]{16}/", r"\1/", key) for key in keys}  # a checkpoint's files lie deeper
    files = [path for path in (tmp_path / "up").rglob("*") if path.is_file()]
    marks = [path for path in files if path.name == "run.json" or path.name.startswith(".")]  # this machine's own
    assert {path.relative_to(tmp_path / "up").as_posix() for path in files if path not in marks} <= there
    assert any("export" in key for key in there)
