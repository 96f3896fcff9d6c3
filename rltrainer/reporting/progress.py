"""Counters and results of a run: what a row of result.json says, and when to stop."""

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rltrainer.api.base import EVALUATED, REWARD_WINDOW
from rltrainer.api.experiment import Stop
from rltrainer.core.execution import Iteration
from rltrainer.core.types import EpisodeReport
from rltrainer.reporting.rows import Row


class Progress:
    """How far a run has come, over all its attempts."""

    def __init__(self) -> None:
        self.training_iteration = 0
        self.timesteps_total = 0
        self.episodes_total = 0
        self.time_total_s = 0.0
        self.best_reward: float | None = None
        self.evaluation_reward_mean: float | None = None
        self.returns: deque[float] = deque(maxlen=REWARD_WINDOW)
        self.lengths: deque[int] = deque(maxlen=REWARD_WINDOW)

    def add(self, iteration: Iteration, seconds: float) -> Row:
        """Count one iteration that took `seconds`; return its row, with RLlib's names."""
        steps = sum(report.timesteps for report in iteration.reports)
        returns = [value for report in iteration.reports for value in report.returns]
        self.training_iteration += 1
        self.timesteps_total += steps
        self.episodes_total += len(returns)
        self.time_total_s += seconds
        self.evaluation_reward_mean = None
        self.returns.extend(returns)
        self.lengths.extend(length for report in iteration.reports for length in report.lengths)
        mean = self.reward_mean()
        if mean is not None and len(self.returns) == REWARD_WINDOW:
            self.best_reward = mean if self.best_reward is None else max(mean, self.best_reward)
        return {
            **self.metrics(),
            "episode_reward_min": min(self.returns, default=None),
            "episode_reward_max": max(self.returns, default=None),
            "episodes_this_iter": len(returns),
            "episodes_total": self.episodes_total,
            "timesteps_this_iter": steps,
            "timesteps_total": self.timesteps_total,
            "training_iteration": self.training_iteration,
            "time_this_iter_s": seconds,
            "time_total_s": self.time_total_s,
            "timesteps_per_second": steps / seconds if seconds > 0 else None,
            "sample_time_s": iteration.sample_time_s,
            "learn_time_s": iteration.learn_time_s,
            "info": {"learner": {name: finite(value) for name, value in iteration.metrics.items()}},
        }

    def evaluated(self, report: EpisodeReport) -> Row:
        """Count an evaluation of the policy as it is after the newest iteration; return its part of the row."""
        self.evaluation_reward_mean = fmean(report.returns)
        return {
            "episode_reward_mean": self.evaluation_reward_mean,
            "episode_reward_min": min(report.returns),
            "episode_reward_max": max(report.returns),
            "episode_len_mean": fmean(report.lengths),
            "episodes": len(report.returns),
        }

    def reward_mean(self) -> float | None:
        """Return the mean return of the last REWARD_WINDOW episodes, or of as many as there are."""
        return fmean(self.returns) if self.returns else None

    def metrics(self) -> dict[str, float | None]:
        """Return what checkpoints are ranked by; an evaluation is in it only where it was of this very policy."""
        evaluation = {} if self.evaluation_reward_mean is None else {EVALUATED: self.evaluation_reward_mean}
        return {
            "episode_reward_mean": self.reward_mean(),
            "episode_len_mean": fmean(self.lengths) if self.lengths else None,
            **evaluation,
        }

    def report(self) -> dict[str, Any]:
        """Return how far the run has come, as its status says it."""
        mean = self.reward_mean()
        return {
            "iteration": self.training_iteration,
            "timesteps_total": self.timesteps_total,
            "episodes_total": self.episodes_total,
            "episode_reward_mean": mean,
            "best_reward": self.best_reward,
            "reward": None if mean is None else f"{mean:.1f}",
            "time_total_s": round(self.time_total_s, 3),
        }

    def stopped_by(self, stop: Stop) -> str | None:
        """Return the first stop condition that holds, in words, or None.

        A mean return counts once it is over REWARD_WINDOW episodes, and that of an evaluation as soon as it is there.
        """
        evaluated = self.evaluation_reward_mean
        values: Mapping[str, float] = {
            "episode_reward_mean": fmean(self.returns) if len(self.returns) == REWARD_WINDOW else -math.inf,
            EVALUATED: -math.inf if evaluated is None else evaluated,
            "timesteps_total": self.timesteps_total,
            "training_iteration": self.training_iteration,
            "episodes_total": self.episodes_total,
            "time_total_s": self.time_total_s,
        }
        for name, limit in stop.model_dump(by_alias=True, exclude_none=True).items():
            if values[name] >= limit:
                return f"{name} >= {limit:g}"
        return None

    def state(self) -> dict[str, Any]:
        """Return everything, as a checkpoint keeps it."""
        return {name: list(value) if isinstance(value, deque) else value for name, value in vars(self).items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        for name, value in state.items():
            setattr(self, name, deque(value, REWARD_WINDOW) if isinstance(value, list) else value)

    def adopt_returns(self, state: dict[str, Any]) -> None:
        """Take the recent episodes of another run's `state()`, whose policy this run has taken over."""
        self.returns, self.lengths = deque(state["returns"], REWARD_WINDOW), deque(state["lengths"], REWARD_WINDOW)
        self.evaluation_reward_mean = None


def finite(value: float) -> float | None:
    """Return `value`, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None
