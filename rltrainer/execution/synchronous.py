"""Sample everywhere, learn, repeat: PG, A2C, PPO, and from a replay buffer DQN, DDPG, TD3, SAC."""

from collections.abc import Iterator
from time import perf_counter

from rltrainer.api.options import Options
from rltrainer.core.execution import Iteration, Sampler, in_iterations


@in_iterations
def synchronous(backend: Sampler, options: Options, timesteps: int) -> Iterator[Iteration]:
    """Iterations without end, from `timesteps` on. What is learnt is always sampled with the newest weights."""
    while True:
        begun = perf_counter()
        fragments, reports = backend.sample(backend.weights(timesteps))
        sampled = perf_counter()
        metrics = backend.update_from_fragments(fragments, timesteps)
        timesteps += sum(report.timesteps for report in reports)
        yield Iteration(reports, metrics, sampled - begun, perf_counter() - sampled)
