"""`rltrainer rollout` and `evaluate`: which checkpoint, in which environment, acting how, and what is shown."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltrainer.cli.evaluate import statistics
from rltrainer.envs.source import EnvSource
from tests.unit.command import Command
from tests.unit.trainer.checkpoints import written, written_run
from tests.unit.trainer.helpers import TOYS
from tests.unit.trainer.toy_envs import Countdown, Step

HERE = "tests.unit.trainer.test_cli_rollout:"


class Shown(Countdown):
    """Notes how it is to be drawn."""

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012 - Gymnasium's
    drawn: list[str | None] = []  # noqa: RUF012 - of all of them

    def __init__(self, render_mode: str | None = None, length: int = 3) -> None:
        super().__init__(length=length)
        self.render_mode = render_mode
        self.drawn.append(render_mode)

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


class Blind(Countdown):
    """Takes a way to be drawn, and draws nothing."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()


class Double(Countdown):
    """Pays twice as much."""

    def step(self, action: Any) -> Step:
        obs, reward, *rest = super().step(action)
        return obs, 2 * reward, *rest


@pytest.fixture
def rltrainer(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def ppo(tmp_path: Path) -> Path:
    return written(tmp_path, "PPO", TOYS + "Countdown")


@pytest.fixture
def dqn(tmp_path: Path) -> Path:
    """Its best actions are always the same, so that whatever else happens was drawn."""
    return written(tmp_path, "DQN", TOYS + "Identity", epsilon_schedule=[[0, 0.0]])


def chosen(said: str) -> str:
    """The checkpoint that a rollout's last line names."""
    return said.splitlines()[-1].partition(" of ")[2].partition(":")[0].rpartition("/")[2]


def test_the_algorithm_is_checked(rltrainer: Command, tmp_path: Path, ppo: Path) -> None:
    assert "1 episodes of" in rltrainer("rollout", ppo, "--run", "PPO", "--episodes", "1")
    said = rltrainer("rollout", ppo, "--run", "DQN", code=2)
    assert f"{ppo} is a policy of PPO, not of DQN" in said
    assert 'unknown algorithm "PPX". Did you mean "PPO"?' in rltrainer("rollout", ppo, "--run", "PPX", code=2)
    apex = written(tmp_path / "apex", "ApexDQN")
    assert "1 episodes of" in rltrainer("rollout", apex, "--run", "APEX", "--episodes", "1"), "RLlib's name of it"
    assert "not of DDPG" in rltrainer("evaluate", apex, "--run", "DDPG", code=2)


def test_another_environment_with_the_same_spaces(rltrainer: Command, ppo: Path) -> None:
    assert "mean return 3.00" in rltrainer("rollout", ppo, "--episodes", "2")
    assert "mean return 6.00" in rltrainer("rollout", ppo, "--episodes", "2", "--env", HERE + "Double")
    assert "return     6.00" in rltrainer("evaluate", ppo, "--episodes", "2", "--env", HERE + "Double")


def test_another_environment_with_other_spaces_is_refused(rltrainer: Command, ppo: Path) -> None:
    said = rltrainer("rollout", ppo, "--env", "CartPole-v1", code=2)
    assert "the policy was trained in tests.unit.trainer.toy_envs:Countdown, whose observation space is Box" in said
    assert "that of CartPole-v1 is Box" in said
    said = rltrainer("rollout", written(ppo.parent, "PPO", "CartPole-v1"), "--env", "nowhere-v1", code=2)
    assert 'environment "nowhere-v1" not found' in said


@pytest.mark.parametrize("command", ["rollout", "evaluate"])
def test_arguments_of_the_environment(rltrainer: Command, ppo: Path, command: str) -> None:
    longer = rltrainer(command, ppo, "--episodes", "1", "--env-config", '{"length": 5}')
    assert "5.00" in longer
    assert longer == rltrainer(command, ppo, "--episodes", "1", "--config", '{"env_config": {"length": 5}}')
    both = (HERE + "Double", '{"length": 7}')
    assert "14.00" in rltrainer(command, ppo, "--episodes", "1", "--env", both[0], "--env-config", both[1])
    assert "unexpected keyword argument 'size'" in rltrainer(command, ppo, "--env-config", '{"size": 5}', code=2)


def test_a_window_is_opened_where_asked(rltrainer: Command, tmp_path: Path) -> None:
    shown = written(tmp_path, "PPO", HERE + "Shown")

    def drawn(*arguments: object) -> set[str | None]:
        Shown.drawn.clear()
        rltrainer("rollout", shown, "--episodes", "2", *arguments)
        return set(Shown.drawn)

    assert drawn() == drawn("--no-render") == {None}
    assert drawn("--render") == {None, "human"}, "None is that of the one whose spaces are looked at"
    assert drawn("--video-dir", tmp_path) == {None, "rgb_array"}
    assert (tmp_path / "episode_000000.mp4").exists()
    said = rltrainer("rollout", shown, "--render", "--video-dir", tmp_path, code=2)
    assert "give --render or --video-dir, not both" in said


def test_an_environment_that_cannot_be_seen(rltrainer: Command, tmp_path: Path) -> None:
    said = rltrainer("rollout", written(tmp_path, "PPO", HERE + "Blind"), "--render", code=2)
    assert "Blind has no render_mode human" in said


def test_a_real_window(rltrainer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert "1 episodes of" in rltrainer("rollout", written(tmp_path, "PPO"), "--render", "--episodes", "1")


def test_options_say_how_actions_explore(rltrainer: Command, dqn: Path) -> None:
    always = ("rollout", dqn, "--episodes", "4")
    best = rltrainer(*always)
    assert rltrainer(*always, "--stochastic") == best, "its epsilon is 0"
    random = rltrainer(*always, "--stochastic", "--config", '{"epsilon_schedule": [[0, 1.0]]}')
    assert random != best
    assert random == rltrainer(*always, "--config", '{"explore": true, "epsilon_schedule": [[0, 1.0]]}')
    assert best == rltrainer(*always, "--config", '{"explore": false}')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--stochastic", "--config", '{"lr": 0.1}'), "--config lr: no action depends on it once a policy is trained"),
        (("--stochastic", "--config", '{"hiddens": [3]}'), "How DQN explores depends on epsilon_schedule, learning_st"),
        (("--config", '{"epsilon_schedule": [[0, 1.0]]}'), "the best actions do not explore. Give --stochastic too"),
        (("--stochastic", "--config", '{"explor": true}'), 'has no option "explor"'),
        (("--stochastic", "--config", '{"epsilon_schedule": 1}'), "epsilon_schedule"),
        (("--stochastic", "--config", '{"explore": false}'), "give --deterministic or --stochastic instead"),
        (("--config", '{"explore": 3}'), "give --deterministic or --stochastic instead"),
        (("--config", '{"a": 1, "a": 2}'), '--config: "a" is given twice'),
        (("--config", '{"a": }'), "--config is not JSON: Expecting value: line 1 column 7 (char 6), in {"),
        (("--env-config", "3"), "--env-config takes a JSON object, and got 3"),
    ],
)
def test_an_option_that_cannot_matter_is_refused(
    rltrainer: Command, dqn: Path, arguments: tuple[str, ...], said: str
) -> None:
    for command in ("rollout", "evaluate"):
        assert said in rltrainer(command, dqn, *arguments, code=2)


