"""Sample everywhere, learn, repeat: PG, A2C, PPO, and from a replay buffer DQN, DDPG, TD3, SAC."""

from collections.abc import Iterator
from time import perf_counter

from rltrainer.api.options import Options
from rltrainer.core.execution import Iteration, Sampler, in_iterations


@in_iterations
def synchronous(backend: Sampler, options: Options, timesteps: int) -> Iterator[Iteration]:
    """Iterate without end, from `timesteps` on. What is learned from is always sampled with the newest weights."""
    while True:
        started = perf_counter()
        fragments, reports = backend.sample(backend.weights(timesteps))
        sampled = perf_counter()
        metrics = backend.update_from_fragments(fragments, timesteps)
        timesteps += sum(report.timesteps for report in reports)
        yield Iteration(reports, metrics, sampled - started, perf_counter() - sampled)
