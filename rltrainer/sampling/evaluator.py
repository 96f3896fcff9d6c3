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
from rltrainer.sampling.episodes import done
from rltrainer.sampling.worker import Worker, WorkerConfig
from rltrainer.seeding import Role, derived_seed
from rltrainer.waiting import LOG_INTERVAL_S

log = logging.getLogger(__name__)

MAX_ENVS = 16
"""Environments that are stepped together, at most."""
UNROLL_LENGTH = 32
"""Steps of each environment between two looks at which episodes have ended."""

Episode = tuple[float, int]
"""Return and length."""


class Evaluator:
    """Runs `episodes` whole episodes at a time, in a vector of up to MAX_ENVS environments.

    How many episodes each environment contributes is fixed beforehand. To count the first that end, wherever they do,
    would favor short ones.
    """

    def __init__(self, worker_config: WorkerConfig, episodes: int, deterministic: bool) -> None:
        num_envs = min(episodes, MAX_ENVS)
        self.quotas = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
        overrides = {"num_workers": 0, "num_envs_per_worker": num_envs, "rollout_fragment_length": UNROLL_LENGTH}
        with torch.random.fork_rng(devices=[]):
            self.worker = Worker(
                replace(
                    worker_config,
                    algorithm=evaluation_algorithm(worker_config.algorithm, deterministic),
                    options=worker_config.options.model_copy(update=overrides),
                    seed=derived_seed(worker_config.seed, Role.EVALUATION),
                ),
                index=0,
            )

    def run(self, weights: Weights, generation: int, check: Callable[[], None] | None = None) -> EpisodeReport:
        """Run the episodes of the policy of `weights`; return their returns, lengths and steps, by environment.

        Evaluations of the same generation begin in the same states. `check` is called before each step, and may raise
        to abandon. Raises RunError where an environment fails.
        """
        episodes: list[list[Episode]] = [[] for _ in self.quotas]
        logged_at = monotonic()
        with torch.random.fork_rng(devices=[]):  # an algorithm of one's own may draw from it in training
            self.worker.begin(generation)
            while any(len(ended) < quota for ended, quota in zip(episodes, self.quotas, strict=True)):
                for environment, episode in self._next_episodes(weights, check):
                    if len(episodes[environment]) < self.quotas[environment]:
                        episodes[environment].append(episode)
                if monotonic() - logged_at >= LOG_INTERVAL_S:
                    logged_at = monotonic()
                    log.info("evaluation: %d of %d episodes have ended", sum(map(len, episodes)), sum(self.quotas))
        returns, lengths = zip(*(episode for ended in episodes for episode in ended), strict=True)
        return EpisodeReport(sum(lengths), list(returns), list(lengths))

    def _next_episodes(self, weights: Weights, check: Callable[[], None] | None) -> Iterable[tuple[int, Episode]]:
        """Go on by UNROLL_LENGTH steps; return the environment of each episode that ends in them, and the episode."""
        try:
            fragment, report = self.worker.sample(weights, check)
        except RunError as error:
            raise RunError(error.reason, f"in evaluation: {error.message}", error.permanent) from error
        environments = np.nonzero(done(fragment))[1].tolist()
        return zip(environments, zip(report.returns, report.lengths, strict=True), strict=True)

    def close(self) -> None:
        """Close the environments."""
        self.worker.close()


def evaluation_algorithm(algorithm: Algorithm, deterministic: bool) -> Algorithm:
    """Return `algorithm` with greedy actions, or with those of training, and with nothing noted of them."""

    def act(nets: Any, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
        action = algorithm.greedy_action(nets, obs, context) if deterministic else algorithm.act(nets, obs, context)[0]
        return action, {}

    return replace(algorithm, act=act, priorities=None)


def evaluate(
    worker_config: WorkerConfig, nets: nn.Module, timesteps: int, episodes: int, deterministic: bool = True
) -> EpisodeReport:
    """Evaluate `nets`, the part of the algorithm's networks that acts, as it is after `timesteps` steps of a run."""
    weights: Weights = {
        "parameters": nn.utils.parameters_to_vector(nets.parameters()).detach().cpu().numpy(),
        "buffers": {name: buffer.cpu().numpy() for name, buffer in nets.named_buffers()},
        "timesteps": timesteps,
    }
    with closing(Evaluator(worker_config, episodes, deterministic)) as evaluator:
        return evaluator.run(weights, generation=0)
