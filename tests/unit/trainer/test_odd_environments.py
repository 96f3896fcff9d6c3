"""A hundred odd environments: each trains, or is refused in a sentence that names it."""

import contextlib
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rltrainer import algorithms, errors
from rltrainer.backend.base import make_learner, start_worker
from rltrainer.backend.serial import SerialBackend
from rltrainer.envs import observations
from rltrainer.envs.env_worker import EnvWorker
from rltrainer.envs.source import EnvSource
from rltrainer.errors import CtrlC, RunError, end_process, guarded_exit
from rltrainer.ops.action_spaces import squashed_action_distribution
from rltrainer.runs import build
from rltrainer.sampling import checks
from rltrainer.sampling.worker import Worker
from tests.unit.command import Command
from tests.unit.trainer.helpers import experiment, nothing, small, worker_config
from tests.unit.trainer.odd_envs import CASES, HUGE, Orderly

ODD = "tests.unit.trainer.odd_envs:"


@pytest.fixture(autouse=True)
def ours_for_sigint() -> Any:
    """As while a run is under way: SIGINT has a handler of ours."""
    earlier = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, earlier)


def outcome(env: str, run: str = "PPO", env_config: dict[str, Any] | None = None, **config: Any) -> str:
    """Trains in it for two iterations and saves its state; how that ended, in words."""
    options = small(run, hiddens=[4], num_envs_per_worker=2, vector_env="sync", **config)
    spec = experiment(env=env, run=run, env_config=env_config or {}, config=options).spec
    try:
        plan = replace(build.worker_config(spec), seed=7)
        backend = SerialBackend(plan, nothing)
        iterations = plan.algorithm.strategy(backend, plan.options, 0)
        next(iterations)
        next(iterations)
        backend.state(workers=True)
        backend.close()
    except RunError as error:
        return error.message
    return ""


@pytest.mark.filterwarnings("ignore:.*Casting input x", "ignore:Initializing zero-element")
@pytest.mark.parametrize("name", CASES)
def test_each_trains_or_is_refused_in_a_sentence(name: str) -> None:
    right = CASES[name][1]
    message = outcome(ODD + "make", env_config={"case": name})
    assert right in message if right else not message
    if right and "space" not in right.split(" is ")[0] and right != "has no elements":
        assert f"environment {ODD}make" in message


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


def test_a_failure_shows_the_environments_own_frames_and_no_others() -> None:
    message = outcome(ODD + "make", env_config={"case": "raises"})
    first, *frames = message.splitlines()
    assert first.startswith(f"environment {ODD}make: ValueError: broken (")
    assert "worker 0, step 2, seed " in first
    assert first.endswith(" of environment 0)")
    assert "odd_envs.py" in frames[0]
    assert frames[0].endswith("in step")
    assert "raise error" in frames[1]
    assert not any("rltrainer/" in line or "gymnasium/" in line for line in frames)


@pytest.mark.parametrize("how", ["sync", "subprocess"])
@pytest.mark.parametrize("name", ["exits", "interrupts", "panics", "speechless", "choice_later", "state_raises"])
def test_processes_say_the_same_as_one_by_one(name: str, how: str) -> None:
    plan = worker_config(
        ODD + "make", env_config={"case": name}, rollout_fragment_length=6, num_envs_per_worker=1, vector_env=how
    )
    worker = Worker(plan, 0)
    with pytest.raises(RunError) as caught:
        worker.sample(make_learner(plan).weights(0))
        worker.state()
    worker.close()
    assert CASES[name][1] in caught.value.message
    assert ("odd_envs.py" in caught.value.message) == (name != "choice_later")


def test_native_code_that_crashes_a_process_is_named_by_its_signal() -> None:
    plan = worker_config(ODD + "Crashes", num_envs_per_worker=2, vector_env="subprocess")
    worker = Worker(plan, 0)
    with pytest.raises(RunError, match=r"the process of environment \d was ended by SIGSEGV.*worker 0, step 0, seed"):
        worker.sample(make_learner(plan).weights(0))
    worker.close()


@pytest.mark.parametrize("how", ["sync", "subprocess"])
def test_an_environment_that_cannot_be_closed_says_so_and_harms_no_run(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    plan = worker_config(ODD + "make", env_config={"case": "close_raises"}, num_envs_per_worker=2, vector_env=how)
    caplog.clear()
    worker = Worker(plan, 3)
    worker.close()
    (record,) = caplog.records
    message = record.getMessage()
    assert (
        f"environment {ODD}make failed in close(): RuntimeError: the server is gone (worker 3, step 0, seed" in message
    )
    assert "odd_envs.py" in message


def test_an_environment_that_cannot_take_its_state_back_is_named() -> None:
    plan = worker_config(ODD + "ForgetsState", num_envs_per_worker=2, rollout_fragment_length=4)
    state = Worker(plan, 1).state()
    with pytest.raises(RunError, match=r"ForgetsState failed in load_state_dict\(\): KeyError: 'u' \(worker 1"):
        start_worker(plan, 1, state, 0)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ("floats", "of float64, where its space says int64 (worker 0, step 1"),
        ("bytes", "observation of environment 1 is [0, 300], which is not in Box"),
        ("choice", "observation of environment 1 is 3, which is not in Discrete(3) (worker 0, step 1"),
        ("part", "observation.n is"),
        ("part_choice", "observation.d of environment 1 is -1, which is not in Discrete(5)"),
        ("exit", "it called sys.exit(0) (worker 0, step 1"),
    ],
)
def test_a_vector_of_ones_own_is_held_to_the_same(shown: str, message: str) -> None:
    assert message in outcome(ODD + "OwnVector", env_config={"shown": shown})


