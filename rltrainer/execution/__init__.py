"""Execution strategies: the order in which sampling and learning happen, wherever they happen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rltrainer.algorithm import Metrics
from rltrainer.sampling import Report


class Sampler(Protocol):
    """What a strategy needs of a backend. References stay where their fragments are, until the learner reads them."""

    def weights(self) -> Any:
        """A reference to the learner's weights, sent once however many workers read them."""

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[Report]]:
        """A fragment of every worker, by reference and in the workers' order, and what each reports."""

    def improve(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """One improvement of the learner, `timesteps` into the run."""


@dataclass
class Iteration:
    """One round of sampling and learning."""

    reports: list[Report]
    metrics: Metrics
    sample_time_s: float
    learn_time_s: float