def test_an_algorithm_without_such_options_says_so(rltrainer: Command, ppo: Path) -> None:
    said = rltrainer("rollout", ppo, "--stochastic", "--config", '{"clip": 0.1}', code=2)
    assert "--config clip: no action depends on it once a policy is trained. PPO takes none here" in said


@pytest.mark.parametrize(
    ("attribute", "best"),
    [
        ("episode_reward_mean", "checkpoint_000004"),
        ("min-episode_len_mean", "checkpoint_000002"),
        ("evaluation/episode_reward_mean", "checkpoint_000006"),
        ("min-episode_reward_mean", "checkpoint_000006"),
    ],
)
def test_the_best_is_the_best_by_the_runs_own_attribute(
    rltrainer: Command, tmp_path: Path, attribute: str, best: str
) -> None:
    metrics: dict[str, Any] = {
        "episode_reward_mean": (2.0, 3.0, 1.0),
        "episode_len_mean": (4.0, 5.0, 6.0),
        "evaluation__episode_reward_mean": (1.0, 2.0, 3.0),
    }
    run = written_run(tmp_path / "run", attribute, **metrics)
    for arguments in ((run,), (f"{run}/",), (run / "best",), (run, "--which", "best"), (run / "best/",)):
        assert chosen(rltrainer("rollout", *arguments, "--episodes", "1")) == best
    for arguments in ((run / "latest",), (run, "--which", "latest")):
        assert chosen(rltrainer("rollout", *arguments, "--episodes", "1")) == "checkpoint_000006"
    one = run / "checkpoints" / "checkpoint_000002"
    assert chosen(rltrainer("rollout", one, "--episodes", "1")) == one.name


def test_a_run_may_be_called_best(rltrainer: Command, tmp_path: Path) -> None:
    run = written_run(tmp_path / "best", episode_reward_mean=(1.0, 2.0, 0.0))
    assert chosen(rltrainer("rollout", run, "--episodes", "1", "--which", "latest")) == "checkpoint_000006"
    assert chosen(rltrainer("rollout", run / "best", "--episodes", "1")) == "checkpoint_000004"


