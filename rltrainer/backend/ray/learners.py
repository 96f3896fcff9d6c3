"""The learner as Ray's workers reach it: in the driver's process, or as one actor or several."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray
import torch

from rltrainer.backend.base import learner_state, load_learner, log_devices, make_learner
from rltrainer.backend.ray.cluster import LOST, awaited, receive, summary
from rltrainer.core.types import Array, Metrics, Tree, Weights
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import TIMEOUT, Address, Peers, columns, meeting, partition_envs
from rltrainer.learning.learner import Gradient
from rltrainer.learning.threads import set_threads
from rltrainer.sampling.worker import WorkerConfig

log = logging.getLogger(__name__)

PER_LEARNER = ("rng", "memory")
"""What of a learner's state differs from one to the next, and stands under its number."""
INLINE_BYTES = 64 << 10
"""Bytes of weights that Ray hands over within a request, without shared memory: it does so up to 100 kB in all."""
Part = list[tuple[Any, slice]]
"""References to fragments, and which of their environments a learner takes."""


class Learners(Protocol):
    """Where learning happens. Fragments and batches come as references, and weights go as one, or as themselves."""

    count: int
    """Learners that share the work."""
    remote: bool
    """Whether fragments are read elsewhere: the driver need not fetch them."""

    def weights(self, timesteps: int) -> Any:
        """Return the weights, `timesteps` into the run, or a reference to them."""

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """Improve the learners once, and return what they report. Fragments come as themselves where not `remote`."""

    def update_from_replay(self, batches: Sequence[Any], timesteps: int) -> tuple[Metrics, list[Any]]:
        """Update once from a batch for each learner; return what they report, and each batch's temporal differences."""

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """Take one step of the optimizer along a gradient that a worker found."""

    def state(self) -> Tree:
        """Return the learner's parts of a checkpoint: `policy`, `learner` and `replay`."""

    def load(self, tree: Tree) -> None:
        """Go on from `state()`."""

    def close(self) -> None:
        """End their processes."""


class LocalLearner:
    """The learner in the driver's process."""

    count, remote = 1, False

    def __init__(self, worker_config: WorkerConfig) -> None:
        self.learner = make_learner(worker_config)

    def weights(self, timesteps: int) -> Any:
        """Return small weights as themselves: to put them costs more than to copy them with each request."""
        weights = self.learner.weights(timesteps)
        size = sum(array.nbytes for array in (weights["parameters"], *weights["buffers"].values()))
        return weights if size <= INLINE_BYTES else ray.put(weights)

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """Improve the learner once."""
        return self.learner.update_from_fragments(list(fragments), timesteps)

    def update_from_replay(self, batches: Sequence[Any], timesteps: int) -> tuple[Metrics, list[Any]]:
        """Update from the one batch, fetched to this process."""
        (batch,) = batches
        metrics, td_error = self.learner.update_from_replay(receive(batch), timesteps)
        return metrics, [td_error]

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """Take one step of the optimizer along a gradient."""
        self.learner.apply_gradient(gradient, timesteps)

    def state(self) -> Tree:
        """Return the learner's parts of a checkpoint."""
        return learner_state(self.learner)

    def load(self, tree: Tree) -> None:
        """Go on from `state()`."""
        load_learner(self.learner, tree)

    def close(self) -> None:
        """Leave this process alone."""


