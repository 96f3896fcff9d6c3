"""`import rltrainer as rl`: what Python trains and loads is what the commands train and load."""

import ast
import inspect
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

import rltrainer as rl
from hack import stubs
from rltrainer.api.options import OPTIONS
from rltrainer.cli import parser
from rltrainer.cli.document import jobs
from rltrainer.envs import given_envs
from rltrainer.envs.source import EnvSource
from rltrainer.library import training
from tests.unit.trainer.checkpoints import written, written_run
from tests.unit.trainer.helpers import TASKS, TOYS, quick
from tests.unit.trainer.toy_envs import Countdown

ROOT = Path(__file__).parents[3]
TRAINED: dict[str, Any] = {"stop": {"training_iteration": 3}, **quick()}


def train(place: Path, env: Any = TOYS + "Countdown", algorithm: Any = "PPO", **more: Any) -> rl.Result:
    return rl.train(algorithm, env, local_dir=place, **{**TRAINED, **more})


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> rl.Result:
    return train(tmp_path_factory.mktemp("cartpole"), "CartPole-v1", lr=0.01, lambda_=0.9)


# ---- What there is


def test_the_package_shows_its_names_and_loads_nothing_for_it() -> None:
    code = "import sys, rltrainer as rl; assert {'train', 'load', 'Policy'} <= set(dir(rl)); "
    code += "print([name for name in ('torch', 'ray', 'numpy', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    for name in rl.PUBLIC:
        assert getattr(rl, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        rl.trian  # type: ignore[attr-defined]  # noqa: B018


def test_the_stub_has_what_the_function_takes() -> None:
    """What mypy knows is written from the models; here it is held against the function that runs."""
    classes = {each.name: each for each in ast.parse(stubs.stub()).body if isinstance(each, ast.ClassDef)}

    def names(name: str) -> set[str]:
        return {each.target.id for each in classes[name].body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]

    parameters = inspect.signature(training.train).parameters.values()
    assert names("_Run") == {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    for name, options in OPTIONS.items():
        assert names(f"_{name}") | names("_Options") == set(options.model_fields)
        assert not set(options.model_fields) & {each.name for each in parameters}, "an option would be taken for ours"


TYPED = """\
import rltrainer as rl
run = rl.train("PPO", "CartPole-v1", lr=3e-4, lambda_=0.9, stop={"timesteps_total": 100}, name="a")
rl.train("SAC", dict, initial_alpha=0.1, evaluation={"episodes": 3})
rl.train(rl.Experiment.from_yaml("a.yaml"), resume=True)
policy = rl.load(run, "latest")
mean: float = policy.evaluate(episodes=3).mean
rl.train("PPO", "CartPole-v1", learning_rate=3)  # error
rl.train("PPO", "CartPole-v1", lr="fast")  # error
rl.train("PPO", "CartPole-v1", buffer_size=3)  # error
rl.train("PPO", "CartPole-v1", stop={"reward": 3})  # error
"""


def test_mypy_checks_options_where_they_are_written(tmp_path: Path) -> None:
    """By the stub alone: what it imports is not read here."""
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "rltrainer").mkdir()
    (tmp_path / "rltrainer" / "__init__.pyi").write_text((ROOT / "rltrainer" / "__init__.pyi").read_text())
    program = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        "--no-site-packages",
        "--ignore-missing-imports",
        "typed.py",
    ]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    expected = {number for number, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# error")}
    assert found == expected, done.stdout


# ---- Training


def test_a_run_is_the_one_of_the_command_line(cartpole: rl.Result) -> None:
    arguments = ["--run", "PPO", "--env", "CartPole-v1", "--config", '{"lr": 0.01, "lambda": 0.9}']
    (job,) = jobs(parser().parse_args(["train", *arguments]))
    named = {"env_config": {}, "name": None, "options": {"lr": 0.01, "lambda_": 0.9}}
    mine = training.experiment_of("PPO", "CartPole-v1", sections={}, **named)  # type: ignore[arg-type]
    assert mine.model_dump() == job.experiment.model_dump()
    assert cartpole.folder.name == "ppo-cartpole-v1"
    assert cartpole.stopped_by == "training_iteration >= 3"
    assert cartpole.checkpoint is not None
    assert cartpole.checkpoint.name == "checkpoint_000003"


def test_results_are_a_table(cartpole: rl.Result) -> None:
    table = cartpole.results
    assert list(table["training_iteration"]) == [1, 2, 3]
    assert "info/learner/entropy" in table.columns
    assert rl.results(cartpole.folder).equals(table)
    with pytest.raises(rl.RunError, match="there are no results in"):
        rl.results(cartpole.folder.parent)


def test_without_pandas_it_says_what_to_install(cartpole: rl.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(rl.RunError, match="need pandas: pip install pandas"):
        rl.results(cartpole)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": 1}, rl.DocumentError, 'PPO has no option "learning_rate" .* Did you mean "lr"'),
        ({"gamma": 2}, rl.DocumentError, "gamma: Input should be less than or equal to 1, got 2"),
        ({"stop": {"reward": 3}}, rl.DocumentError, "spec.stop.reward: there is no such field"),
        ({"algorithm": "PP0"}, rl.DocumentError, 'unknown algorithm "PP0". Did you mean "PPO"'),
        ({"name": "My run"}, rl.DocumentError, "metadata.name: String should match"),
        ({"env": None}, TypeError, "needs an environment"),
        ({"env": 3}, TypeError, "takes a name, a class or a function"),
        ({"env": gym.make("CartPole-v1")}, TypeError, 'give its name, "CartPole-v1", its class, or a function'),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path, **{"env": "CartPole-v1", **arguments})
    assert not list(tmp_path.iterdir())


def test_a_document_is_refused_where_it_is_written() -> None:
    spec = {"run": "PPO", "env": "CartPole-v1", "config": {"learning_rate": 1}}
    with pytest.raises(ValueError, match='PPO has no option "learning_rate"'):
        rl.Experiment.model_validate({"metadata": {"name": "x"}, "spec": spec})


def test_a_document_is_trained_as_it_is(tmp_path: Path) -> None:
    spec = {"run": "PPO", "env": TOYS + "Countdown", "config": quick(), "stop": {"training_iteration": 1}}
    document = rl.Experiment.parse({"metadata": {"name": "mine"}, "spec": spec})
    assert rl.train(document, local_dir=tmp_path).folder == tmp_path / "mine"
    with pytest.raises(TypeError, match="takes nothing that the document says"):
        rl.train(document, stop={"training_iteration": 2})
    search = rl.Experiment.parse({"metadata": {"name": "mine"}, "spec": {**spec, "tune": {}}})
    with pytest.raises(rl.DocumentError, match=r"rltrainer\.tune\.run"):
        rl.train(search)


def test_runs_of_one_name_stay_where_they_are(tmp_path: Path) -> None:
    runs = [train(tmp_path, name="mine", stop={"training_iteration": 1}) for _ in range(3)]
    assert [run.folder.name for run in runs] == ["mine", "mine-2", "mine-3"]
    assert all(run.checkpoint is not None and run.checkpoint.exists() for run in runs)
    again = train(tmp_path, name="mine", resume=True, stop={"training_iteration": 2})
    assert (again.folder, again.row["training_iteration"]) == (runs[0].folder, 2)
    with pytest.raises(rl.RunError, match=r"there is no run in .*other to resume"):
        train(tmp_path, name="other", resume=True)


def test_a_run_starts_from_another(tmp_path: Path, cartpole: rl.Result) -> None:
    run = train(tmp_path, "CartPole-v1", restore=cartpole, stop={"training_iteration": 1})
    assert f"restored from {cartpole.folder}" in (run.folder / "train.log").read_text()


class Unseen(Countdown):
    """Takes a way to be drawn, and draws nothing."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()

    def render(self) -> None:
        """Nothing."""


class Interrupting(Countdown):
    """Sends Ctrl-C in its 100th step, and a second one where it is told to."""

    steps = 0

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.twice = twice

    def step(self, action: Any) -> Any:
        Interrupting.steps += 1
        if Interrupting.steps == 100:
            for _ in range(1 + self.twice):
                os.kill(os.getpid(), signal.SIGINT)
        return super().step(action)


def test_ctrl_c_is_a_keyboard_interrupt_after_which_the_same_call_goes_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    Interrupting.steps = 0
    settings: dict[str, Any] = {"vector_env": "sync", "stop": {"training_iteration": 20}}
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        train(tmp_path, Interrupting, **settings)
    assert signal.getsignal(signal.SIGINT) is before
    run = train(tmp_path, Interrupting, **settings)
    assert "restored from" in (run.folder / "train.log").read_text()
    assert list(run.results["training_iteration"]) == list(range(1, 21))
    Interrupting.steps = 0
    with pytest.raises(KeyboardInterrupt, match="ended at once"):
        train(tmp_path, Interrupting, env_config={"twice": True}, **settings)


def test_it_trains_beside_the_main_thread(tmp_path: Path) -> None:
    runs: list[rl.Result] = []
    thread = threading.Thread(target=lambda: runs.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert runs[0].row["training_iteration"] == 3


# ---- Environments that are handed over


def test_an_environment_is_a_class_a_function_or_a_name(tmp_path: Path) -> None:
    class Local(Countdown):
        """Known to this test alone."""

    def make(length: int) -> gym.Env[Any, Any]:
        return Local(length=length)

    assert given_envs.name_of(Countdown) == "tests.unit.trainer.toy_envs:Countdown"
    assert given_envs.name_of(Local) == given_envs.name_of(Local) == f"{__name__}:{Local.__qualname__}"
    for env, config, length in ((Countdown, {"length": 4}, 4), (Local, {}, 3), (make, {"length": 5}, 5)):
        run = train(tmp_path, env, env_config=config)
        assert run.row["episode_len_mean"] == length
        assert rl.load(run).evaluate(episodes=2).lengths == [length] * 2


def test_other_functions_of_one_name_have_other_names() -> None:
    def making(length: int) -> given_envs.MakeEnv:
        return lambda: Countdown(length=length)

    one, two = making(2), making(3)
    assert given_envs.name_of(one) != given_envs.name_of(two)
    assert EnvSource(given_envs.name_of(two)).single().unwrapped.length == 3  # type: ignore[attr-defined]


def test_environments_of_this_process_are_sent_to_others(tmp_path: Path) -> None:
    """Those of Ray's workers: test_ray.py."""
    more: dict[str, Any] = {"vector_env": "subprocess", "num_envs_per_worker": 2}
    run = train(tmp_path, lambda: Countdown(length=6), stop={"training_iteration": 1}, **more)
    assert run.row["episode_len_mean"] == 6


def test_what_cannot_be_sent_is_refused_where_it_must_be(tmp_path: Path) -> None:
    lock = threading.Lock()

    def make() -> gym.Env[Any, Any]:
        with lock:
            return Countdown()

    with pytest.raises(rl.DocumentError, match=r"num_workers has environments in other processes, .* cannot be sent"):
        train(tmp_path, make, num_workers=1)
    assert train(tmp_path, make, vector_env="sync").stopped_by


def test_what_only_another_process_knew_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tmp_path, lambda: Countdown(length=6))
    monkeypatch.setattr(given_envs, "_given", {})
    with pytest.raises(rl.RunError, match="In Python, give it again, as env"):
        rl.load(run)
    assert rl.load(run, env=lambda: Countdown(length=2)).evaluate(episodes=1).lengths == [2]


