"""Replay shards as Ray actors."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from rltrainer.backend.ray.cluster import LOST, awaited, summary
from rltrainer.backend.ray.learners import to_the_end
from rltrainer.core.types import Tree
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import per_learner_options
from rltrainer.replay.buffer import Transitions
from rltrainer.replay.shards import Shard
from rltrainer.replay.sum_tree import Indices
from rltrainer.sampling.worker import WorkerConfig
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)

LOSSES = 10
"""Times that one shard may be lost."""
DRAWN_AHEAD = 3
"""Batches for each learner that are requested of the shards ahead of its updates."""


@dataclass(frozen=True)
class Drawn:
    """A batch that a shard has drawn."""

    shard: int
    index: Indices
    """Where its transitions lie in the shard, [N]."""
    batch: Any
    """A reference to it."""


class ShardActor(Shard):
    """A shard in a process of its own."""

    def draw_with_index(self, timesteps: int) -> tuple[Indices | None, Transitions | None]:
        """Draw a batch, with its index before it: the driver needs to see no more than that."""
        batch = self.draw(timesteps)
        return (None, None) if batch is None else (batch.index, batch)


class RayShards:
    """All shards. Batches are drawn ahead, so that the learner finds the next one waiting."""

    def __init__(self, worker_config: WorkerConfig, learners: int, check: Callable[[], None]) -> None:
        """Start the shards for so many `learners`, each of which draws its share of the batch size."""
        options: Any = worker_config.options  # of an algorithm with shards
        batch_size = per_learner_options(options, learners).batch_size
        self.options = options.model_copy(update={"batch_size": batch_size})
        self.seed, self.check = worker_config.seed, check
        count = self.options.shards
        self.actors = [self._actor(i, 0) for i in range(count)]
        self.losses = [0] * count
        self.ahead = DRAWN_AHEAD * learners
        self.requested: deque[tuple[int, Any, Any]] = deque()
        """Shard, and references to the index and the batch, of what was requested and not yet handed out."""
        self.next_shard = 0

    def _actor(self, index: int, generation: int) -> Any:
        seed = derived_seed(self.seed, Role.REPLAY, index, generation)
        return ray.remote(ShardActor).options(num_cpus=0).remote(self.options, seed)

    def add(self, worker: int, fragment: Any) -> None:
        """Send a fragment, by reference, to its worker's shard. One that is lost on the way is left out."""
        self.actors[worker % len(self.actors)].add.remote(worker, fragment)

    def draw(self, timesteps: int) -> Drawn | None:
        """Return the next batch, of the shards in turn.

        An empty shard is passed over. None where all of them are empty: only more samples can change that.
        """
        for _ in range(self.ahead + len(self.actors)):
            while len(self.requested) < self.ahead:
                references = self.actors[self.next_shard].draw_with_index.options(num_returns=2).remote(timesteps)
                self.requested.append((self.next_shard, *references))
                self.next_shard = (self.next_shard + 1) % len(self.actors)
            shard, reference, batch = self.requested.popleft()
            try:
                (index,) = awaited([reference], to_the_end, f"replay shard {shard}")
            except LOST as error:
                self._replace(shard, error)
                continue
            if index is not None:
                return Drawn(shard, index, batch)
        return None

    def _replace(self, shard: int, error: Exception) -> None:
        self.losses[shard] += 1
        if self.losses[shard] > LOSSES:
            raise RunError("WorkerLost", f"replay shard {shard} was lost {LOSSES} times: {summary(error)}") from error
        log.warning("replay shard %d was lost and begins empty (%s)", shard, summary(error))
        ray.kill(self.actors[shard])
        self.actors[shard] = self._actor(shard, self.losses[shard])
        self.requested = deque(each for each in self.requested if each[0] != shard)

    def update_priorities(self, shard: int, index: Indices, td_error: Any) -> None:
        """Send a batch's temporal differences [N], or a reference to them, to the shard it was drawn from."""
        self.actors[shard].update_priorities.remote(index, td_error)

    def state(self) -> Tree:
        """Return the state of each shard that answers, by its number."""
        states: Tree = {}
        for i, reference in enumerate([actor.state.remote() for actor in self.actors]):
            try:
                (states[str(i)],) = awaited([reference], self.check, f"replay shard {i}")
            except LOST:
                log.warning("replay shard %d does not answer: it is not in the checkpoint", i)
        return states

    def load(self, states: Tree) -> bool:
        """Go on from `state()`; return whether any shard does. One that is not in it, or does not fit, begins empty."""
        self.requested.clear()
        restored = {i: states[str(i)] for i in range(len(self.actors)) if str(i) in states}
        calls = [self.actors[i].load.remote(state) for i, state in restored.items()]
        held = awaited(calls, self.check, "the replay shards")
        for i, goes_on in zip(restored, held, strict=True):
            if not goes_on:
                log.warning("replay shard %d begins empty: it was of other workers, or of another size", i)
        return any(held)

    def close(self) -> None:
        """End their processes."""
        for actor in self.actors:
            ray.kill(actor)
