"""The same run on Ray's actors: equal numbers, lost workers, and errors in their own words."""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import rltrainer as rl
from rltrainer.backend.base import Backend
from rltrainer.backend.ray.backend import RayBackend
from rltrainer.backend.serial import SerialBackend
from rltrainer.errors import Interrupted, RunError
from rltrainer.runs import train
from rltrainer.runs.context import RunContext
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import Run
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TASKS, TOYS, experiment, nothing, quick, small, worker_config
from tests.unit.trainer.toy_envs import Countdown

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning:ray",
    "ignore:.*:ResourceWarning",  # Ray leaves sockets of its own processes to the garbage collector
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all of these: it takes seconds to begin. It believes in a GPU, which no node here has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=6,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


def iterate(backend: Backend, times: int, timesteps: int = 0) -> list[Any]:
    done = []
    for _ in range(times):
        fragments, reports = backend.sample(backend.weights(timesteps))
        done.append((backend.update_from_fragments(fragments, timesteps), reports))
        timesteps += sum(report.timesteps for report in reports)
    return done


def policy(backend: Backend) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = backend.state(workers=False)["policy"]
    return weights


@pytest.mark.parametrize(("num_gpus", "width", "put"), [(0, 64, False), (0, 256, True), (1, 64, True)])
def test_serial_and_ray_give_the_same_numbers(num_gpus: int, width: int, put: bool) -> None:
    """Whether weights go along with the requests, or are put, or come from a learner that is an actor."""
    config = quick(num_workers=2, hiddens=[width, 64], normalize_observations=True, normalize_rewards=True)
    serial = SerialBackend(worker_config(**config), nothing)
    remote = RayBackend(worker_config(**config, num_gpus=num_gpus), nothing)
    assert isinstance(remote.weights(0), ray.ObjectRef) == put
    assert iterate(serial, 4) == iterate(remote, 4)
    here, there = policy(serial), policy(remote)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    remote.close()


def test_a_run_goes_from_serial_to_ray_and_back(tmp_path: Path) -> None:
    plan = worker_config(**quick(num_workers=2))
    serial, remote, again = SerialBackend(plan, nothing), RayBackend(plan, nothing), SerialBackend(plan, nothing)
    straight = SerialBackend(plan, nothing)
    steps = 16 * 4 * 2
    iterate(serial, 2)
    remote.load(written(tmp_path, serial), 2)
    iterate(remote, 2, 2 * steps)
    again.load(written(tmp_path, remote), 4)
    iterate(again, 1, 4 * steps)
    iterate(straight, 5)
    assert all(torch.equal(a, b) for a, b in zip(policy(again).values(), policy(straight).values(), strict=True))
    remote.close()


def written(root: Path, backend: Backend) -> Any:
    return ckpt.read(ckpt.write(root, backend.state(workers=True), 1, 1, {}))[1]


def kill(actor: Any) -> None:
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)


def test_a_lost_worker_is_replaced_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    backend = RayBackend(worker_config(**quick(num_workers=2)), nothing)
    iterate(backend, 1)
    lost = backend.actors[1]
    kill(lost)
    with caplog.at_level("WARNING", logger="rltrainer"):
        ((metrics, reports),) = iterate(backend, 1)
    assert backend.actors[1] is not lost
    assert [report.timesteps > 0 for report in reports] == [True, True]
    assert metrics["loss"] == metrics["loss"]
    assert "worker 1 was lost and is replaced" in caplog.text
    states = backend.state(workers=True)["workers"]
    assert states.keys() == {"0", "1"}
    backend.close()


NUMBERS = {"seed": 0, "num_workers": 2, "num_envs_per_worker": 4, "hiddens": [32], "gamma": 0.0, "lr": 0.01}


@pytest.mark.parametrize(
    ("run", "config"),
    [
        ("A3C", {"rollout_fragment_length": 16, "timesteps_per_iteration": 500}),
        ("IMPALA", {"rollout_fragment_length": 16, "train_batch_size": 64, "timesteps_per_iteration": 500}),
        ("ApexDQN", {"learning_starts": 200, "target_update_freq": 20, "replay_shards": 2, "updates_per_step": 0.1}),
    ],
)
def test_workers_that_do_not_wait_learn(tmp_path: Path, run: str, config: dict[str, Any]) -> None:
    stop = {"episode_reward_mean": 9.0, "timesteps_total": 30_000}
    config = {**NUMBERS, "vector_env": "sync", **config}
    result = train.run(experiment(run=run, env=TASKS + "Numbers", config=config, stop=stop), tmp_path)
    assert result.stopped_by == "episode_reward_mean >= 9", result.row
    assert result.checkpoint is not None
    tree = ckpt.read(result.checkpoint)[1]
    assert tree["workers"].keys() == {"0", "1"}
    assert tree["replay"].keys() == ({"0", "1"} if run == "ApexDQN" else set())


def test_a_slow_environment_stalls_no_other_worker(tmp_path: Path) -> None:
    """One worker takes 8 seconds for a fragment; from the other come dozens meanwhile."""
    given = small("IMPALA", num_workers=2, num_envs_per_worker=1, train_batch_size=8, vector_env="sync")
    plan = worker_config(TASKS + "OneIsSlow", "IMPALA", {"claim": str(tmp_path / "slow")}, **given)
    backend = RayBackend(plan, nothing)
    iterations = plan.algorithm.strategy(backend, plan.options, 0)
    next(iterations)
    while not (tmp_path / "slow").exists():
        next(iterations)
    begun = time.monotonic()
    for _ in range(30):
        next(iterations)
    assert time.monotonic() - begun < 8
    backend.close()


