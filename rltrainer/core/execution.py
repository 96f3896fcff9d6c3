"""Execution strategies: the order in which sampling and learning happen, wherever they happen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar

from rltrainer.api.options import Options
from rltrainer.core.types import EpisodeReport, Metrics

Request = Literal["sample", "gradient"]
"""What a worker can be asked for: a fragment, or the gradient that it finds in one."""

REPLAY_BEGUN = "replay_begun"
"""Among the numbers that are carried on: the timesteps of the run at which its replay began empty. `learning_starts`
counts from there."""


@dataclass(frozen=True)
class Completed:
    """A request that a worker has met."""

    worker: int
    product: Any
    """Its fragment or gradient, by reference where it lies elsewhere."""
    report: EpisodeReport


class Sampler(Protocol):
    """A backend as a strategy has it. References stay where their fragments are, until the learner reads them."""

    num_workers: int
    carried: dict[str, float]
    """Numbers that a strategy keeps from one round to the next; checkpoints keep them."""

    def weights(self, timesteps: int) -> Any:
        """Return a reference to the learner's weights, `timesteps` into the run.

        They are sent once, however many workers read them.
        """

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[EpisodeReport]]:
        """Sample a fragment with every worker. Returns references in the workers' order, and the reports."""

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """Improve the learner's networks once, `timesteps` into the run. Returns what to report."""

    def submit(self, worker: int, request: Request, weights: Any) -> None:
        """Submit a request to one worker, without waiting for it. Requests of one worker are met in their order."""

    def in_flight(self, worker: int) -> int:
        """Return how many requests of a worker are not met yet: a restored run may begin with some."""

    def poll(self) -> list[Completed]:
        """Wait until a request is met, and return all that are. A lost worker's request is submitted again to its
        replacement."""

    def apply_gradient(self, gradient: Any, timesteps: int) -> Metrics:
        """Take one step of the learner's optimizer along a worker's gradient, `timesteps` into the run."""

    def store(self, done: Completed) -> None:
        """Put a fragment into the replay shard that its worker belongs to."""

    def update_from_replay(self, timesteps: int) -> Metrics:
        """Take one update from a batch of the next shard that is not empty, and bring its priorities up to date.

        Nothing is learned, and the metrics are empty, where all are: as when the only one was lost."""


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
        """Add the rounds of a `later` one. An update that learned and reports nothing hides no earlier one."""
        self.reports += later.reports
        self.metrics = later.metrics or self.metrics
        self.sample_time_s += later.sample_time_s
        self.learn_time_s += later.learn_time_s

    def state(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Iteration":
        """Return the iteration of a `state()`."""
        return cls(**{**state, "reports": [EpisodeReport(**report) for report in state["reports"]]})


class Iterations(Iterator[Iteration]):
    """The rounds of a strategy, put together to iterations of at least `timesteps` steps each.

    Between two rounds nothing is under way: there a run can stop, and go on later as if it had not.
    """

    def __init__(self, rounds: Iterator[Iteration], timesteps: int = 0) -> None:
        self.rounds, self.timesteps = rounds, timesteps
        self.begun: Iteration | None = None
        """The rounds so far of an iteration that is not whole yet."""

    def __next__(self) -> Iteration:
        """Return the next whole iteration."""
        while (whole := self.round()) is None:
            pass
        return whole

    def round(self) -> Iteration | None:
        """Do one more round; return the iteration that is whole with it, or None where there are more to come."""
        latest = next(self.rounds)
        if self.begun is not None:
            self.begun.add(latest)
            latest = self.begun
        whole = latest.timesteps >= self.timesteps
        self.begun = None if whole else latest
        return latest if whole else None


SomeOptions = TypeVar("SomeOptions", bound=Options)
Strategy = Callable[[Sampler, SomeOptions, int], Iterator[Iteration]]
"""Iterations without end, from a backend, the options and the timesteps done before."""


def in_iterations(rounds: Strategy[SomeOptions]) -> Callable[[Sampler, SomeOptions, int], Iterations]:
    """Make of single rounds a strategy whose iterations have at least `timesteps_per_iteration` steps each."""

    @wraps(rounds)
    def iterations(backend: Sampler, options: SomeOptions, timesteps: int) -> Iterations:
        return Iterations(rounds(backend, options, timesteps), options.timesteps_per_iteration)

    return iterations


def as_iterations(iterations: Iterator[Iteration]) -> Iterations:
    """Return the iterations of a strategy as what can stop between rounds; of one's own, each may be one round."""
    return iterations if isinstance(iterations, Iterations) else Iterations(iterations)
