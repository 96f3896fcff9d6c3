"""What each option of `rltrainer train` does, seen in what the real command leaves behind."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rltrainer.storage import checkpoint as ckpt
from rltrainer.tune.journal import Journal, read
from tests.unit.trainer.test_cli import CARTPOLE, QUICK, rltrainer

TRAIN = ("train", *CARTPOLE)
NUMBERS = ("train", "--run", "PPO", "--env", "tests.unit.trainer.toy_tasks:Numbers", "--config", QUICK)
Rows = list[dict[str, Any]]


def rows(folder: Path) -> Rows:
    return [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]


def journal(folder: Path) -> Journal:
    found = read(folder / "search.json")
    assert found is not None
    return found


def trained(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = rltrainer(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with what a single run takes."""
    place = tmp_path_factory.mktemp("first")
    trained(
        *(*TRAIN, "--stop", '{"training_iteration": 9}', "--local-dir", str(place), "--experiment-name", "mine"),
        *("--checkpoint-freq", "2", "--keep-checkpoints-num", "2", "--checkpoint-score-attr", "min-episode_len_mean"),
        *("--checkpoint-at-end", "--export-formats", "checkpoint", "model", "onnx"),
    )
    return place / "mine"


def test_eager_is_said_to_be_how_it_is(tmp_path: Path) -> None:
    done = trained(*TRAIN, "--local-dir", str(tmp_path), "--stop", '{"training_iteration": 1}', "--eager")
    assert "--eager: updates run eagerly as it is" in done.stderr


def test_name_place_and_stop(first: Path) -> None:
    assert json.loads((first / "params.json").read_text())["metadata"]["name"] == "mine"
    assert rows(first)[-1]["training_iteration"] == 9


def test_checkpoints_are_written_kept_and_ranked_as_asked(first: Path) -> None:
    """Every second iteration and the last; kept are the two with the shortest episodes, and the newest."""
    kept = [manifest.iteration for manifest in ckpt.manifests_in(first / "checkpoints")]
    lengths = {row["training_iteration"]: row["episode_len_mean"] for row in rows(first)}
    shortest = sorted((2, 4, 6, 8, 9), key=lambda iteration: lengths[iteration])
    assert kept == sorted({*shortest[:2], 9})


def test_the_policy_is_exported(first: Path) -> None:
    import onnxruntime

    assert {path.suffix for path in (first / "export").rglob("*") if path.is_file()} >= {".onnx", ".safetensors"}
    (graph,) = (first / "export").rglob("*.onnx")
    assert onnxruntime.InferenceSession(graph).get_inputs()
    assert [path for path in (first / "export").rglob("manifest.json") if ckpt.verify(path.parent)]


def test_tables_and_events_can_be_read(first: Path) -> None:
    import pandas
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table = pandas.read_json(first / "result.json", lines=True)
    assert list(table["training_iteration"]) == list(range(1, 10))
    assert list(pandas.read_csv(first / "progress.csv")["timesteps_total"]) == list(table["timesteps_total"])
    events = EventAccumulator(str(first))
    events.Reload()
    assert [each.step for each in events.Scalars("timesteps_total")] == list(range(1, 10))
    assert events.Scalars("info/learner/loss")
    begun = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"gamma" in begun
    assert not list(first.rglob("*.pkl")), "what Python would run when it is read is not written"


def test_resume_goes_on_with_a_run_that_is_done(first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "mine")
    again = (*TRAIN, "--local-dir", str(tmp_path), "--experiment-name", "mine", "--stop", '{"training_iteration": 11}')
    trained(*again, "--resume")
    assert [row["training_iteration"] for row in rows(tmp_path / "mine")] == list(range(1, 12))
    trained(*again)
    assert len(list(tmp_path.iterdir())) == 2, "without it, a run that is done moves aside"
    nothing = rltrainer(*TRAIN, "--local-dir", str(tmp_path), "--experiment-name", "other", "--resume")
    assert nothing.returncode == 2
    assert "there is no run in" in nothing.stderr


def test_restore_begins_from_what_was_learnt(first: Path, tmp_path: Path) -> None:
    trained(*TRAIN, "--local-dir", str(tmp_path), "--stop", '{"training_iteration": 1}', "--restore", str(first))
    assert "restored from" in (tmp_path / "ppo-cartpole-v1" / "train.log").read_text()


def test_max_failures_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    config = {**json.loads(QUICK), "vector_env": "sync"}  # so that no measurement steps the environment beforehand
    fails = (
        *("train", "--run", "PPO", "--env", "tests.unit.trainer.toy_envs:FailsOnce", "--config", json.dumps(config)),
        *("--stop", '{"training_iteration": 6}', "--checkpoint-freq", "1", "--local-dir"),
    )
    mark = tmp_path / "mark"
    lost = rltrainer(*fails, str(tmp_path / "without"), env={"TOY_MARK": str(mark)})
    assert lost.returncode == 1
    mark.unlink()
    trained(*fails, str(tmp_path / "with"), "--max-failures", "1", TOY_MARK=str(mark))
    (folder,) = (tmp_path / "with").iterdir()
    assert [row["training_iteration"] for row in rows(folder)] == list(range(1, 7))
    assert "failure 1 of 1: goes on from the newest checkpoint" in (folder / "train.log").read_text()