def test_a_lost_worker_with_requests_in_flight_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    plan = worker_config(run="IMPALA", **small("IMPALA", num_workers=2, vector_env="sync"))
    backend = RayBackend(plan, nothing)
    iterations = plan.algorithm.strategy(backend, plan.options, 0)
    next(iterations)
    lost = backend.actors[1]
    kill(lost)
    with caplog.at_level("WARNING", logger="rltrainer"):
        while backend.actors[1] is lost or backend.losses[1]:
            next(iterations)
    assert "worker 1 was lost and is replaced" in caplog.text
    assert sorted(request.worker for request in backend.requests.values()) == [0, 0, 1, 1]
    assert all(request.actor is backend.actors[request.worker] for request in backend.requests.values())
    backend.close()


def test_a_lost_shard_is_replaced_and_filled_again(caplog: pytest.LogCaptureFixture) -> None:
    """Though it is the only one, and the updates that are due have nothing to draw from."""
    config = small("ApexDQN", num_workers=2, buffer_size=400, vector_env="sync")
    plan = worker_config(run="ApexDQN", **config)
    backend = RayBackend(plan, nothing)
    iterations = plan.algorithm.strategy(backend, plan.options, 0)
    for _ in range(4):
        next(iterations)
    assert backend.shards is not None
    lost = backend.shards.actors[0]
    ray.kill(lost)
    with caplog.at_level("WARNING", logger="rltrainer"):
        while backend.shards.actors[0] is lost:
            next(iterations)
    assert "replay shard 0 was lost and begins empty" in caplog.text
    for _ in range(8):
        iteration = next(iterations)
    assert "td_error" in iteration.metrics
    assert backend.state(workers=False)["replay"]["0"]["buffer"]["streams"][0]["written"] > 8
    backend.close()


def test_a_worker_that_is_lost_again_and_again_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrainer.backend.ray.backend.LOSSES", 2)
    backend = RayBackend(worker_config(TOYS + "Dies", **quick(num_workers=1)), nothing)
    with pytest.raises(RunError, match="worker 0 was lost 2 times in a row") as caught:
        iterate(backend, 1)
    assert caught.value.exit_code == 1
    backend.close()


@pytest.mark.parametrize(
    ("env", "message"), [("NoStart", "license has expired"), ("Faulty", "the simulator fell over")]
)
def test_an_environments_fault_arrives_without_rays_traceback(env: str, message: str) -> None:
    plan = worker_config("CartPole-v1", **quick(num_workers=1))
    broken = type(plan)(plan.algorithm, type(plan.source)(TOYS + env), plan.spaces, plan.options, plan.seed)
    if env == "Faulty":
        broken = worker_config(TOYS + env, **quick(num_workers=1))
    backend = RayBackend(broken, nothing)
    with pytest.raises(RunError, match=message) as caught:
        iterate(backend, 1)
    assert "Traceback" not in caught.value.message
    frames = re.findall(r'File "([^"]+)"', caught.value.message)
    assert [Path(file).name for file in frames] == ["toy_envs.py"]
    backend.close()


def test_a_worker_that_has_no_place_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rltrainer.backend.ray.cluster.LOG_INTERVAL_S", 1.0)
    interrupt = Interrupt()
    backend = RayBackend(worker_config(**quick(num_workers=1, num_cpus_per_worker=50)), interrupt.check)
    threading.Timer(3, interrupt.ask, [signal.SIGTERM]).start()
    begun = time.monotonic()
    with caplog.at_level("INFO", logger="rltrainer"), pytest.raises(Interrupted):
        iterate(backend, 1)
    assert time.monotonic() - begun < 10, "SIGTERM is heard while it waits"
    assert "waiting for 1 of 1 workers; Ray has 6 of 6 CPUs free" in caplog.text
    backend.close()


def test_when_everything_goes_at_once_the_last_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM reaches the trainer while the workers vanish: the learner's state is written all the same."""
    interrupt = Interrupt()
    backends: list[RayBackend] = []

    def opened(*given: Any) -> RayBackend:
        backends.append(RayBackend(*given))
        return backends[0]

    monkeypatch.setattr("rltrainer.runs.run.open_backend", opened)
    given = experiment(config=quick(num_workers=2), checkpoint={"frequency": 0})
    run = Run(given, RunContext(tmp_path, interrupt=interrupt))

    def end() -> None:
        while not run.row or run.row["training_iteration"] < 3:
            time.sleep(0.05)
        interrupt.ask(signal.SIGTERM)
        for actor in backends[0].actors:
            ray.kill(actor)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Interrupted):
        train.drive(run)
    thread.join()
    assert run.checkpoints.newest is not None
    manifest, tree = ckpt.read(run.checkpoints.newest)
    assert manifest.iteration == run.row["training_iteration"]
    assert tree["run"]["progress"]["timesteps_total"] == run.row["timesteps_total"]


def test_an_environment_of_this_process_is_sent_to_workers(tmp_path: Path) -> None:
    """A function that no worker could import."""
    stop: Any = {"training_iteration": 1}
    run = rl.train("PPO", lambda: Countdown(length=6), num_workers=1, stop=stop, local_dir=tmp_path, **quick())
    assert run.row["episode_len_mean"] == 6
