"""Evaluation: whole episodes in environments of their own, apart from training and with random numbers of their own."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.types import EpisodeReport, Weights
from rltrainer.errors import RunError
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)

WIDTH = 16
"""Environments that are stepped together, at most."""
STEPS = 32
"""Steps of each environment between two looks at which episodes have ended."""
LOG_INTERVAL_S = 15.0
"""Seconds between lines that say how far a long evaluation has come."""


class Evaluator:
    """Runs `episodes` whole episodes at a time, in a vector of up to WIDTH environments.

    How many episodes each environment contributes is fixed beforehand. To count the first that end, wherever they do,
    would favour short ones.
    """

    def __init__(self, worker_config: WorkerConfig, episodes: int, deterministic: bool) -> None:
        num_envs = min(episodes, WIDTH)
        self.quotas = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
        own = {"num_workers": 0, "num_envs_per_worker": num_envs, "rollout_fragment_length": STEPS}
        with torch.random.fork_rng(devices=[]):
            self.worker = Worker(
                replace(
                    worker_config,
                    algorithm=only_acting(worker_config.algorithm, deterministic),
                    options=worker_config.options.model_copy(update=own),
                    seed=derived_seed(worker_config.seed, Role.EVALUATION),
                ),
                index=0,
            )

    def run(self, weights: Weights, generation: int, check: Callable[[], None] | None = None) -> EpisodeReport:
        """Returns, lengths and steps of the episodes of the policy of `weights`, environment by environment.

        Evaluations of the same generation begin in the same states. `check` is called before each step, and may raise
        to abandon. Raises RunError where an environment fails.
        """
        found: list[list[tuple[float, int]]] = [[] for _ in self.quotas]
        spoken = monotonic()
        with torch.random.fork_rng(devices=[]):  # an algorithm of one's own may draw from it in training
            self.worker.begin(generation)
            while any(len(each) < quota for each, quota in zip(found, self.quotas, strict=True)):
                for environment, episode in self._ended(weights, check):
                    if len(found[environment]) < self.quotas[environment]:
                        found[environment].append(episode)
                if monotonic() - spoken >= LOG_INTERVAL_S:
                    spoken = monotonic()
                    log.info("evaluation: %d of %d episodes have ended", sum(map(len, found)), sum(self.quotas))
        returns, lengths = zip(*(episode for each in found for episode in each), strict=True)
        return EpisodeReport(sum(lengths), list(returns), list(lengths))

    def _ended(self, weights: Weights, check: Callable[[], None] | None) -> Iterable[tuple[int, tuple[float, int]]]:
        """Goes on by STEPS steps: the episodes that end in them, each as its environment, and its return and length."""
        try:
            fragment, report = self.worker.sample(weights, check)
        except RunError as error:
            raise RunError(error.reason, f"in evaluation: {error.message}", error.permanent) from error
        environments = np.nonzero(fragment.terminated | fragment.truncated)[1].tolist()
        return zip(environments, zip(report.returns, report.lengths, strict=True), strict=True)

    def close(self) -> None:
        """Closes the environments."""
        self.worker.envs.close()


def only_acting(algorithm: Algorithm, deterministic: bool) -> Algorithm:
    """`algorithm` with actions as its policy likes them best, or as in training, and with nothing noted of them."""

    def act(nets: Any, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
        action = algorithm.greedy_action(nets, obs, context) if deterministic else algorithm.act(nets, obs, context)[0]
        return action, {}

    return replace(algorithm, act=act, priorities=None)


def evaluate(
    worker_config: WorkerConfig, nets: nn.Module, timesteps: int, episodes: int, deterministic: bool = True
) -> EpisodeReport:
    """Evaluates `nets`, the part of the blueprint's algorithm that acts, as it is after `timesteps` steps of a run."""
    weights: Weights = {
        "parameters": nn.utils.parameters_to_vector(nets.parameters()).detach().cpu().numpy(),
        "buffers": {name: buffer.cpu().numpy() for name, buffer in nets.named_buffers()},
        "timesteps": timesteps,
    }
    with closing(Evaluator(worker_config, episodes, deterministic)) as evaluator:
        return evaluator.run(weights, generation=0)
