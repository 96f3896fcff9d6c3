"""Environments: found by name, made as vectors one way or the other, and the packages that bring them."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rltrainer.backend.base import make_learner
from rltrainer.envs import vectorize
from rltrainer.envs.layout import layout
from rltrainer.envs.source import EnvSource
from rltrainer.envs.vectorize import SerialVectorEnv, SubprocessVectorEnv, faster_mode, mode_for
from rltrainer.errors import RunError, install
from rltrainer.sampling.worker import Worker
from tests.unit.trainer.helpers import TOYS, worker_config
from tests.unit.trainer.toy_envs import Corridor, Countdown, Faulty, Parts


@pytest.mark.parametrize(
    ("name", "config", "reason", "message"),
    [
        ("CartPol-v1", {}, "EnvironmentNotFound", "Did you mean: `CartPole`"),
        ("CartPole-v77", {}, "EnvironmentNotFound", "v77"),
        ("no_such_package.envs:Maze", {}, "EnvironmentNotFound", "there is no module no_such_package"),
        (TOYS + "Maze", {}, "EnvironmentNotFound", "has no Maze"),
        (TOYS + "NoStart", {}, "EnvironmentFailed", "the simulator's license has expired"),
        ("Pendulum-v1", {"gravity": 1}, "EnvironmentFailed", "gravity"),
    ],
)
def test_an_environment_that_cannot_be_had_is_permanent(
    name: str, config: dict[str, Any], reason: str, message: str
) -> None:
    with pytest.raises(RunError) as caught:
        EnvSource(name, config).spaces()
    assert caught.value.reason == reason
    assert message in caught.value.message
    assert name in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "modules", "extra"),
    [
        ("ALE/Pong-v5", ["ale_py"], "atari"),
        ("MinAtar/Breakout-v1", ["minatar", "minatar.gym"], "minatar"),
        ("LunarLander-v3", ["Box2D"], "box2d"),
        ("HalfCheetah-v5", ["mujoco"], "mujoco"),
        ("envpool:Pong-v5", ["envpool"], "envpool"),
    ],
)
def test_a_package_that_is_missing_is_named_by_its_extra(
    name: str, modules: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [each for each in sys.modules if each.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, loaded)
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunError) as caught:
        EnvSource(name).spaces()
    assert caught.value.message == (f'environment "{name}" needs a package that is not installed: {install(extra)}')
    assert caught.value.reason == "EnvironmentNotFound"
    assert caught.value.exit_code == 2


def test_an_id_may_name_the_module_that_registers_it() -> None:
    gymnasium.register("Counting-v0", TOYS + "Countdown", kwargs={"length": 5})
    try:
        envs = EnvSource(TOYS + "Counting-v0", {"end": "terminated"}).vector(2)
        assert isinstance(envs, SerialVectorEnv)
        assert envs.get_attr("length") == (5, 5)
    finally:
        del gymnasium.registry["Counting-v0"]


def test_what_a_script_registers_is_known_in_other_processes() -> None:
    gymnasium.register("Counting-v0", TOYS + "Countdown", kwargs={"length": 5})
    try:
        envs = EnvSource("Counting-v0").vector(2, "subprocess")
    finally:
        del gymnasium.registry["Counting-v0"]
    assert envs.get_attr("length") == (5, 5)  # type: ignore[attr-defined]
    envs.close()


@pytest.mark.parametrize("how", ["auto", "sync", "subprocess"])
def test_an_environments_own_vector_comes_first(how: vectorize.VectorMode) -> None:
    assert type(EnvSource("CartPole-v1").vector(2, how)).__name__ == "CartPoleVectorEnv"
    assert type(EnvSource(__name__ + ":Own").vector(2, how)) is SyncVectorEnv


class Own(VectorEnv[Any, Any, Any]):
    """A vector of one's own, here of observations of several parts if `parts`."""

    def __new__(cls, num_envs: int, parts: bool = False) -> Any:
        return SyncVectorEnv([Parts if parts else Countdown] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


def test_one_environment_is_had_from_a_vector_of_ones_own() -> None:
    env = EnvSource(__name__ + ":Own").single()
    assert env.reset(seed=0)[0].tolist() == [0.0]
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    assert [(obs.tolist(), *rest[:3]) for obs, *rest in steps] == [
        ([1.0], 1.0, False, False),
        ([2.0], 1.0, False, False),
        ([3.0], 1.0, False, True),
    ]
    assert env.reset()[0].tolist() == [0.0]


@pytest.mark.parametrize("name", [TOYS + "Parts", __name__ + ":Own"])
def test_observations_of_several_parts_become_one_vector(name: str) -> None:
    config = {"parts": True} if name.endswith("Own") else {}
    env_spaces = EnvSource(name, config).spaces()
    assert env_spaces.observations.shape == (2 + 4 + 3,)
    assert env_spaces.structure == Parts().observation_space
    assert EnvSource("CartPole-v1").spaces().structure is None
    envs = EnvSource(name, config).vector(3)
    assert envs.reset(seed=0)[0].shape == (3, 9)
    one = EnvSource(name, config).single()
    assert one.observation_space == env_spaces.observations
    assert one.reset(seed=0)[0].shape == (9,)


@pytest.mark.parametrize("own_vector", [False, True])
def test_an_image_of_bytes_beside_one_hot_vectors_and_bits_stays_bytes(own_vector: bool) -> None:
    envs = EnvSource(__name__ + ":OwnCorridor" if own_vector else TOYS + "Corridor").vector(2)
    obs, _ = envs.reset(seed=0)
    assert envs.single_observation_space.dtype == obs.dtype == np.uint8
    assert obs.shape == (2, 84 * 84 * 4 + 4 + 2)
    by_path = {part.path: obs[:, part.elements].tolist() for part in layout(Corridor.observation_space)}
    assert by_path["heading",] == [[0, 0, 1, 0]] * 2
    assert by_path["switches",] == [[0, 1]] * 2
    assert np.unique(by_path["image",]).tolist() == [200]


class OwnCorridor(VectorEnv[Any, Any, Any]):
    """A vector of one's own of corridors."""

    def __new__(cls, num_envs: int) -> Any:
        return SyncVectorEnv([Corridor] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize(
    ("step", "num_envs", "cpus", "expected"),
    [
        (10e-6, 8, 16, "sync"),  # the pipes cost more than the steps
        (10e-3, 8, 16, "subprocess"),  # 80 ms or about 12
        (10e-3, 8, 2, "subprocess"),  # 80 ms or about 42
        (10e-3, 3, 2, "sync"),  # 30 ms or about 21: not clearly less
        (10e-3, 8, 1, "sync"),
    ],
)
def test_processes_are_for_steps_that_take_clearly_longer_than_pipes(
    step: float, num_envs: int, cpus: int, expected: str
) -> None:
    assert mode_for(step, num_envs, cpus) == expected


def test_auto_measures_a_step_and_says_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    class Sleepy(Countdown):
        def step(self, action: Any) -> Any:
            time.sleep(0.01)
            return super().step(action)

    with caplog.at_level(logging.INFO):
        assert faster_mode(Sleepy, 8, 8) == "subprocess"
        assert faster_mode(Countdown, 8, 8) == "sync"
    slow, quick = (record.getMessage() for record in caplog.records)
    assert int(slow.removeprefix("a step of one environment takes ").split()[0]) >= 10_000
    assert slow.endswith("us: 8 are stepped each in a process of its own")
    assert quick.endswith("us: 8 are stepped one by one")


@pytest.mark.parametrize(("num_envs", "cpus"), [(1, 8), (8, 1), (8, 0), (1000, 8)])
def test_auto_does_not_measure_where_processes_are_out_of_the_question(num_envs: int, cpus: int) -> None:
    made: list[Countdown] = []

    def make() -> Countdown:
        made.append(Countdown())
        return made[-1]

    assert faster_mode(make, num_envs, cpus) == "sync"
    assert not made


def test_auto_leaves_faults_to_the_run() -> None:
    assert faster_mode(lambda: Faulty(at=1), 8, 8) == "sync"


def test_processes_take_no_signals_of_the_group_and_see_one_thread() -> None:
    envs = EnvSource(TOYS + "Threads").vector(2, "subprocess")
    assert isinstance(envs, SubprocessVectorEnv)
    groups = {os.getpgid(process.pid or 0) for process in envs.processes}
    assert os.getpgid(0) not in groups
    assert envs.get_attr("threads") == (os.environ.get("OMP_NUM_THREADS", "1"),) * 2
    envs.close()
    assert not any(process.is_alive() for process in envs.processes)


def test_a_script_without_a_guard_begins_once_and_its_processes_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from rltrainer.envs.source import EnvSource\n"
        f"envs = EnvSource('{TOYS}Countdown').vector(2, 'subprocess')\n"
        "envs.reset(seed=[1, 2])\n"
        "print(*(process.pid for process in envs.processes), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (line,) = done.stdout.splitlines()
    pids, until = [int(pid) for pid in line.split()], time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "Traceback" not in done.stderr


def test_processes_are_faster_where_steps_are_slow() -> None:
    """A step that waits costs no CPU, so this holds on one CPU too: 8 s or one."""
    envs = EnvSource(TOYS + "Slow").vector(8, "subprocess")
    envs.reset(seed=0)
    for _ in range(13):
        envs.step(np.zeros(8, np.int64))
    begun = time.perf_counter()
    envs.step(np.zeros(8, np.int64))
    assert time.perf_counter() - begun < 4.0
    envs.close()


BROUGHT = [
    ("ale_py", "ALE/Pong-v5", (4, 84, 84), "AtariVectorEnv"),
    ("minatar", "MinAtar/Breakout-v1", (10, 10, 4), "SerialVectorEnv"),
    ("Box2D", "LunarLander-v3", (8,), "SerialVectorEnv"),
    ("mujoco", "HalfCheetah-v5", (17,), "SerialVectorEnv"),
    ("envpool", "envpool:Pong-v5", (4, 84, 84), "EnvPoolVectorEnv"),
    ("envpool", "envpool:HalfCheetah-v4", (17,), "EnvPoolVectorEnv"),
]


@pytest.mark.filterwarnings("ignore:.*:UserWarning:gymnasium", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("package", "name", "shape", "kind"), BROUGHT, ids=[name for _, name, _, _ in BROUGHT])
def test_environments_of_the_extras(package: str, name: str, shape: tuple[int, ...], kind: str) -> None:
    """Spaces, vectors that depend on the seed and on nothing else, and one environment that agrees with them."""
    pytest.importorskip(package)
    source = EnvSource(name)
    env_spaces = source.spaces()
    assert env_spaces.observations.shape == shape
    seen = []
    for seed in (1, 1, 2):
        envs = source.vector(2, "auto", cpus=2)
        assert type(envs).__name__ == kind
        envs.action_space.seed(0)
        per_env = isinstance(envs, SerialVectorEnv)
        rows = [envs.reset(seed=[seed, seed + 1] if per_env else seed)[0].copy()]  # type: ignore[arg-type]
        rows += [envs.step(envs.action_space.sample())[0].copy() for _ in range(20)]
        seen.append(np.stack(rows))
        envs.close()
    assert seen[0].shape == (21, 2, *shape)
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    one = source.single()
    assert one.observation_space == env_spaces.observations
    assert one.action_space == env_spaces.actions
    assert one.reset(seed=1)[0].shape == shape
    obs, reward, *_ = one.step(one.action_space.sample())
    assert obs.shape == shape
    assert np.isfinite(float(reward))
    one.close()


@pytest.mark.parametrize("game", ["Breakout", "MsPacman"])
@pytest.mark.parametrize("view", [{}, {"grayscale": False, "img_width": 96, "stack_num": 2, "frameskip": 3}])
def test_one_game_shows_what_the_vector_shows(game: str, view: dict[str, Any]) -> None:
    """Pixel for pixel, to the end of the game, without the randomness that each draws for itself."""
    pytest.importorskip("ale_py")
    config = {"repeat_action_probability": 0.0, "noop_max": 0, "reward_clipping": False, **view}
    source = EnvSource(f"ALE/{game}-v5", config)
    envs, one = source.vector(1), source.single()
    assert np.array_equal(envs.reset(seed=3)[0][0], one.reset(seed=3)[0])
    rng, score = np.random.default_rng(1), 0.0
    for _ in range(1000):
        action = rng.integers(one.action_space.n)  # type: ignore[attr-defined]
        obs, reward, terminated, _, _ = envs.step(np.array([action]))
        alone, paid, ended, _, _ = one.step(action)
        assert np.array_equal(obs[0], alone)
        assert (reward[0], terminated[0]) == (paid, ended)
        score += float(paid)
        if ended:
            break
    assert ended
    assert score > 0


@pytest.mark.parametrize("clipping", [True, False])
def test_atari_is_learned_from_clipped_rewards_and_reported_by_the_games_own(clipping: bool) -> None:
    pytest.importorskip("ale_py")
    config = {"episodic_life": True, "reward_clipping": clipping, "noop_max": 0}
    plan = worker_config(
        "ALE/MsPacman-v5", "PG", config, num_envs_per_worker=2, rollout_fragment_length=200, hiddens=[8]
    )
    worker, weights = Worker(plan, 0), make_learner(plan).weights(0)
    returns: list[float] = []
    largest = 0.0
    while not returns:
        fragment, report = worker.sample(weights)
        returns, largest = report.returns, max(largest, float(fragment.r.max()))
    assert largest == 1.0 if clipping else largest >= 10.0
    assert min(returns) >= 10.0, "a dot is 10 points"
    assert all(each % 10 == 0 for each in returns)
    worker.envs.close()


def test_a_rollout_plays_whole_games_for_their_own_score() -> None:
    pytest.importorskip("ale_py")
    shaped = EnvSource("ALE/MsPacman-v5", {"episodic_life": True, "reward_clipping": True, "noop_max": 0})
    envs, one = shaped.vector(1), shaped.single()
    envs.reset(seed=0)
    one.reset(seed=0)
    whole, lives = [], []
    for step in range(2000):
        _, _, terminated, _, _ = envs.step(np.array([step % 9]))
        _, paid, ended, _, info = one.step(step % 9)
        whole.append(float(paid))
        lives.append(info["lives"])
        if terminated[0]:
            break
    assert max(whole) == 10.0
    while not ended:
        *_, ended, _, info = one.step(0)
        lives.append(info["lives"])
    assert lives[0] == 3
    assert lives[-1] == 0


@pytest.mark.parametrize("option", [{"maxpool": False}, {"batch_size": 1}, {"continuous": True}])
def test_options_of_atari_that_a_rollout_could_not_follow_are_refused(option: dict[str, Any]) -> None:
    pytest.importorskip("ale_py")
    with pytest.raises(RunError, match=f"{next(iter(option))} must be") as caught:
        EnvSource("ALE/Pong-v5", option).spaces()
    assert caught.value.permanent


def test_a_task_that_envpool_does_not_have() -> None:
    pytest.importorskip("envpool")
    with pytest.raises(RunError, match=r"EnvPool has no Pongo-v5") as caught:
        EnvSource("envpool:Pongo-v5").spaces()
    assert caught.value.permanent


def test_spaces_are_those_of_the_environment() -> None:
    env_spaces = EnvSource(TOYS + "Identity", {"n": 4}).spaces()
    assert env_spaces.observations == spaces.Discrete(4)
    assert env_spaces.actions == spaces.Discrete(4)


def test_each_environment_has_an_env_config_of_its_own() -> None:
    """What one does to a list that it is made with reaches no other, and not the document."""
    source = EnvSource(TOYS + "Goals", {"goals": [1, 2, 3]})
    envs: Any = source.vector(3)
    lists = [env.unwrapped.goals for env in envs.envs]
    assert len({id(goals) for goals in lists}) == 3
    source.single().unwrapped.goals.clear()  # type: ignore[attr-defined]
    lists[0].clear()
    assert lists[1] == [1, 2, 3]
    assert source.config == {"goals": [1, 2, 3]}
