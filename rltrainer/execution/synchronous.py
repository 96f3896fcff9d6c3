"""Sample everywhere, learn once, repeat: PG, A2C, PPO."""

from collections.abc import Iterator
from time import perf_counter

from rltrainer.execution import Iteration, Sampler


def synchronous(backend: Sampler, timesteps: int) -> Iterator[Iteration]:
    """Iterations without end, from `timesteps` on. What is learnt is always sampled with the newest weights."""
    while True:
        begun = perf_counter()
        fragments, reports = backend.sample(backend.weights())
        sampled = perf_counter()
        metrics = backend.improve(fragments, timesteps)
        timesteps += sum(report.timesteps for report in reports)
        yield Iteration(reports, metrics, sampled - begun, perf_counter() - sampled)