# ---- Policies


def test_which_of_a_runs_checkpoints_is_loaded(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run", episode_reward_mean=(2.0, 3.0, 1.0))
    assert rl.load(run).checkpoint.endswith("checkpoint_000004")
    assert rl.load(run, "latest").checkpoint.endswith("checkpoint_000006")
    assert rl.load(str(run / "latest")).checkpoint.endswith("checkpoint_000006")
    with pytest.raises(ValueError, match="which is best or latest, not newest"):
        rl.load(run, "newest")
    with pytest.raises(rl.RunError, match="there is no checkpoint in"):
        rl.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="only with an s3:// URI"):
        rl.load(run, endpoint="http://localhost:9000")


def test_actions_are_as_the_environment_takes_them(tmp_path: Path) -> None:
    """Pendulum's torque is in [-2, 2], and SAC's networks put out [-1, 1]."""
    policy = rl.load(written(tmp_path, "SAC", "Pendulum-v1"))
    obs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32) * 3
    actions = policy.predict(obs)
    assert actions.shape == (64, 1)
    assert np.abs(actions).max() > 1
    assert PendulumEnv().action_space.contains(policy.predict(obs[0]))
    np.testing.assert_allclose(policy.predict(obs[0]), actions[0], rtol=1e-5)
    inside = policy.trained.act(obs[0], policy.trained.context(0), True)
    np.testing.assert_allclose(policy.predict(obs[0]), 2 * inside, rtol=1e-5)


