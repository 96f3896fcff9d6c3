"""What several tests build."""

from typing import Any

import torch

from rltrainer import algorithms
from rltrainer.envs import EnvSource
from rltrainer.learner import Learner
from rltrainer.sampling import Blueprint, Worker
from rltrainer.spec import Experiment

TOYS = "tests.unit.trainer.toy_envs:"


def blueprint(
    env: str = "CartPole-v1", run: str = "PPO", env_config: dict[str, Any] | None = None, **config: Any
) -> Blueprint:
    """What workers and learners of a small experiment are built from."""
    algorithm = algorithms.load(run)
    source = EnvSource(env, env_config or {})
    return Blueprint(
        algorithm, source, source.spaces(), algorithm.options.model_validate(config), config.get("seed", 0)
    )


def learner(plan: Blueprint) -> Learner:
    """Its learner, on the CPU."""
    return Learner(plan.algorithm, plan.spaces, plan.options, plan.seed, torch.device("cpu"))


def sampled(plan: Blueprint, times: int = 1) -> tuple[Worker, list[Any]]:
    """A worker that has sampled `times`, and copies of its reports."""
    worker, weights = Worker(plan, 0), learner(plan).weights()
    return worker, [worker.sample(weights)[1] for _ in range(times)]


def experiment(name: str = "test", env: str = "CartPole-v1", run: str = "PPO", **spec: Any) -> Experiment:
    """A small document."""
    content = {"run": run, "env": env, **spec}
    return Experiment.parse(
        {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "metadata": {"name": name}, "spec": content}
    )


def quick(**config: Any) -> dict[str, Any]:
    """Options of a run whose iterations take milliseconds."""
    return {
        "seed": 7,
        "num_envs_per_worker": 4,
        "rollout_fragment_length": 16,
        "epochs": 2,
        "minibatch_size": 32,
        **config,
    }