class LearnerActor:
    """A learner in a process of its own, alone or one of several."""

    def __init__(self, worker_config: WorkerConfig) -> None:
        set_threads(worker_config.options, worker_config.spaces)
        self.worker_config = worker_config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def device_name(self) -> str:
        """Return the GPU that it learns on; nothing where it learns on CPUs."""
        return torch.cuda.get_device_name() if self.device.type == "cuda" else ""

    def host(self, size: int) -> Address:
        """Open the place where all `size` learners meet, at a free port of this one's node; return its address."""
        self.store = meeting((ray.util.get_node_ip_address(), 0), size, host=True)  # type: ignore[no-untyped-call]
        return self.store.host, self.store.port

    def join(self, rank: int, size: int, address: Address, timeout: float) -> None:
        """Build the learner, as number `rank` of `size` that meet at `address` and wait `timeout` s for another."""
        peers = None
        if size > 1:
            store = self.store if rank == 0 else meeting(address, size)
            peers = Peers(rank, size, self.device, store, timeout)
            torch.set_num_threads(max(1, torch.get_num_threads() // size))  # they may all be on one node
        self.learner = make_learner(self.worker_config, self.device, peers)

    def weights(self, timesteps: int) -> Weights:
        """Copy the learner's weights."""
        return self.learner.weights(timesteps)

    def update_from_fragments(self, timesteps: int, part: Part) -> Metrics | None:
        """Improve the learner once. None, and nothing is changed, where any learner cannot have its fragments."""
        fragments, peers = fetch_part(part), self.learner.peers
        missing = int(fragments is None)
        if (missing if peers is None else peers.total(missing)) or fragments is None:
            return None
        return self.learner.update_from_fragments(fragments, timesteps)

    def update_from_replay(self, batch: Any, timesteps: int) -> tuple[Metrics, Array]:
        """Update once from a batch; return what to report, and its temporal differences [N]."""
        return self.learner.update_from_replay(batch, timesteps)

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """Take one step of the optimizer along a gradient."""
        self.learner.apply_gradient(gradient, timesteps)

    def state(self) -> Tree:
        """Return its parts of a checkpoint. Learners after the first leave out what all have in common."""
        tree = learner_state(self.learner)
        if self.learner.context.rank == 0:
            return tree
        return {"learner": {name: tree["learner"][name] for name in PER_LEARNER}, "replay": tree["replay"]}

    def load(self, tree: Tree) -> None:
        """Go on from the group's state, and this learner's own replay."""
        load_learner(self.learner, tree)


def fetch_part(part: Part) -> list[Any] | None:
    """Fetch the fragments of a part; None where one of them was lost with the node that it lay on."""
    try:
        fragments = ray.get([reference for reference, _ in part])
    except LOST:
        return None
    return [columns(fragment, where) for fragment, (_, where) in zip(fragments, part, strict=True)]


class RayLearners:
    """Learners as actors. Fragments go by reference to those that learn from them."""

    remote = True

    def __init__(self, worker_config: WorkerConfig, shared: Any, check: Callable[[], None]) -> None:
        """Start the learners; `shared` is a reference to `worker_config`."""
        self.worker_config, self.check = worker_config, check
        self.count = max(1, worker_config.options.num_learners)
        gpus = worker_config.options.num_gpus
        self.description = "the learner" if self.count == 1 else f"{self.count} learners"
        self.description += ", each of which needs a GPU" if gpus else ""
        make = ray.remote(LearnerActor).options(num_cpus=1, num_gpus=gpus * worker_config.gpu_share)
        self.actors: list[Any] = [make.remote(shared) for _ in range(self.count)]
        if gpus:
            log_devices(self._all([actor.device_name.remote() for actor in self.actors]))
        address = self._all([self.actors[0].host.remote(self.count)])[0] if self.count > 1 else None
        self._all([actor.join.remote(rank, self.count, address, TIMEOUT) for rank, actor in enumerate(self.actors)])

    def _all(self, references: Sequence[Any], check: Callable[[], None] | None = None) -> list[Any]:
        """Wait for all calls and return their results. Raises RunError if a learner was lost."""
        try:
            return awaited(references, check or self.check, self.description)
        except LOST as error:
            raise RunError("LearnerLost", f"a learner's process was lost: {summary(error)}") from error

    def weights(self, timesteps: int) -> Any:
        """Return a reference to the weights of the first learner: all have the same."""
        return self.actors[0].weights.remote(timesteps)

    def update_from_fragments(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """Improve all learners together, once. An update whose fragments were lost is left out."""
        parts = partition_envs(len(fragments), self.worker_config.options.num_envs_per_worker, self.count)
        calls = [
            actor.update_from_fragments.remote(timesteps, [(fragments[k], where) for k, where in part])
            for actor, part in zip(self.actors, parts, strict=True)
        ]
        metrics = self._all(calls, to_the_end)
        if any(each is None for each in metrics):
            log.warning("a fragment was lost on its way to a learner: the update is left out")
            return {}
        return mean_over_learners(metrics)

    def update_from_replay(self, batches: Sequence[Any], timesteps: int) -> tuple[Metrics, list[Any]]:
        """Update all learners together, once, each from its batch."""
        calls = [
            actor.update_from_replay.options(num_returns=2).remote(batch, timesteps)
            for actor, batch in zip(self.actors, batches, strict=True)
        ]
        metrics = self._all([metrics for metrics, _ in calls], to_the_end)
        return mean_over_learners(metrics), [td_error for _, td_error in calls]

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """Have all learners take the same step of the optimizer."""
        reference = ray.put(gradient)
        self._all([actor.apply_gradient.remote(reference, timesteps) for actor in self.actors], to_the_end)

    def state(self) -> Tree:
        """Return the parts of a checkpoint: what all have in common once, the rest under each learner's number."""
        states = self._all([actor.state.remote() for actor in self.actors])
        learner = dict(states[0]["learner"])
        for name in PER_LEARNER:
            learner[name] = {rank: value for each in states for rank, value in each["learner"][name].items()}
        replay = {str(rank): each["replay"]["0"] for rank, each in enumerate(states) if each["replay"]}
        return {"policy": states[0]["policy"], "learner": learner, "replay": replay}

    def load(self, tree: Tree) -> None:
        """Go on from `state()`. The replay of another number of learners is left out."""
        replay = tree["replay"]
        if replay and len(replay) != self.count:
            log.warning("the replay of %d learners does not fit %d: it begins empty", len(replay), self.count)
            replay = {}
        common = {name: tree[name] for name in ("policy", "learner")}
        parts = [{"0": replay[str(rank)]} if replay else {} for rank in range(self.count)]
        pairs = zip(self.actors, parts, strict=True)
        self._all([actor.load.remote({**common, "replay": part}) for actor, part in pairs])

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)


def to_the_end() -> None:
    """Let a wait be: an update that was begun is made whole, so that what is learned is what was counted."""


def mean_over_learners(metrics: Sequence[Metrics]) -> Metrics:
    """Return the mean of each number over the learners that report it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    reported = {name: [each[name] for each in metrics if name in each] for name in names}
    return {name: sum(values) / len(values) for name, values in reported.items()}