def test_a_policy_plays_its_environment(cartpole: rl.Result) -> None:
    policy = rl.load(cartpole)
    env = CartPoleEnv()
    obs, _ = env.reset(seed=0)
    assert env.action_space.contains(policy.predict(obs))
    assert policy.predict(list(obs)) == policy.predict(obs)
    drawn = {int(policy.predict(obs, deterministic=False)) for _ in range(50)}
    assert drawn == {0, 1}
    policy.reset(seed=3)
    first = [policy.predict(obs, deterministic=False) for _ in range(20)]
    policy.reset(seed=3)
    assert first == [policy.predict(obs, deterministic=False) for _ in range(20)]
    with pytest.raises(ValueError, match=r"has shape \(4,\), and several \(B, 4,\): this is \(3,\)"):
        policy.predict([0, 0, 0])
    assert "PPO policy in CartPole-v1" in repr(policy)


def test_observations_of_several_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    policy = rl.load(written(tmp_path, "PPO", TOYS + "Parts"))
    env = EnvSource(TOYS + "Parts").kind.single({})
    assert env is not None
    obs, _ = env.reset(seed=0)
    assert env.action_space.contains(policy.predict(obs))


def test_a_recurrent_policy_remembers_until_it_is_reset(tmp_path: Path) -> None:
    policy = rl.load(written(tmp_path, "PPO", TASKS + "Recall", recurrent="lstm"))
    size = policy.trained.spaces.observations.shape or ()
    policy.predict(np.ones(size))
    states = [{name: value.clone() for name, value in policy._context.state.items()}]  # type: ignore[union-attr]
    assert any(bool(value.any()) for value in states[0].values())
    policy.reset()
    assert not any(bool(value.any()) for value in policy._context.state.values())  # type: ignore[union-attr]


