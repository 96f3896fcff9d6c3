"""Many workers fill sharded replay buffers while the learner draws from them: Horgan et al. 2018, arXiv 1803.00933.

The paper lets both sides run free. Here they are coupled: workers are at most their requests in flight ahead of
`updates_per_step`, so that what is learned in so many steps does not depend on how fast the machine samples.
"""

from collections.abc import Iterator
from time import perf_counter

from rltrainer.api.options.off_policy import ApexDDPGOptions, ApexDQNOptions
from rltrainer.core.execution import REPLAY_BEGUN, Iteration, Sampler, in_iterations
from rltrainer.execution.asynchronous import submit_up_to


@in_iterations
def sharded_replay(backend: Sampler, options: ApexDQNOptions | ApexDDPGOptions, timesteps: int) -> Iterator[Iteration]:
    """Iterate without end, from `timesteps` on."""
    weights = backend.weights(timesteps)
    submit_up_to(backend, options.requests_in_flight, weights)
    while True:
        started = perf_counter()
        iteration = Iteration([], {}, 0.0, 0.0)
        for completed in backend.poll():
            backend.store(completed)
            backend.submit(completed.worker, "sample", weights)
            iteration.reports.append(completed.report)
        begun = backend.carried.setdefault(REPLAY_BEGUN, timesteps)
        timesteps += iteration.timesteps
        due = backend.carried.get("due", 0.0) + iteration.timesteps * options.updates_per_step
        sampled = perf_counter()
        due = due if timesteps - begun >= options.learning_starts else 0.0
        while due >= 1:  # an update that nothing is there for is left out: it would wear out what comes first
            iteration.metrics, due = backend.update_from_replay(timesteps) or iteration.metrics, due - 1
        backend.carried["due"] = due
        weights = backend.weights(timesteps)
        iteration.sample_time_s, iteration.learn_time_s = sampled - started, perf_counter() - sampled
        yield iteration
