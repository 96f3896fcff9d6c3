"""What several tests build."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rltrainer import algorithms
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OPTIONS, option_names
from rltrainer.backend.base import make_learner
from rltrainer.backend.serial import SerialBackend
from rltrainer.core.execution import Iteration
from rltrainer.envs.source import EnvSource
from rltrainer.sampling.worker import Worker, WorkerConfig

TOYS = "tests.unit.trainer.toy_envs:"
TASKS = "tests.unit.trainer.toy_tasks:"


def worker_config(
    env: str = "CartPole-v1", run: str = "PPO", env_config: dict[str, Any] | None = None, **config: Any
) -> WorkerConfig:
    """What workers and learners of a small experiment are built from."""
    algorithm = algorithms.load(run)
    source = EnvSource(env, env_config or {})
    return WorkerConfig(
        algorithm, source, source.spaces(), algorithm.options.model_validate(config), config.get("seed", 0)
    )


def sampled(plan: WorkerConfig, times: int = 1) -> tuple[Worker, list[Any]]:
    """A worker that has sampled `times`, and copies of its reports."""
    worker, weights = Worker(plan, 0), make_learner(plan).weights(0)
    return worker, [worker.sample(weights)[1] for _ in range(times)]


def nothing() -> None:
    """Nobody asks the run to end."""


def serial(plan: WorkerConfig) -> tuple[SerialBackend, Iterator[Iteration]]:
    """Workers and a learner in this process, and the iterations of the algorithm's own strategy."""
    backend = SerialBackend(plan, nothing)
    return backend, plan.algorithm.strategy(backend, plan.options, 0)


def equal(a: Any, b: Any) -> bool:
    """Whether two states are the same, bit by bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return bool((a == b).all()) if hasattr(a, "shape") else bool(a == b)


def experiment(name: str = "test", env: str = "CartPole-v1", run: str = "PPO", **spec: Any) -> Experiment:
    """A small document."""
    content = {"run": run, "env": env, **spec}
    return Experiment.parse(
        {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "metadata": {"name": name}, "spec": content}
    )


def quick(**config: Any) -> dict[str, Any]:
    """Options of a run of PPO whose iterations take milliseconds."""
    return {
        "seed": 7,
        "num_envs_per_worker": 4,
        "rollout_fragment_length": 16,
        "epochs": 2,
        "minibatch_size": 32,
        **config,
    }


SMALL = {
    "seed": 7,
    "num_envs_per_worker": 4,
    "rollout_fragment_length": 8,
    "timesteps_per_iteration": 0,
    "hiddens": [16],
    "epochs": 2,
    "minibatch_size": 32,
    "train_batch_size": 64,
    "buffer_size": 120,
    "learning_starts": 40,
    "batch_size": 16,
    "updates_per_step": 0.25,
    "target_update_freq": 3,
}


def small(run: str, **config: Any) -> dict[str, Any]:
    """Options of a run of any algorithm whose iterations take milliseconds, and whose replay is soon full."""
    known = option_names(OPTIONS[run])
    return {**{name: value for name, value in SMALL.items() if name in known}, **config}
