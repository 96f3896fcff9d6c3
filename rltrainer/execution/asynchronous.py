"""Workers that never wait for each other, and a learner that takes what is there: IMPALA, APPO and A3C.

A fragment is learnt from with newer weights than it was sampled with; how old they may be is bounded by the requests
that each worker has in flight. Espeholt et al. 2018, arXiv 1802.01561; Mnih et al. 2016, arXiv 1602.01783.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from rltrainer.api.options.on_policy import A3COptions, IMPALAOptions
from rltrainer.core.execution import Completed, Iteration, Sampler, in_iterations


@in_iterations
def asynchronous(backend: Sampler, options: IMPALAOptions, timesteps: int) -> Iterator[Iteration]:
    """Iterations without end, from `timesteps` on: batches of at least `train_batch_size` steps, as they come."""
    weights = backend.weights(timesteps)
    under_way = [0] * backend.num_workers
    submit_up_to(backend, under_way, options.requests_in_flight, weights)
    while True:
        begun = perf_counter()
        queue: list[Completed] = []
        while sum(done.report.timesteps for done in queue) < options.train_batch_size:
            submit_up_to(backend, under_way, 1, weights)  # else a batch might wait for the slowest, or for nobody
            for done in backend.poll():
                under_way[done.worker] -= 1
                queue.append(done)
        sampled = perf_counter()
        metrics = backend.update_from_fragments([done.product for done in queue], timesteps)
        timesteps += sum(done.report.timesteps for done in queue)
        weights = backend.weights(timesteps)
        submit_up_to(backend, under_way, options.requests_in_flight, weights)  # not before: these weights are newer
        yield Iteration([done.report for done in queue], metrics, sampled - begun, perf_counter() - sampled)


def submit_up_to(backend: Sampler, under_way: list[int], count: int, weights: Any) -> None:
    """Asks the workers for fragments until each has `count` requests or more under way, and counts them there."""
    for depth in range(count):
        for worker in range(backend.num_workers):
            if under_way[worker] == depth:
                backend.submit(worker, "sample", weights)
                under_way[worker] += 1


@in_iterations
def asynchronous_gradients(backend: Sampler, options: A3COptions, timesteps: int) -> Iterator[Iteration]:
    """Iterations without end, from `timesteps` on: each worker's gradient is applied as it comes, and that worker alone
    goes on with the new weights."""
    weights = backend.weights(timesteps)
    for worker in range(backend.num_workers):
        backend.submit(worker, "gradient", weights)
    while True:
        begun = perf_counter()
        arrived = backend.poll()
        sampled = perf_counter()
        iteration = Iteration([done.report for done in arrived], {}, sampled - begun, 0.0)
        for done in arrived:
            iteration.metrics = backend.apply(done.product, timesteps) or iteration.metrics
            timesteps += done.report.timesteps
            backend.submit(done.worker, "gradient", backend.weights(timesteps))
        iteration.learn_time_s = perf_counter() - sampled
        yield iteration