def test_of_a_search_the_best_trial_is_taken(rltrainer: Command, tmp_path: Path) -> None:
    for name, env in (("search_00000", "Countdown"), ("search_00001", "Faulty")):
        written_run(tmp_path / name, env=TOYS + env, episode_reward_mean=(1.0, 2.0, 3.0))
    trials = [{"name": f"search_0000{i}", "number": i} for i in range(2)]
    (tmp_path / "search.json").write_text(json.dumps({"trials": trials, "best": "search_00000"}))
    said = rltrainer("rollout", tmp_path, "--episodes", "1")
    assert f"{tmp_path}/search_00000/checkpoints/checkpoint_000006: mean return 3.00" in said
    assert "search_00000" in rltrainer("evaluate", tmp_path / "latest", "--episodes", "1")
    (tmp_path / "search.json").write_text(json.dumps({"trials": trials, "best": None}))
    assert "no trial of the search in" in rltrainer("rollout", tmp_path, code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--episodes", "0"), "argument --episodes: must be a whole number of 1 or more, not 0"),
        (("--steps", "x"), "argument --steps: must be a whole number of 1 or more, not x"),
        (("--seed", "-1"), "argument --seed: must be a whole number of 0 or more, not -1"),
        (("--endpoint", "http://x"), "--endpoint and --region mean something only with an s3:// URI"),
        (("-n", "team"), "--namespace means something only with the name of an RLExperiment"),
        (("-f", "examples/cartpole-rollout.yaml"), "says where the checkpoint is: leave out checkpoint"),
    ],
)
def test_what_could_not_be_obeyed_is_refused(
    rltrainer: Command, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in rltrainer("rollout", tmp_path, *arguments, code=2)


def test_steps_seed_and_trajectories(rltrainer: Command, tmp_path: Path, ppo: Path) -> None:
    said = rltrainer("rollout", ppo, "--episodes", "9", "--steps", "4", "--seed", "5", "--out", tmp_path / "out")
    assert [line.split()[-1] for line in said.splitlines()[:-1]] == ["5", "6"], "the second one ends after 6 steps"
    with np.load(tmp_path / "out" / "episode_000001.npz") as kept:
        assert kept["rewards"].tolist() == [1.0, 1.0, 1.0]


def test_an_evaluation_tells_the_statistics_of_its_episodes(rltrainer: Command, dqn: Path) -> None:
    given = ("evaluate", dqn, "--stochastic", "--config", '{"epsilon_schedule": [[0, 1.0]]}', "--json")
    found = json.loads(rltrainer(*given, "--episodes", "40", "--seed", "3"))
    assert (found["run"], found["env"], found["deterministic"], found["seed"]) == ("DQN", TOYS + "Identity", False, 3)
    returns = found["returns"]
    assert (len(returns), found["episodes"], found["timesteps"], found["lengths"]) == (40, 40, 400, [10] * 40)
    assert found["episode_reward_mean"] == pytest.approx(sum(returns) / 40)
    deviation = math.sqrt(sum((each - sum(returns) / 40) ** 2 for each in returns) / 39)
    assert found["episode_reward_stderr"] == pytest.approx(deviation / math.sqrt(40))
    assert (found["episode_reward_min"], found["episode_reward_max"]) == (min(returns), max(returns))
    assert found == json.loads(rltrainer(*given, "--episodes", "40", "--seed", "3"))
    other = json.loads(rltrainer(*given, "--episodes", "40", "--seed", "4"))
    assert other["returns"] != returns
    assert len(json.loads(rltrainer(*given))["returns"]) == 100


def test_quantiles_and_one_episode() -> None:
    found = statistics([float(i) for i in range(101)], [1] * 101)
    assert found["episode_reward_quantiles"] == {"0.05": 5, "0.25": 25, "0.5": 50, "0.75": 75, "0.95": 95}
    assert statistics([1.0], [1])["episode_reward_stderr"] is None


def test_an_evaluation_in_words(rltrainer: Command, ppo: Path) -> None:
    assert rltrainer("evaluate", ppo, "--episodes", "2").splitlines() == [
        str(ppo),
        f"PPO on {TOYS}Countdown, 2 episodes, best actions, seed 0",
        "return     3.00 ± 0.00",
        "           min 3.00  5% 3.00  25% 3.00  50% 3.00  75% 3.00  95% 3.00  max 3.00",
        "length     3.0",
    ]
    assert "return     3.00\n" in rltrainer("evaluate", ppo, "--episodes", "1")


def test_atari_is_judged_by_whole_games() -> None:
    source = EnvSource("ALE/Pong-v5", {"stack_num": 2, "episodic_life": True})
    assert source.for_evaluation().config == {"stack_num": 2, "episodic_life": False, "reward_clipping": False}
    plain = EnvSource("CartPole-v1")
    assert plain.for_evaluation() is plain
