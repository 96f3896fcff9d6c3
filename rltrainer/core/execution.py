"""Execution strategies: the order in which sampling and learning happen, wherever they happen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar

from rltrainer.api.options import Options
from rltrainer.core.types import EpisodeReport, Metrics

Request = Literal["sample", "gradient"]
"""What a worker is asked for: a fragment, or the gradient that it finds in one."""


@dataclass(frozen=True)
class Completed:
    """What a worker has finished."""

    worker: int
    product: Any
    """Its fragment or gradient, by reference where it lies elsewhere."""
    report: EpisodeReport


class Sampler(Protocol):
    """What a strategy needs of a backend. References stay where their fragments are, until the learner reads them."""

    num_workers: int

    def weights(self, timesteps: int) -> Any:
        """A reference to the learner's weights, `timesteps` into the run, sent once however many workers read them."""

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[EpisodeReport]]:
        """A fragment of every worker, by reference and in the workers' order, and what each reports."""

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """One improvement of the learner, `timesteps` into the run."""

    def submit(self, worker: int, request: Request, weights: Any) -> None:
        """Asks one worker for something, and does not wait for it. Requests of one worker are met in their order."""

    def poll(self) -> list[Completed]:
        """Waits until something that was begun is there, and returns all that is. A lost worker's request is begun
        again with its replacement."""

    def apply_gradient(self, gradient: Any, timesteps: int) -> Metrics:
        """One step of the learner's optimiser along a worker's gradient, `timesteps` into the run."""

    def store(self, done: Completed) -> None:
        """Puts a fragment into the replay shard that its worker belongs to."""

    def update_from_replay(self, timesteps: int) -> Metrics:
        """One update from a batch of the next shard that holds anything, whose priorities it brings up to date.

        Nothing is learnt, and the metrics are empty, where none does: as when the only one was lost."""


@dataclass
class Iteration:
    """One round of sampling and learning, or several."""

    reports: list[EpisodeReport]
    metrics: Metrics
    sample_time_s: float
    learn_time_s: float

    @property
    def timesteps(self) -> int:
        """Environment steps in it."""
        return sum(report.timesteps for report in self.reports)

    def add(self, later: "Iteration") -> None:
        """Takes in what followed. An update that learnt nothing, and so reports nothing, hides no earlier one."""
        self.reports += later.reports
        self.metrics = later.metrics or self.metrics
        self.sample_time_s += later.sample_time_s
        self.learn_time_s += later.learn_time_s


SomeOptions = TypeVar("SomeOptions", bound=Options)
Strategy = Callable[[Sampler, SomeOptions, int], Iterator[Iteration]]
"""Iterations without end, from a backend, the options and the timesteps done before."""


def in_iterations(rounds: Strategy[SomeOptions]) -> Strategy[SomeOptions]:
    """A strategy from one whose iterations are single rounds: of at least `timesteps_per_iteration` steps each."""

    @wraps(rounds)
    def iterations(backend: Sampler, options: SomeOptions, timesteps: int) -> Iterator[Iteration]:
        coming = rounds(backend, options, timesteps)
        for iteration in coming:
            while iteration.timesteps < options.timesteps_per_iteration:
                iteration.add(next(coming))
            yield iteration

    return iterations
