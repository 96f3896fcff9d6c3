"""Workers that never wait for each other, and a learner that takes what is there: IMPALA, APPO and A3C.

A fragment is learned from with newer weights than it was sampled with; how old they may be is bounded by the requests
that each worker has in flight. Espeholt et al. 2018, arXiv 1802.01561; Mnih et al. 2016, arXiv 1602.01783.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from rltrainer.api.options.on_policy import A3COptions, IMPALAOptions
from rltrainer.core.execution import Completed, Iteration, Request, Sampler, in_iterations


@in_iterations
def asynchronous(backend: Sampler, options: IMPALAOptions, timesteps: int) -> Iterator[Iteration]:
    """Iterate without end, from `timesteps` on: batches of at least `train_batch_size` steps, as they come."""
    weights = backend.weights(timesteps)
    submit_up_to(backend, options.requests_in_flight, weights)
    while True:
        started = perf_counter()
        queue: list[Completed] = []
        while sum(completed.report.timesteps for completed in queue) < options.train_batch_size:
            submit_up_to(backend, 1, weights)  # else a batch might wait for the slowest, or for nobody
            queue += backend.poll()
        sampled = perf_counter()
        metrics = backend.update_from_fragments([completed.product for completed in queue], timesteps)
        timesteps += sum(completed.report.timesteps for completed in queue)
        weights = backend.weights(timesteps)
        submit_up_to(backend, options.requests_in_flight, weights)  # not before: these weights are newer
        yield Iteration([completed.report for completed in queue], metrics, sampled - started, perf_counter() - sampled)


def submit_up_to(backend: Sampler, count: int, weights: Any, request: Request = "sample") -> None:
    """Submit requests until each worker has `count` or more in flight."""
    for depth in range(count):
        for worker in range(backend.num_workers):
            if backend.in_flight(worker) == depth:
                backend.submit(worker, request, weights)


@in_iterations
def asynchronous_gradients(backend: Sampler, options: A3COptions, timesteps: int) -> Iterator[Iteration]:
    """Iterate without end, from `timesteps` on.

    Each worker's gradient is applied as it comes, and that worker alone goes on with the new weights.
    """
    submit_up_to(backend, 1, backend.weights(timesteps), "gradient")
    while True:
        started = perf_counter()
        arrived = backend.poll()
        sampled = perf_counter()
        iteration = Iteration([completed.report for completed in arrived], {}, sampled - started, 0.0)
        for completed in arrived:
            iteration.metrics = backend.apply_gradient(completed.product, timesteps) or iteration.metrics
            timesteps += completed.report.timesteps
            backend.submit(completed.worker, "gradient", backend.weights(timesteps))
        iteration.learn_time_s = perf_counter() - sampled
        yield iteration
