"""Learning on a GPU: every algorithm on a simulated device, which shows where tensors live and what is waited for."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rltrainer.api.options import OPTIONS
from rltrainer.backend.base import make_learner
from rltrainer.backend.open import open_backend
from rltrainer.backend.ray.settings import CURRENT as RAY
from rltrainer.backend.serial import SerialBackend
from rltrainer.core.algorithm import LearnerAPI, Losses
from rltrainer.core.types import Metrics
from rltrainer.runs import train
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TASKS, TOYS, equal, experiment, nothing, quick, small, worker_config
from tests.unit.trainer.simulated_device import CPU, DEVICE, DeviceError, SimulatedDevice

CONTINUOUS = ("DDPG", "TD3", "ApexDDPG")
IMAGE = {"hiddens": [8], "rollout_fragment_length": 4, "buffer_size": 64, "learning_starts": 8}
PRIORITIZED = {"prioritized": True, "n_step": 3}
CASES = [
    *((run, "Pendulum-v1" if run in CONTINUOUS else "CartPole-v1", {}) for run in OPTIONS),
    ("SAC", "Pendulum-v1", {**PRIORITIZED, "normalize_observations": True}),
    ("DDPG", "Pendulum-v1", {"exploration_noise": "ornstein-uhlenbeck", **PRIORITIZED}),
    ("DQN", "CartPole-v1", {"dueling": True, **PRIORITIZED}),
    ("DQN", TASKS + "Masked", {}),
    ("DQN", TOYS + "IdentityImage", IMAGE),
    ("Rainbow", TOYS + "IdentityImage", IMAGE),
    ("ApexDQN", TOYS + "IdentityImage", IMAGE),
    ("SAC", TASKS + "ReachImage", IMAGE),
    ("ParametricDQN", TASKS + "Described", {}),
    ("PPO", TASKS + "Described", {}),
    ("PPO", TASKS + "Both", {"normalize_rewards": True, "kl_coeff": 0.2, "vf_clip": 1.0, "kl_stop": 0.01}),
    ("PPO", "Pendulum-v1", {"normalize_observations": True, "grad_clip": 0.5}),
    ("PPO", TASKS + "Recall", {"recurrent": "lstm", "recurrent_size": 8}),
    ("PPO", TOYS + "IdentityImage", {"hiddens": [8], "recurrent": "gru", "recurrent_size": 8}),
    ("APPO", TOYS + "IdentityImage", {"hiddens": [8]}),
    ("IMPALA", TASKS + "Recall", {"recurrent": "gru", "recurrent_size": 8}),
]


RECORDED = {"PPO", "APPO", "DQN", "QRDQN", "Rainbow", "ParametricDQN", "ApexDQN", "DDPG", "TD3", "ApexDDPG", "SAC"}
"""Algorithms whose steps are recorded; but for recurrent policies'."""
LR = 2**-9
"""A learning rate that is the same number in the device's memory as in Python's."""


def learnt(plan: Any, device: torch.device) -> tuple[list[Metrics], dict[str, Tensor]]:
    """What some iterations report, and the networks after them."""
    learning = SerialBackend(plan, nothing, device)
    iterations = plan.algorithm.strategy(learning, plan.options, 0)
    found = [next(iterations).metrics for _ in range(6)]
    learning.close()
    return found, learning.learner.policy()


@pytest.mark.parametrize(("run", "env", "config"), CASES)
def test_a_device_learns_the_same_and_mixes_nothing_up(
    caplog: pytest.LogCaptureFixture, run: str, env: str, config: dict[str, Any]
) -> None:
    plan = worker_config(env, run, **{**small(run, lr=LR), **config})
    expected = learnt(plan, CPU)
    assert any(expected[0]), "something was learnt"
    with SimulatedDevice() as device:
        found = learnt(plan, DEVICE)
        assert device.waits
    assert equal(found[1], expected[1])
    assert found[0] == expected[0]
    replays = sum(graph.replays for graph in device.graphs)
    assert (replays > 0) == (run in RECORDED and "recurrent" not in config)
    assert "CUDA graphs" not in caplog.text


