"""The real command: messages, exit codes, signals, and what --help imports."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltrainer.storage import checkpoint as ckpt
from tests.unit.command import Command

RLTRAINER = [sys.executable, "-W", "error", "-m", "rltrainer.cli"]
ROOT = Path(__file__).parents[3]
QUICK = '{"num_envs_per_worker": 4, "rollout_fragment_length": 16, "epochs": 1, "minibatch_size": 32, "seed": 1}'
CARTPOLE = ("--run", "PPO", "--env", "CartPole-v1", "--config", QUICK)


def rltrainer(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RLTRAINER, *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("train", "--help"),
        ("rollout", "--help"),
        ("evaluate", "--help"),
        ("plot", "--help"),
        ("export", "--help"),
        ("completion", "bash"),
        ("list",),
        ("describe", "PPO"),
        ("validate", "-f", "examples/cartpole-ppo.yaml"),
    ],
)
def test_help_imports_neither_pytorch_nor_ray(arguments: tuple[str, ...]) -> None:
    code = "import sys; from rltrainer.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'ray', 'gymnasium', 'numpy', 'boto3', 'kubernetes') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "PPO", "--env", "CartPole-v1", "--config", '{"learning_rate": 3e-4}'), 'Did you mean "lr"?'),
        (("--run", "PPA", "--env", "CartPole-v1"), 'unknown algorithm "PPA". Did you mean "PPO"?'),
        (("--run", "A2C", "--env", "CartPole-v1", "--config", '{"clip": 0.1}'), "It belongs to APPO, PPO"),
        (("--run", "PPO", "--env", "CartPole-v1", "--config", '{"gamma": 2}'), "gamma"),
        (("--run", "PPO", "--env", "CartPole-v1", "--config", "lr=3"), "--config is not JSON"),
        (("--run", "PPO", "--env", "CartPole-v1", "--config", "[1]"), "--config takes a JSON object"),
        (("--run", "PPO", "--env", "CartPol-v1"), 'environment "CartPol-v1" not found'),
        (("--run", "no_such:THING", "--env", "CartPole-v1"), "no_such:THING cannot be imported"),
        (("--run", "json:dumps", "--env", "CartPole-v1"), "not an rltrainer Algorithm"),
        (("--run", "PPO",), "give a document with -f FILE, or both --run and --env"),
        (("-f", "nowhere.yaml"), "nowhere.yaml: No such file or directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    lines = Command(capsys)("train", *arguments, "--local-dir", tmp_path, code=2).strip().splitlines()
    assert len(lines) == 1, lines
    assert "error: " in lines[0]
    assert message in lines[0]


def test_training_and_rolling_out(tmp_path: Path) -> None:
    done = rltrainer("train", *CARTPOLE, "--stop", '{"training_iteration": 3}', "--local-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "training_iteration >= 3" in done.stdout
    run = tmp_path / "ppo-cartpole-v1"
    rows = [json.loads(line) for line in (run / "result.json").read_text().splitlines()]
    assert [row["training_iteration"] for row in rows] == [1, 2, 3]
    assert rows[-1]["timesteps_total"] == sum(row["timesteps_this_iter"] for row in rows)
    assert json.loads((run / "params.json").read_text())["config"]["lambda"] == 0.95
    assert list(run.glob("events.out.tfevents.*"))
    out = tmp_path / "out"
    played = rltrainer(
        "rollout", str(run), "--episodes", "2", "--seed", "5", "--out", str(out), "--video-dir", str(out)
    )
    assert played.returncode == 0, played.stderr
    lines = played.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["episode", "1"], ["episode", "2"]]
    assert "2 episodes of" in lines[2]
    assert (out / "episode_000000.mp4").stat().st_size > 1000
    check_trajectory(out / "episode_000001.npz", seed=6)


def check_trajectory(path: Path, seed: int) -> None:
    """It can be replayed: the environment gives what the file says."""
    import gymnasium

    with np.load(path, allow_pickle=False) as kept:
        env = gymnasium.make("CartPole-v1")
        assert int(kept["seed"]) == seed
        obs, _ = env.reset(seed=seed)
        for t, action in enumerate(kept["actions"]):
            assert np.array_equal(obs, kept["obs"][t])
            obs, reward, terminated, truncated, _ = env.step(int(action))
            assert reward == kept["rewards"][t]
        assert np.array_equal(obs, kept["obs"][-1])
        assert (terminated, truncated) == (bool(kept["terminated"]), bool(kept["truncated"]))


@pytest.fixture
def endless(tmp_path: Path) -> Any:
    """Starts a run that does not end by itself, and waits until it trains."""
    started: list[subprocess.Popen[str]] = []

    def start(*more: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*RLTRAINER, "train", *CARTPOLE, "--local-dir", str(tmp_path), *more],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if "iteration" in line:
                return process
        raise AssertionError("it ended before it trained")

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint(
    tmp_path: Path, endless: Callable[..., subprocess.Popen[str]], signum: signal.Signals, code: int
) -> None:
    process = endless()
    process.send_signal(signum)
    _, log = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"ended by {signum.name}; checkpoint_" in log
    run = tmp_path / "ppo-cartpole-v1"
    manifest, _ = ckpt.read(max((run / "checkpoints").glob("checkpoint_*")))
    assert manifest.iteration == len((run / "result.json").read_text().splitlines())
    again = rltrainer(
        "train",
        *CARTPOLE,
        "--stop",
        json.dumps({"training_iteration": manifest.iteration + 1}),
        "--local-dir",
        str(tmp_path),
    )
    assert again.returncode == 0, again.stderr
    assert f"restored from {run}/checkpoints/{manifest.name}" in again.stderr


def test_ctrl_c_again_ends_at_once(tmp_path: Path, endless: Callable[..., subprocess.Popen[str]]) -> None:
    process = endless("--env", "tests.unit.trainer.toy_envs:Slow")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "it waits for its iteration"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    assert process.returncode == 130
    assert not list(tmp_path.rglob("checkpoint_*")), "no time was left to write one"


def test_sigterm_again_changes_nothing(tmp_path: Path, endless: Callable[..., subprocess.Popen[str]]) -> None:
    """Ray's job supervisor and the pod's preStop hook both send one."""
    process = endless()
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "ended by SIGTERM; checkpoint_" in log


def test_a_long_iteration_is_given_up(tmp_path: Path, endless: Callable[..., subprocess.Popen[str]]) -> None:
    """The fragment under way would take 48 s; the state after the last whole iteration is written within seconds."""
    process = endless("--env", "tests.unit.trainer.toy_envs:Slow")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    folder = next((tmp_path / "ppo-tests-unit-trainer-toy-envs-slow" / "checkpoints").iterdir())
    manifest, tree = ckpt.read(folder)
    assert manifest.iteration == 1
    assert tree["workers"] == {}, "they are somewhere within the next iteration"


def test_terminate_ends_the_trainer_of_the_container(
    tmp_path: Path, endless: Callable[..., subprocess.Popen[str]]
) -> None:
    noted = {"RLTRAINER_PIDFILE": str(tmp_path / "pid")}
    process = endless(env=noted)
    done = rltrainer("terminate", env=noted)
    assert done.returncode == 0, done.stderr
    assert process.wait(timeout=30) == 143
    assert list((tmp_path / "ppo-cartpole-v1" / "checkpoints").glob("checkpoint_*"))
    assert not (tmp_path / "pid").exists()
    assert "no trainer runs here" in rltrainer("terminate", env=noted).stdout


def test_overwrite_begins_anew_and_keeps_the_old_run(tmp_path: Path) -> None:
    for _ in range(2):
        done = rltrainer(
            "train", *CARTPOLE, "--stop", '{"training_iteration": 1}', "--local-dir", str(tmp_path), "--overwrite"
        )
        assert done.returncode == 0
    assert len(list(tmp_path.glob("ppo-cartpole-v1*"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("/nowhere",), "there is no checkpoint in /nowhere"),
        (("s3://x/run",), "storage.uri: String should match pattern"),
        (("s3://bucket/run", "--endpoint", "minio:9000"), "storage.endpoint: String should match pattern"),
        ((), "rollout takes a CHECKPOINT, or a document with -f FILE"),
        (("-f", "examples/cartpole-rollout.yaml"), "spec.experiment means something only in a cluster"),
    ],
)
def test_a_rollout_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert message in Command(capsys)("rollout", *arguments, code=2)


def test_the_document_and_the_command_line_are_one(tmp_path: Path) -> None:
    done = rltrainer(
        "train", "-f", "examples/cartpole-ppo.yaml", "--config", '{"seed": 4}', "--stop", '{"training_iteration": 1}',
        "--local-dir", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    params = json.loads((tmp_path / "cartpole-ppo" / "params.json").read_text())
    assert params["config"]["seed"] == 4
    assert params["stop"]["training_iteration"] == 1
    assert params["stop"]["episode_reward_mean"] == 475
