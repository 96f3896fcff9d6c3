"""Sample everywhere, learn, repeat: PG, A2C, PPO, and from a replay buffer DQN, DDPG, TD3, SAC."""

from collections.abc import Iterator
from time import perf_counter

from rltrainer.execution import Iteration, Sampler
from rltrainer.options import Options


def synchronous(backend: Sampler, options: Options, timesteps: int) -> Iterator[Iteration]:
    """Iterations without end, from `timesteps` on. What is learnt is always sampled with the newest weights."""
    while True:
        iteration = Iteration([], {}, 0.0, 0.0)
        while not iteration.reports or iteration.timesteps < options.timesteps_per_iteration:
            begun = perf_counter()
            fragments, reports = backend.sample(backend.weights(timesteps))
            sampled = perf_counter()
            iteration.metrics = backend.improve(fragments, timesteps) or iteration.metrics
            timesteps += sum(report.timesteps for report in reports)
            iteration.reports += reports
            iteration.sample_time_s += sampled - begun
            iteration.learn_time_s += perf_counter() - sampled
        yield iteration
