"""The order of sampling and learning: who waits for whom, how old weights may be, how often there is an update."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
from pydantic import ValidationError

from rltrainer.api.options import ReplayBuffer
from rltrainer.api.options.off_policy import ApexDQNOptions
from rltrainer.api.options.on_policy import A3COptions, IMPALAOptions
from rltrainer.core.execution import Completed, Iteration, Request
from rltrainer.core.types import EpisodeReport, Metrics
from rltrainer.execution.asynchronous import asynchronous, asynchronous_gradients
from rltrainer.execution.sharded_replay import sharded_replay
from rltrainer.execution.synchronous import synchronous
from tests.unit.trainer.helpers import serial, small, worker_config

STEPS = 10
"""Of each fragment here."""


class Fake:
    """Workers that answer in turn, but for those that `stall`. Weights are numbers that count the updates."""

    def __init__(self, num_workers: int, stall: tuple[int, ...] = ()) -> None:
        self.num_workers, self.stall = num_workers, stall
        self.requests: deque[tuple[int, Request, int]] = deque()
        self.carried: dict[str, float] = {}
        self.version = 0
        self.asked: list[tuple[int, int, int]] = []
        """Worker, the version of the weights it was given, the newest then."""
        self.learnt: list[list[int]] = []
        """The versions that each update learnt from were sampled with."""
        self.most: Counter[int] = Counter()
        """Requests of a worker under way at once."""
        self.told: list[int] = []
        """Timesteps, as weights and updates were told them."""
        self.stored: list[int] = []
        self.served: Counter[int] = Counter()

    def weights(self, timesteps: int) -> int:
        self.told.append(timesteps)
        return self.version

    def sample(self, weights: int) -> tuple[Sequence[Any], list[EpisodeReport]]:
        return [weights] * self.num_workers, [EpisodeReport(STEPS) for _ in range(self.num_workers)]

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        self.told.append(timesteps)
        self.learnt.append(list(fragments))
        self.version += 1
        return {"loss": float(self.version)}

    def submit(self, worker: int, request: Request, weights: int) -> None:
        self.requests.append((worker, request, weights))
        self.asked.append((worker, weights, self.version))
        self.most[worker] = max(self.most[worker], self.in_flight(worker))

    def in_flight(self, worker: int) -> int:
        return sum(each[0] == worker for each in self.requests)

    def poll(self) -> list[Completed]:
        for request in self.requests:
            if request[0] not in self.stall:
                self.requests.remove(request)
                self.served[request[0]] += 1
                return [Completed(request[0], request[2], EpisodeReport(STEPS))]
        raise AssertionError("waits for ever")

    def apply_gradient(self, gradient: int, timesteps: int) -> Metrics:
        return self.update_from_fragments([gradient], timesteps)

    def store(self, done: Completed) -> None:
        self.stored.append(done.worker)

    def update_from_replay(self, timesteps: int) -> Metrics:
        return self.update_from_fragments([], timesteps)


def run(iterations: Iterator[Iteration], count: int) -> list[Iteration]:
    return list(islice(iterations, count))


def test_what_is_learnt_in_step_was_sampled_with_the_newest_weights() -> None:
    backend = Fake(3)
    run(synchronous(backend, IMPALAOptions(timesteps_per_iteration=0), 100), 4)
    assert backend.learnt == [[version] * 3 for version in range(4)]
    assert backend.told == [100, 100, 130, 130, 160, 160, 190, 190]


@pytest.mark.parametrize(("wanted", "rounds"), [(0, 1), (1, 1), (30, 1), (31, 2), (90, 3)])
def test_an_iteration_has_as_many_steps_as_asked_for_at_least(wanted: int, rounds: int) -> None:
    (iteration,) = run(synchronous(Fake(3), IMPALAOptions(timesteps_per_iteration=wanted), 0), 1)
    assert iteration.timesteps == 30 * rounds
    assert iteration.metrics == {"loss": rounds}


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_no_worker_is_asked_for_more_than_its_requests_in_flight(in_flight: int) -> None:
    backend = Fake(3)
    options = IMPALAOptions(requests_in_flight=in_flight, train_batch_size=20, timesteps_per_iteration=0)
    run(asynchronous(backend, options, 0), 40)
    assert set(backend.most.values()) == {in_flight}
    assert all(given == newest for _, given, newest in backend.asked)
    age = max(version - min(versions) for version, versions in enumerate(backend.learnt))
    assert age <= in_flight * 3 / 2, "updates of two fragments, of three workers' requests"


def test_a_batch_is_larger_than_all_requests_together() -> None:
    """One worker, one request of 10 steps at a time, and batches of 35."""
    backend = Fake(1)
    options = IMPALAOptions(requests_in_flight=1, train_batch_size=35, timesteps_per_iteration=0)
    run(asynchronous(backend, options, 0), 5)
    assert backend.learnt == [[version] * 4 for version in range(5)]


@pytest.mark.parametrize("batch", [10, 200])
def test_a_slow_worker_does_not_stall_the_others(batch: int) -> None:
    """Worker 0 never answers, and the others' fragments go on being learnt from, however large the batches are."""
    backend = Fake(3, stall=(0,))
    options = IMPALAOptions(requests_in_flight=2, train_batch_size=batch, timesteps_per_iteration=0)
    run(asynchronous(backend, options, 0), 20)
    assert backend.served.keys() == {1, 2}
    assert backend.served[1] == pytest.approx(backend.served[2], abs=2)
    gradients = Fake(3, stall=(0,))
    run(asynchronous_gradients(gradients, A3COptions(timesteps_per_iteration=0), 0), 20)
    assert gradients.served.keys() == {1, 2}
    update_from_replay = Fake(3, stall=(0,))
    run(sharded_replay(update_from_replay, ApexDQNOptions(timesteps_per_iteration=0), 0), 20)
    assert update_from_replay.served.keys() == {1, 2}


