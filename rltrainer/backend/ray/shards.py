"""Replay shards as Ray actors."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import ray

from rltrainer.backend.ray.cluster import LOST, awaited, summary
from rltrainer.errors import RunError
from rltrainer.replay.buffer import Transitions
from rltrainer.replay.shards import Shard
from rltrainer.replay.sum_tree import Indices
from rltrainer.sampling.worker import WorkerConfig
from rltrainer.seeding import Role, derived_seed
from rltrainer.storage.checkpoint import Tree

log = logging.getLogger(__name__)

LOSSES = 10
"""Times that one shard may be lost."""
DRAWN_AHEAD = 3
"""Batches for each learner that the shards are asked for ahead of its updates."""


class ShardActor(Shard):
    """A shard in a process of its own."""

    def draw_apart(self, timesteps: int) -> tuple[Indices | None, Transitions | None]:
        """As `draw`, with the index of the batch before it: the driver needs to see no more than that."""
        batch = self.draw(timesteps)
        return (None, None) if batch is None else (batch.index, batch)


class RayShards:
    """All shards. Batches are drawn ahead, so that the learner finds the next one waiting."""

    def __init__(self, worker_config: WorkerConfig, batch_size: int, learners: int, check: Callable[[], None]) -> None:
        """For so many `learners`, each of which draws batches of `batch_size` transitions."""
        self.options = worker_config.options.model_copy(update={"batch_size": batch_size})
        self.seed, self.check = worker_config.seed, check
        count = self.options.shards
        self.actors = [self._actor(i, 0) for i in range(count)]
        self.losses = [0] * count
        self.ahead = DRAWN_AHEAD * learners
        self.drawn: deque[tuple[int, Any, Any]] = deque()
        self.turn = 0

    def _actor(self, index: int, generation: int) -> Any:
        seed = derived_seed(self.seed, Role.REPLAY, index, generation)
        return ray.remote(ShardActor).options(num_cpus=0).remote(self.options, seed)

    def add(self, worker: int, fragment: Any) -> None:
        """Sends a fragment, by reference, to its worker's shard. One that is lost on the way is left out."""
        self.actors[worker % len(self.actors)].add.remote(worker, fragment)

    def draw(self, timesteps: int) -> tuple[int, Indices, Any] | None:
        """A shard, where its next batch lies in it, and a reference to that batch.

        An empty shard is passed over. None where all that were asked are empty: only more samples can change that.
        """
        for _ in range(self.ahead + len(self.actors)):
            while len(self.drawn) < self.ahead:
                drawn = self.actors[self.turn].draw_apart.options(num_returns=2).remote(timesteps)
                self.drawn.append((self.turn, *drawn))
                self.turn = (self.turn + 1) % len(self.actors)
            shard, reference, batch = self.drawn.popleft()
            try:
                (index,) = awaited([reference], self.check, f"replay shard {shard}")
            except LOST as error:
                self._replace(shard, error)
                continue
            if index is not None:
                return shard, index, batch
        return None

    def _replace(self, shard: int, error: Exception) -> None:
        self.losses[shard] += 1
        if self.losses[shard] > LOSSES:
            raise RunError("WorkerLost", f"replay shard {shard} was lost {LOSSES} times: {summary(error)}") from error
        log.warning("replay shard %d was lost and begins empty (%s)", shard, summary(error))
        ray.kill(self.actors[shard])
        self.actors[shard] = self._actor(shard, self.losses[shard])
        self.drawn = deque(each for each in self.drawn if each[0] != shard)

    def update_priorities(self, shard: int, index: Indices, td_error: Any) -> None:
        """See Shard. The temporal differences may come as a reference."""
        self.actors[shard].update_priorities.remote(index, td_error)

    def state(self) -> Tree:
        """The state of each shard that answers, by its number."""
        states: Tree = {}
        for i, reference in enumerate([actor.state.remote() for actor in self.actors]):
            try:
                (states[str(i)],) = awaited([reference], self.check, f"replay shard {i}")
            except LOST:
                log.warning("replay shard %d does not answer: it is not in the checkpoint", i)
        return states

    def load(self, states: Tree) -> None:
        """Goes on from `state()`. A shard that is not in it begins empty."""
        self.drawn.clear()
        there = [(actor, states[str(i)]) for i, actor in enumerate(self.actors) if str(i) in states]
        awaited([actor.load.remote(state) for actor, state in there], self.check, "the replay shards")

    def close(self) -> None:
        """Ends their processes."""
        for actor in self.actors:
            ray.kill(actor)