@pytest.mark.parametrize(
    ("run", "least", "config"),
    [
        ("TD3", 2, {"policy_delay": 3, "lr_schedule": [[0, LR], [200, LR / 2]]}),
        ("SAC", 1, {"lr": LR, "critic_lr": LR / 2, "grad_clip": 0.5}),
        ("PPO", 3, {"lr": LR, "clip_schedule": [[0, 0.2], [200, 0.1]], "minibatch_size": 8}),
    ],
)
def test_recordings_follow_what_changes(run: str, least: int, config: dict[str, Any]) -> None:
    """As without them: learning rates in the device's memory, all else as other recordings, of which few are kept."""
    plans = [worker_config("Pendulum-v1", run, **small(run, **config, cuda_graphs=each)) for each in (True, False)]
    with SimulatedDevice() as device:
        found, recorded = learnt(plans[0], DEVICE), len(device.graphs)
        assert recorded >= least
        plain = learnt(plans[1], DEVICE)
        assert len(device.graphs) == recorded, "cuda_graphs: false"
    assert plain[0] == found[0]
    assert equal(plain[1], found[1])


def test_what_cannot_be_recorded_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    def loss(v: Tensor, batch: dict[str, Tensor], options: Any) -> Losses:
        return {"loss": v.square()}

    def step(learner: LearnerAPI, batch: dict[str, Tensor], options: Any) -> dict[str, Tensor]:
        v = learner.nets(batch["obs"])[1].mean()
        return {"norm": learner.minimize(loss, v, batch)["grad_norm"] * v.item()}

    plan = worker_config(lr=LR)
    obs = torch.ones(3, 4)
    alone = make_learner(plan)
    expected = [alone.context.recorded(step, {"obs": obs}) for _ in range(4)]
    with SimulatedDevice():
        learner = make_learner(plan, DEVICE)
        found = [learner.context.recorded(step, {"obs": obs.to(DEVICE)}) for _ in range(4)]
        assert equal([{"norm": each["norm"].cpu()} for each in found], expected)
        assert equal(learner.policy(), alone.policy())
    assert caplog.text.count("updates go on without CUDA graphs") == 1
    assert "not permitted when stream is capturing" in caplog.text


def waits(run: str, env: str, **config: Any) -> Counter[str]:
    """What one improvement of a learner waits for, the steps from replay included."""
    plan = worker_config(env, run, **{**small(run, rollout_fragment_length=16), **config})
    with SimulatedDevice() as device:
        learning = SerialBackend(plan, nothing, DEVICE)
        fragments, _ = learning.sample(learning.weights(0))
        device.waits.clear()
        assert learning.update_from_fragments(fragments, 1000)
        learning.close()
        return device.waits


@pytest.mark.parametrize("run", ["DQN", "Rainbow", "DDPG", "TD3", "SAC"])
def test_steps_from_replay_wait_for_the_device_once_together(run: str) -> None:
    env = "Pendulum-v1" if run in CONTINUOUS else "CartPole-v1"
    once = waits(run, env, updates_per_step=0.05, prioritized=False)
    assert sum(once.values()) <= 2, "the metrics, and whether they are numbers"
    assert waits(run, env, updates_per_step=1, prioritized=False) == once


def test_priorities_are_what_steps_from_replay_have_to_wait_for() -> None:
    few, many = (waits("DQN", "CartPole-v1", updates_per_step=each, prioritized=True) for each in (0.0625, 0.125))
    assert many - few == {"copy to the CPU": 4}, "one a step: 4 more of them"


def test_steps_of_ppo_do_not_wait_for_the_device() -> None:
    few, many = (waits("PPO", "CartPole-v1", minibatch_size=16, epochs=each) for each in (1, 5))
    assert few == many


