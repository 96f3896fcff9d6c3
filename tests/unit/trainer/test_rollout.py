"""Rollouts in process: seeds, ways of acting, what is kept, and the RLRollout document."""

import argparse
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rltrainer.api.base import DocumentError
from rltrainer.cli import parser, play
from rltrainer.errors import RunError
from rltrainer.reporting import status
from rltrainer.runs import policy as policies
from rltrainer.runs import rollout, train
from rltrainer.runs.rollout import Episode, Recorder, Request
from tests.unit.trainer.helpers import TOYS, experiment, quick
from tests.unit.trainer.toy_envs import Faulty


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints 2 and 4, of which the older has the better mean return: pole for pole it is luck."""
    stop = {"training_iteration": 4}
    given = experiment(config=quick(), stop=stop, checkpoint={"frequency": 2, "scoreAttribute": "training_iteration"})
    return train.run(given, tmp_path_factory.mktemp("runs")).folder


def returns(request: Request) -> list[float]:
    *_, (_, report) = rollout.run(request)
    assert report.done
    return report.returns


def test_an_episode_depends_on_its_seed_alone(trained: Path) -> None:
    three = returns(Request(str(trained), episodes=3, seed=10))
    assert returns(Request(str(trained), episodes=1, seed=11)) == three[1:2]
    assert len(set(three)) > 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_same_seeds_give_the_same_returns(trained: Path, deterministic: bool) -> None:
    request = Request(str(trained), episodes=3, deterministic=deterministic)
    assert returns(request) == returns(request)


def test_drawn_actions_differ_from_the_best_ones(trained: Path) -> None:
    assert returns(Request(str(trained), episodes=5)) != returns(Request(str(trained), episodes=5, deterministic=False))


def test_no_episode_begins_after_so_many_steps(trained: Path) -> None:
    reports = [report for episode, report in rollout.run(Request(str(trained), episodes=50, steps=30)) if episode]
    assert reports[-1].timesteps >= 30
    assert all(report.timesteps < 30 for report in reports[:-1])


def test_the_newest_or_the_best_checkpoint_of_a_run(trained: Path) -> None:
    for which in ("latest", "best"):  # the run ranks them by their iteration
        *_, (_, report) = rollout.run(Request(str(trained), episodes=1, which=which))
        assert report.checkpoint == f"{trained}/checkpoints/checkpoint_000004"


def test_a_broken_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "checkpoint_000004"
    shutil.copytree(trained / "checkpoints" / "checkpoint_000004", copy)
    content = bytearray((copy / "policy.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "policy.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"policy\.safetensors was changed"):
        returns(Request(str(copy)))


def test_the_report_is_the_statistics_of_the_returns() -> None:
    recorder = Recorder(Request("x"), "x")
    for rewards in ([1.0, 1.0], [4.0], [2.0, 2.0, 2.0]):
        recorder.add(Episode(0, rewards=rewards), Path())
    report = recorder.results()
    assert (report.episodes, report.timesteps, report.returns) == (3, 6, [2.0, 4.0, 6.0])
    assert (report.reward_mean, report.reward_min, report.reward_max) == (4.0, 2.0, 6.0)
    assert report.reward_stderr == pytest.approx(2.0 / math.sqrt(3))
    assert report.reward == "4.0 ± 1.2"
    assert report.episode_len_mean == 2.0


def test_a_failing_environment_names_step_and_seed(tmp_path: Path) -> None:
    given = experiment(env=TOYS + "Faulty", config=quick(rollout_fragment_length=2), stop={"training_iteration": 1})
    folder = train.run(given, tmp_path).folder
    with pytest.raises(RunError, match=r"Faulty: ZeroDivisionError: the simulator fell over \(step 4, seed 3\)"):
        returns(Request(str(folder), seed=3))


def document(tmp_path: Path, **spec: Any) -> argparse.Namespace:
    content = {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLRollout",
        "metadata": {"name": "play", "namespace": "team", "uid": "12345678-9"},
        "spec": spec,
    }
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(content))
    return parser().parse_args(["rollout", "-f", str(tmp_path / "rollout.yaml")])


def test_the_document_says_what_the_command_line_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLTRAINER_CHECKPOINT_URI", "s3://bucket/run/checkpoints/checkpoint_000004")
    storage = {"uri": "s3://bucket/p", "endpoint": "http://minio:9000"}
    given = document(tmp_path, experiment="cartpole", storage=storage, episodes=3, out=True, video=True, seed=9)
    request = play.request_of(given)
    assert request.checkpoint == "s3://bucket/run/checkpoints/checkpoint_000004"
    assert (request.episodes, request.seed, request.deterministic) == (3, 9, True)
    assert request.out == "s3://bucket/p/team/play/12345678/trajectories"
    assert request.video == "s3://bucket/p/team/play/12345678/video"
    assert request.storage is not None
    assert request.storage.endpoint == "http://minio:9000"


def test_trajectories_without_storage_have_no_place(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"need spec\.storage"):
        play.request_of(document(tmp_path, checkpoint="s3://bucket/run", out=True))


class Applied:
    """Stands in for the API server."""

    bodies: list[dict[str, Any]] = []  # noqa: RUF012 - the last instance is not ours to hold

    def apply(self, target: status.Target, body: dict[str, Any]) -> None:
        self.bodies.append({"target": target, **body})

    def read(self, target: status.Target) -> dict[str, Any]:
        return {}


@pytest.fixture
def in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    Applied.bodies = []
    monkeypatch.setattr(status, "KubernetesClient", Applied)
    monkeypatch.setenv("RLTRAINER_NAME", "play")
    monkeypatch.setenv("RLTRAINER_NAMESPACE", "team")
    return Applied.bodies


def test_results_reach_the_rollouts_status(
    trained: Path, in_a_cluster: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert play.main(parser().parse_args(["rollout", str(trained), "--episodes", "2"])) == 0
    body = in_a_cluster[-1]
    assert (body["kind"], body["target"].plural) == ("RLRollout", "rlrollouts")
    results = body["status"]["results"]
    assert results["done"] is True
    assert results["episodes"] == 2
    assert results["rewardMean"] == pytest.approx(np.mean(results["returns"]))
    assert f"mean return {results['rewardMean']:.2f}" in capsys.readouterr().out


def test_the_report_names_the_generation_of_its_document(
    trained: Path, in_a_cluster: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(play.GENERATION, "7")
    assert play.main(parser().parse_args(["rollout", str(trained), "--episodes", "1"])) == 0
    assert in_a_cluster[-1]["status"]["results"]["generation"] == 7


def test_sigterm_ends_a_rollout_without_a_last_report(
    trained: Path, in_a_cluster: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(play, "run", lambda request: os.kill(os.getpid(), signal.SIGTERM))
    assert play.main(parser().parse_args(["rollout", str(trained), "--episodes", "1"])) == 143
    assert in_a_cluster == []
    assert signal.getsignal(signal.SIGTERM) is earlier


def test_what_no_retry_helps_reaches_the_rollouts_status(in_a_cluster: list[dict[str, Any]]) -> None:
    assert play.main(parser().parse_args(["rollout", "/nowhere"])) == 2
    error = in_a_cluster[-1]["status"]["results"]["error"]
    assert error["reason"] == "CheckpointNotFound"
    assert "/nowhere" in error["message"]


def test_what_is_kept_of_an_episode_is_copied(tmp_path: Path) -> None:
    """Of an environment that shows one buffer and paints one frame, again and again."""
    document = experiment(
        env=TOYS + "Goals", envConfig={"goals": [1, 2, 3, 4]}, config=quick(), stop={"training_iteration": 1}
    )
    result = train.run(document, tmp_path / "runs")
    assert result.checkpoint is not None
    trained = policies.load(result.checkpoint)
    frames: list[Any] = []
    episode = rollout.run_episode(trained, trained.source.single("rgb_array"), 0, True, frames)
    assert [int(obs[0]) for obs in episode.obs] == [4, 3, 2, 1]
    assert [int(frame[0, 0, 0]) for frame in frames] == [4, 3, 2]
    list(rollout.run(Request(str(result.folder), episodes=1, out=str(tmp_path / "out"))))
    assert np.load(tmp_path / "out" / "episode_000000.npz")["obs"][:, 0].tolist() == [4, 3, 2, 1]
    identity = json.loads((result.checkpoint / "state.json").read_text())["run"]["spec"]
    assert identity["env_config"] == {"goals": [1, 2, 3, 4]}, "what environments did to their lists is not kept"


def test_an_environment_that_calls_sys_exit_fails_by_its_name(trained: Path) -> None:
    """In a rollout there is nothing between the environment and us; an exit code of 0 would say that all is well."""
    policy = policies.load(max((trained / "checkpoints").iterdir()))
    env: Any = Faulty("exit", at=1)
    env.observation_space, env.reset = (
        policy.source.single().observation_space,
        lambda seed: (np.zeros(4, np.float32), {}),
    )
    env.t = 0
    with pytest.raises(RunError, match=r"it called sys.exit\(0\) \(step 0, seed 5\)"):
        rollout.run_episode(policy, env, 5, True, None)