def test_rllibs_names_and_files_are_understood(tmp_path: Path) -> None:
    content = {
        "one": {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 2}, "config": {"num_sgd_iter": 3}},
        "two": {"run": "PG", "env": "CartPole-v1", "stop": {"training_iteration": 1}},
    }
    path = tmp_path / "classic.yaml"
    path.write_text(yaml.safe_dump(content))
    done = trained("train", "-f", str(path), "--local-dir", str(tmp_path / "runs"), "--config", '{"lr": 0.002}')
    assert "num_sgd_iter" in done.stderr
    params = json.loads((tmp_path / "runs" / "one" / "params.json").read_text())
    assert (params["config"]["epochs"], params["config"]["lr"]) == (3, 0.002)
    assert [len(rows(tmp_path / "runs" / name)) for name in ("one", "two")] == [2, 1]


def test_a_search_on_an_emulated_cluster(tmp_path: Path) -> None:
    """Options of the search, and of Ray, as the trials' environments see them."""
    config = {**json.loads(QUICK), "lr": {"grid_search": [0.01, 0.001]}}
    done = trained(
        *("train", "--run", "PPO", "--env", "tests.unit.trainer.toy_envs:Nodes", "--config", json.dumps(config)),
        *("--stop", '{"training_iteration": 3}', "--local-dir", str(tmp_path), "--num-samples", "2"),
        *("--resources-per-trial", '{"cpu": 2}', "--max-failures", "0", "--experiment-name", "nodes"),
        *("--ray-num-nodes", "3", "--ray-num-cpus", "2", "--ray-num-gpus", "1", "--ray-memory", str(1 << 30)),
        *("--ray-object-store-memory", str(100 << 20), "--queue-trials", "--ray-redis-max-memory", "1000"),
        TOY_MARK=str(tmp_path / "seen.json"),
    )  # each of the first two trials waits for the other: had they not run side by side, both would have failed
    assert "--queue-trials: trials always wait" in done.stderr
    assert "--ray-redis-max-memory: Ray keeps its tables" in done.stderr
    trials = journal(tmp_path / "nodes").trials
    assert [entry.options for entry in trials] == [{"lr": 0.01}, {"lr": 0.001}] * 2
    assert [entry.status for entry in trials] == ["terminated"] * 4
    nodes = json.loads(next(tmp_path.glob("seen.*")).read_text())
    assert len(nodes) == 3
    for node in nodes:
        assert (node["CPU"], node["GPU"], node["memory"]) == (2, 1, 1 << 30)
        assert node["object_store_memory"] == 100 << 20


@pytest.fixture
def ray_head() -> Iterator[str]:
    import ray

    context: Any = ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
    yield str(context.address_info["gcs_address"])
    ray.shutdown()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_search_joins_a_cluster_under_a_scheduler(ray_head: str, tmp_path: Path) -> None:
    config = {**json.loads(QUICK), "lr": {"grid_search": [0.02, 1e-7]}}
    arguments = (
        *("--scheduler", "AsyncHyperBand", "--local-dir", str(tmp_path), "--ray-address", ray_head),
        *("--scheduler-config", '{"time_attr": "training_iteration", "max_t": 6, "grace_period": 3}'),
    )
    trained(*NUMBERS[:-1], json.dumps(config), "--stop", '{"training_iteration": 6}', *arguments)
    (folder,) = tmp_path.iterdir()
    good, bad = journal(folder).trials
    assert good.training_iteration == 6
    assert (bad.training_iteration, bad.stopped_by) == (3, "ended by the scheduler")


def test_hyperopt_is_a_search_and_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    document = {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "hyper"},
        "spec": {
            "run": "PPO",
            "env": "tests.unit.trainer.toy_tasks:Numbers",
            "config": json.loads(QUICK),
            "stop": {"training_iteration": 2},
            "tune": {"space": {"lr": {"loguniform": [0.001, 0.1]}}, "numSamples": 3},
        },
    }
    path.write_text(yaml.safe_dump(document))
    done = trained(
        *("train", "-f", str(path), "--local-dir", str(tmp_path / "runs"), "--scheduler", "HyperOpt"),
        *("--scheduler-config", '{"n_initial_points": 1, "max_concurrent": 1}'),
    )
    assert "--scheduler HyperOpt is a search here" in done.stderr
    assert [entry.status for entry in journal(tmp_path / "runs" / "hyper").trials] == ["terminated"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--upload-dir", "/tmp/x"), "--upload-dir takes an s3:// URI"),  # noqa: S108 - never written
        (("--ray-num-nodes", "2"), "need a run that uses Ray"),
        (("--ray-address", "127.0.0.1:1", "--ray-num-cpus", "2"), "joins a cluster as it is"),
        (("--num-samples", "0"), "must be a whole number of 1 or more"),
        (("--scheduler", "BOHB"), "invalid choice"),
        (("--scheduler", "PBT"), "changes the options in spec.tune.space, which is empty"),
        (("--scheduler", "HyperBand", "--scheduler-config", '{"grace_period": 2}'), "HyperBand takes no gracePeriod"),
        (("--num-samples", "2", "--resources-per-trial", '{"cpus": 2}'), "cpus"),
        (("--resources-per-trial", '{"gpu": 0.5}'), "needs spec.config.num_gpus: 1"),
        (("--checkpoint-score-attr", "reward"), "scoreAttribute"),
        (("--export-formats", "h5"), "invalid choice"),
        (("--config", '{"lr": {"grid_search": [0.1, 3]}}'), "lr"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = rltrainer(*TRAIN, "--local-dir", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
