"""Where workers and the learner live: in this process, or as Ray actors (ray_backend.py)."""

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from rltrainer.algorithm import Metrics
from rltrainer.checkpoint import Tree
from rltrainer.execution import Sampler
from rltrainer.fragment import Fragment
from rltrainer.learner import Learner, Weights
from rltrainer.sampling import Blueprint, Report, Worker


class Backend(Sampler, Protocol):
    """Workers and a learner, wherever they are."""

    def state(self, workers: bool) -> Tree:
        """The parts `policy`, `learner` and `workers` of a checkpoint; without `workers`, these are left out."""

    def load(self, tree: Tree, generation: int) -> None:
        """Goes on from `state()`. Workers that are not in it, or cannot be restored, begin as that generation."""

    def close(self) -> None:
        """Ends workers and learner."""


def make_learner(blueprint: Blueprint, device: str = "cpu") -> Learner:
    """A learner on `device`."""
    return Learner(blueprint.algorithm, blueprint.spaces, blueprint.options, blueprint.seed, torch.device(device))


def learner_state(learner: Learner) -> Tree:
    """The learner's parts of a checkpoint."""
    return {"policy": learner.policy(), "learner": learner.state()}


def start_worker(blueprint: Blueprint, index: int, state: Tree | None, generation: int) -> Worker:
    """A worker that goes on from `state`, or begins as `generation` where that cannot be."""
    if state is None or state["envs"] is None or len(state["obs"]) != blueprint.options.num_envs_per_worker:
        return Worker(blueprint, index, generation)
    worker = Worker(blueprint, index)
    worker.load(state)
    return worker


class SerialBackend:
    """Everything in this process, one after the other."""

    def __init__(self, blueprint: Blueprint, check: Callable[[], None]) -> None:
        self.check, self.blueprint = check, blueprint
        self.learner = make_learner(blueprint)
        self.workers = [Worker(blueprint, index) for index in range(max(1, blueprint.options.num_workers))]

    def weights(self) -> Weights:
        """See Sampler."""
        return self.learner.weights()

    def sample(self, weights: Weights) -> tuple[Sequence[Fragment], list[Report]]:
        """See Sampler."""
        fragments, reports = zip(*(worker.sample(weights, self.check) for worker in self.workers), strict=True)
        return list(fragments), list(reports)

    def improve(self, fragments: Sequence[Fragment], timesteps: int) -> Metrics:
        """See Sampler."""
        return self.learner.improve(list(fragments), timesteps)

    def state(self, workers: bool) -> Tree:
        """See Backend."""
        states = {str(worker.index): worker.state() for worker in self.workers} if workers else {}
        return {**learner_state(self.learner), "workers": states}

    def load(self, tree: Tree, generation: int) -> None:
        """See Backend."""
        self.learner.load(tree["policy"], tree["learner"])
        self.close()
        states = [tree["workers"].get(str(worker.index)) for worker in self.workers]
        self.workers = [start_worker(self.blueprint, i, state, generation) for i, state in enumerate(states)]

    def close(self) -> None:
        """See Backend."""
        for worker in self.workers:
            worker.envs.close()


def open_backend(blueprint: Blueprint, check: Callable[[], None]) -> Backend:
    """Ray where the options ask for workers or a GPU, else this process alone."""
    if blueprint.options.num_workers or blueprint.options.num_gpus:
        # Ray would start each worker by `uv run` where this process was, which installs the project anew and can hang.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        from rltrainer.ray_backend import RayBackend  # noqa: PLC0415 - two seconds that a serial run has no use for

        return RayBackend(blueprint, check)
    return SerialBackend(blueprint, check)