def test_an_evaluation_is_that_of_the_command(cartpole: rl.Result) -> None:
    found = rl.load(cartpole).evaluate(episodes=5, seed=3)
    assert found.returns == [float(length) for length in found.lengths], "CartPole pays 1 a step"
    assert found.mean == pytest.approx(sum(found.returns) / 5)
    assert found.stderr == pytest.approx(np.std(found.returns, ddof=1) / 5**0.5)
    assert str(found).endswith("of 5 episodes")
    from rltrainer.runs.rollout import evaluate

    assert evaluate(str(cartpole.folder), episodes=5, seed=3).returns == found.returns


def test_a_video_is_written(cartpole: rl.Result, tmp_path: Path) -> None:
    policy = rl.load(cartpole)
    one, two = (policy.video(tmp_path / f"new/{n}.mp4", episodes=n) for n in (1, 2))
    assert one.stat().st_size > 1000
    assert two.stat().st_size > one.stat().st_size
    with pytest.raises(ValueError, match=r"a video is an \.mp4 file"):
        policy.video(tmp_path / "x.gif")
    with pytest.raises(rl.RunError, match="has no render_mode rgb_array"):
        rl.load(written(tmp_path, "PPO", f"{__name__}:Unseen")).video(tmp_path / "x.mp4")