def test_each_gradient_is_followed_as_it_comes_and_its_worker_alone_goes_on() -> None:
    backend = Fake(3)
    run(asynchronous_gradients(backend, A3COptions(timesteps_per_iteration=0), 50), 6)
    assert backend.learnt == [[0], [0], [0], [1], [2], [3]], "as old as the other workers are many"
    assert [worker for worker, _, _ in backend.asked[3:]] == [0, 1, 2, 0, 1, 2]
    assert backend.told == [50] + [t for t in range(50, 110, 10) for t in (t, t + 10)]


@pytest.mark.parametrize("rate", [0.05, 0.25, 1.5])
def test_updates_keep_pace_with_the_steps(rate: float) -> None:
    backend = Fake(2)
    options = ApexDQNOptions(updates_per_step=rate, learning_starts=100, timesteps_per_iteration=0)
    done = run(sharded_replay(backend, options, 0), 60)
    steps = sum(iteration.timesteps for iteration in done)
    assert len(backend.learnt) == pytest.approx(rate * (steps - 90), abs=1), "since the fragment that made it 100"
    assert backend.stored == [0, 1] * 30


def test_updates_without_anything_to_draw_from_are_left_out() -> None:
    class Empty(Fake):
        def update_from_replay(self, timesteps: int) -> Metrics:
            return {} if 5 <= len(self.stored) < 10 else super().update_from_replay(timesteps)

    backend = Empty(2)
    options = ApexDQNOptions(updates_per_step=0.1, learning_starts=0, timesteps_per_iteration=0)
    done = run(sharded_replay(backend, options, 0), 20)
    assert len(backend.learnt) == 15
    assert [bool(iteration.metrics) for iteration in done] == [True] * 4 + [False] * 5 + [True] * 11


def test_weights_of_replay_workers_are_at_most_their_requests_behind() -> None:
    backend = Fake(2)
    options = ApexDQNOptions(updates_per_step=0.1, requests_in_flight=2, learning_starts=0, timesteps_per_iteration=0)
    run(sharded_replay(backend, options, 0), 40)
    assert set(backend.most.values()) == {2}
    assert all(newest - given <= 1 for _, given, newest in backend.asked)


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (2, 2), (2, 3), (3, 3)])
def test_shards_share_workers_and_capacity_and_are_drawn_from_in_turn(shards: int, workers: int) -> None:
    config = small("ApexDQN", replay_shards=shards, num_workers=workers, buffer_size=600, updates_per_step=0.25)
    backend, iterations = serial(worker_config(run="ApexDQN", **config))
    done = run(iterations, 40)
    steps = sum(iteration.timesteps for iteration in done)
    options = backend.worker_config.options
    assert isinstance(options, ReplayBuffer)
    assert backend.learner.context.counters["updates"] == pytest.approx((steps - 40) * options.updates_per_step, abs=9)
    assert len(backend.shards) == shards
    assert [len(shard.replay) > 0 for shard in backend.shards] == [True] * shards
    assert sum(shard.replay.capacity for shard in backend.shards) == 600
    assert backend.next_shard == backend.learner.context.counters["updates"] % shards


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (1, 3), (2, 3), (3, 4), (4, 2)])
def test_the_smallest_buffer_that_the_options_allow_is_enough(shards: int, workers: int) -> None:
    config = small("ApexDQN", num_envs_per_worker=3, replay_shards=shards, num_workers=workers)

    def fits(size: int) -> bool:
        try:
            ApexDQNOptions.model_validate({**config, "buffer_size": size})
        except ValidationError:
            return False
        return True

    smallest = next(size for size in range(1, 1000) if fits(size))
    _, iterations = serial(worker_config(run="ApexDQN", **{**config, "buffer_size": smallest}))
    assert all(iteration.timesteps for iteration in run(iterations, 12))