@pytest.mark.parametrize(
    ("run", "env", "config"),
    [
        ("PPO", TASKS + "Recall", quick(lr=LR, recurrent="lstm", recurrent_size=8, normalize_rewards=True)),
        ("DQN", TOYS + "IdentityImage", {**small("DQN", lr=LR), **IMAGE, **PRIORITIZED}),
        ("SAC", "Pendulum-v1", small("SAC", lr=LR, normalize_observations=True)),
    ],
)
def test_a_run_on_a_device_can_be_saved_restored_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, env: str, config: dict[str, Any]
) -> None:
    """Without Ray, for the GPU is this process's; and what a GPU has begun a CPU can go on with."""

    def after(folder: str, gpus: int, iterations: int) -> dict[str, Any]:
        result = train.run(
            experiment(
                run=run,
                env=env,
                config={**config, "num_gpus": gpus},
                stop={"training_iteration": iterations},
                evaluation={"interval": 2, "episodes": 2},
            ),
            tmp_path / folder,
            resume=(tmp_path / folder).exists(),  # on purpose: with another num_gpus, and after its end
        )
        assert result.checkpoint is not None
        return ckpt.read(result.checkpoint)[1]

    expected = [after("cpu", 0, iterations) for iterations in (2, 4, 6)][-1]
    with SimulatedDevice():
        after("both", 1, 2)
        assert "learning on a GPU: simulated" in capsys.readouterr().err
        after("both", 1, 4)
    found = after("both", 0, 6)
    assert equal(found["policy"], expected["policy"])
    assert equal(found["learner"], expected["learner"])


REFUSED: list[Callable[[Tensor], object]] = [
    lambda x: x + torch.ones(3),
    nn.Linear(3, 2),
    lambda x: x.numpy(),
    lambda x: x.normal_(generator=torch.Generator()),
    lambda x: torch.cat([x, torch.ones(3)]),
]


@pytest.mark.parametrize("use", REFUSED)
def test_the_simulated_device_refuses_what_a_gpu_would(use: Callable[[Tensor], object]) -> None:
    with SimulatedDevice() as device:
        x = torch.ones(3, device=DEVICE)
        with pytest.raises(DeviceError):
            use(x)
        assert not device.waits


def test_the_simulated_device_knows_where_tensors_are_and_what_is_waited_for() -> None:
    with SimulatedDevice() as device:
        x = torch.ones(3).to(DEVICE)
        assert [x.device, x[1:].device, (x * 2.0).device, torch.zeros_like(x).device] == [DEVICE] * 4
        assert torch.ones(3).device == x.cpu().device == CPU
        layer = nn.Linear(3, 2).to(DEVICE)
        layer(x).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == DEVICE
        assert device.waits == {"copy to the CPU": 1}
        assert x.sum().item() == 3
        assert x[x > 0].tolist() == [1, 1, 1]
        assert device.waits == {"copy to the CPU": 1, "_local_scalar_dense": 1, "boolean index": 1, "tolist": 1}


def test_only_a_gpu_of_this_process_is_used_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("rltrainer.backend.ray.backend.RayBackend", lambda plan, check: made.append(plan.options))
    alone, workers = worker_config(num_gpus=1), worker_config(num_gpus=1, num_workers=1)
    with SimulatedDevice():
        assert isinstance(open_backend(alone, nothing), SerialBackend)
        assert not made
        open_backend(workers, nothing)
        with monkeypatch.context() as here:
            here.setattr(RAY, "address", "10.0.0.1:6379")
            open_backend(alone, nothing)
        with monkeypatch.context() as here:
            here.setenv("RAY_ADDRESS", "10.0.0.1:6379")
            open_backend(alone, nothing)
    open_backend(alone, nothing)
    assert made == [workers.options, *[alone.options] * 3]


def test_replay_lies_on_the_device_where_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    plan = worker_config(TOYS + "IdentityImage", "DQN", **{**small("DQN"), **IMAGE})
    for memory, place in ((1 << 30, DEVICE), (1 << 10, CPU)):
        with SimulatedDevice(memory) as device:
            learning = SerialBackend(plan, nothing, DEVICE)
            learning.update_from_fragments(learning.sample(learning.weights(0))[0], 0)
            assert learning.learner.feed is not None
            device.waits.clear()
            assert learning.learner.feed.replay.sample(4, torch.Generator(), 0.0).obs.device == place
            assert not device.waits
            assert ("too much for the GPU" in caplog.text) == (place == CPU)