@pytest.mark.parametrize("raises", ["sys.exit()", "raise KeyboardInterrupt", "raise BaseException('panic')"])
def test_a_module_that_ends_the_program_is_a_module_that_fails(
    raises: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ending.py").write_text(f"import sys\n{raises}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="environment ending:Env failed in importing ending") as caught:
        EnvSource("ending:Env").spaces()
    assert "ending.py" in caught.value.message
    with pytest.raises(RunError, match="run: ending:ALGORITHM cannot be imported"):
        algorithms.load("ending:ALGORITHM")


@pytest.mark.parametrize("error", [CtrlC(), KeyboardInterrupt()])
def test_a_ctrl_c_is_nobodys_failure(error: BaseException) -> None:
    """Where SIGINT is Python's own, and where a command has made it its own."""
    if not isinstance(error, CtrlC):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    env = EnvWorker(type("Stopped", (Orderly,), {"step": lambda *_: (_ for _ in ()).throw(error)})())
    env.reset(seed=0)
    with pytest.raises(KeyboardInterrupt):
        env.step(0)


@pytest.mark.parametrize("name", ["exits", "interrupts", "made_with_exit"])
def test_no_exit_code_is_the_environments(
    name: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = 2 if name == "made_with_exit" else 1
    run = ("train", "--run", "PPO", "--env", ODD + name, "--stop", '{"training_iteration": 1}')
    said = command(*run, "--config", '{"vector_env": "sync", "num_envs_per_worker": 2}', code=code)
    assert CASES[name][1] in said


class Ends(Orderly):
    """Ends its process."""

    def step(self, action: Any) -> Any:
        os._exit(0)


def test_ending_the_process_is_an_environments_failure_too(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found at the exit that it asks for, and the command ends by an exit code of its own."""
    monkeypatch.chdir(tmp_path)
    run = ("train", "--run", "PPO", "--env", f"{__name__}:Ends", "--stop", '{"training_iteration": 1}')
    said = command(*run, "--config", '{"vector_env": "sync", "num_envs_per_worker": 2}', code=1)
    assert "it called os._exit(0) (worker 0, step 0, seed" in said
    assert "in step" in said
    assert "errors.py" not in said
    assert os._exit is end_process


def test_forks_end_as_they_ask_for_and_threads_by_an_exit_code_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []

    def end() -> None:
        with contextlib.suppress(SystemExit):
            os._exit(0)

    with guarded_exit():
        if not (fork := os.fork()):
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 7
        monkeypatch.setattr(errors, "end_process", codes.append)
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
    assert codes == [1]
    assert "os._exit(0) in a thread" in capsys.readouterr().err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def warnings_of(
    case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, **config: Any
) -> list[str]:
    monkeypatch.setattr(observations, "_warned", set())
    with caplog.at_level(logging.WARNING):
        assert not outcome(ODD + "make", env_config={"case": case}, **config)
    return [record.getMessage() for record in caplog.records]


def test_observations_out_of_their_bounds_are_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = warnings_of("out_of_bounds", caplog, monkeypatch)
    assert "observation[1] is out of the bounds of its space: 7, where that says -1 to 1" in message


def test_episodes_that_never_end_are_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "ENDLESS", 10)
    (message,) = warnings_of("never_ends", caplog, monkeypatch)
    assert "no episode has ended in 10 steps of each environment" in message
    caplog.clear()
    assert warnings_of("takes_discrete_start", caplog, monkeypatch) == []


@pytest.mark.parametrize("run", ["SAC", "TD3", "DDPG"])
@pytest.mark.parametrize("name", ["takes_box_huge", "takes_box_infinite", "takes_box_half_infinite", "takes_nothing"])
def test_actions_are_scaled_to_bounds_that_are_bounds(run: str, name: str) -> None:
    assert "the action space" in outcome(ODD + "make", run, {"case": name})


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float32, HUGE), (np.float32, 1e30), (np.float16, 65504), (np.float64, 1e300)]
)
def test_bounds_that_are_infinite_in_all_but_name_are_refused(dtype: Any, bound: float) -> None:
    with pytest.raises(RunError, match="infinite in all but name") as caught:
        squashed_action_distribution(spaces.Box(dtype(-bound), dtype(bound), (2,), dtype))
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("dtype", "low", "high", "middle"),
    [
        (np.float16, -60000, 60000, 0),
        (np.float16, 20000, 60000, 40000),  # the sum of these is beyond half precision
        (np.float32, 1e17, 3e17, 2e17),
        (np.float32, 16777214, 16777216, 16777215),  # so is the fraction of this sum beyond single precision
        (np.float64, -2, 5, 1.5),
    ],
)
def test_actions_reach_from_bound_to_bound(dtype: Any, low: float, high: float, middle: float) -> None:
    space = spaces.Box(dtype(low), dtype(high), (1,), dtype)
    action = squashed_action_distribution(space).to_env(np.array([[-1], [0], [1]], np.float32))
    assert action.dtype == dtype
    assert action[:, 0].tolist() == [dtype(low), dtype(middle), dtype(high)]
    assert all(space.contains(each) for each in action)
