"""Workers and the learner as Ray actors. The only file that knows Ray.

Weights are put once per version, fragments travel by reference, and a worker that is lost is replaced: its fragment is
sampled again by the replacement.
"""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

import ray
import torch
from ray import exceptions as rex

from rltrainer.algorithm import Metrics
from rltrainer.backend import learner_state, make_learner, start_worker
from rltrainer.checkpoint import Tree
from rltrainer.errors import RunError
from rltrainer.fragment import Fragment
from rltrainer.learner import Learner, Weights
from rltrainer.sampling import Blueprint, Report, Worker
from rltrainer.threads import set_threads

log = logging.getLogger(__name__)

LOST = (
    rex.RayActorError,
    rex.ObjectLostError,
    rex.NodeDiedError,
    rex.WorkerCrashedError,
    rex.OutOfMemoryError,
)
"""What says that a process or its node has gone, rather than that its code has failed."""
SPEAK_EVERY = 15.0
"""Seconds between lines that say what is being waited for."""
POLL = 0.5
"""Seconds after which a wait looks whether the run was asked to end."""
LOSSES = 10
"""Times that one worker may be lost in a row, without a fragment in between."""
REPLACEMENT = 1 << 20
"""Generations of replacements; a restored worker's is the iteration it was restored at."""
STATE_PATIENCE = 20.0
"""Seconds that a checkpoint waits for the workers' states."""

Start = tuple[Tree | None, int]
"""What a worker begins from: a saved state or None, and its generation."""


class WorkerActor:
    """A worker in a process of its own, built with its first fragment, so that what is wrong arrives as itself."""

    def __init__(self, blueprint: Blueprint, index: int) -> None:
        torch.set_num_threads(1)
        self.blueprint, self.index = blueprint, index
        self.worker: Worker | None = None

    def sample(self, weights: Weights, start: Start) -> tuple[Fragment, Report]:
        """One fragment; `start` counts for the first alone."""
        if self.worker is None:
            self.worker = start_worker(self.blueprint, self.index, *start)
        return self.worker.sample(weights)

    def pid(self) -> int:
        """The process it lives in."""
        return os.getpid()

    def state(self) -> Tree | None:
        """The worker's state, if it has begun."""
        return self.worker.state() if self.worker else None


class LearnerActor:
    """A learner in a process of its own, on a node with a GPU."""

    def __init__(self, blueprint: Blueprint) -> None:
        set_threads(blueprint.options, blueprint.spaces)
        self.learner = make_learner(blueprint, "cuda" if torch.cuda.is_available() else "cpu")

    def device(self) -> str:
        """What it learns on, in words."""
        return torch.cuda.get_device_name() if self.learner.device.type == "cuda" else ""

    def weights(self) -> Weights:
        """See Learner."""
        return self.learner.weights()

    def improve(self, timesteps: int, *fragments: Fragment) -> Metrics:
        """See Learner."""
        return self.learner.improve(list(fragments), timesteps)

    def state(self) -> Tree:
        """See Backend."""
        return learner_state(self.learner)

    def load(self, policy: Tree, state: Tree) -> None:
        """See Learner."""
        self.learner.load(policy, state)


class RayBackend:
    """Workers as actors; the learner in this process, or as an actor too where it is to have a GPU."""

    def __init__(self, blueprint: Blueprint, check: Callable[[], None]) -> None:
        options = blueprint.options
        self.check, self.blueprint = check, blueprint
        self.began_ray = connect(options.num_workers * options.num_cpus_per_worker, options.num_gpus)
        self.shared = ray.put(blueprint)
        self.learner: Learner | None = None
        self.remote: Any = None
        if options.num_gpus:
            self.remote = ray.remote(LearnerActor).options(num_gpus=1, num_cpus=1).remote(self.shared)
            self._say_device(self._get(self.remote.device.remote(), "the learner, which needs a GPU"))
        else:
            self.learner = make_learner(blueprint)
        count = max(1, options.num_workers)
        self.starts: list[Start] = [(None, 0)] * count
        self.losses = [0] * count
        self.actors = [self._actor(index) for index in range(count)]
        self.newest: Any = None

    def _say_device(self, name: str) -> None:
        if name:
            log.info("the learner is on a GPU: %s", name)
        else:
            log.warning("PyTorch sees no CUDA on the learner's node: it learns on the CPU")

    def _actor(self, index: int) -> Any:
        cpus = self.blueprint.options.num_cpus_per_worker
        return ray.remote(WorkerActor).options(num_cpus=cpus).remote(self.shared, index)

    def weights(self) -> Any:
        """See Sampler."""
        self.newest = self.remote.weights.remote() if self.learner is None else ray.put(self.learner.weights())
        return self.newest

    def sample(self, weights: Any) -> tuple[Sequence[Any], list[Report]]:
        """See Sampler."""
        waiting: dict[Any, tuple[int, Any]] = {}
        for index in range(len(self.actors)):
            self._begin(index, weights, waiting)
        fragments: dict[int, Any] = {}
        reports: dict[int, Report] = {}
        patience = Patience(self.check)
        while waiting:
            ready, rest = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL, fetch_local=False)
            patience.pause(bool(ready), partial(describe, len(rest), len(self.actors), self.losses))
            for reference in ready:
                index, fragment = waiting.pop(reference)
                try:
                    reports[index] = receive(reference)
                    fragments[index] = fragment if self.learner is None else receive(fragment)
                    self.losses[index] = 0
                except LOST as error:
                    self._replace(index, error)
                    self._begin(index, weights, waiting)
        order = range(len(self.actors))
        return [fragments[i] for i in order], [reports[i] for i in order]

    def _begin(self, index: int, weights: Any, waiting: dict[Any, tuple[int, Any]]) -> None:
        call = self.actors[index].sample.options(num_returns=2)
        fragment, report = call.remote(weights, self.starts[index])
        waiting[report] = (index, fragment)

    def _replace(self, index: int, error: Exception) -> None:
        self.check()
        self.losses[index] += 1
        reason = str(error).strip().splitlines()[0]
        if self.losses[index] > LOSSES:
            raise RunError("WorkerLost", f"worker {index} was lost {LOSSES} times in a row: {reason}")
        log.warning("worker %d was lost and is replaced; its fragment is sampled again (%s)", index, reason)
        ray.kill(self.actors[index])
        self.starts[index] = (None, REPLACEMENT + self.losses[index])
        self.actors[index] = self._actor(index)

    def improve(self, fragments: Sequence[Any], timesteps: int) -> Metrics:
        """See Sampler."""
        if self.learner is not None:
            return self.learner.improve(list(fragments), timesteps)
        try:
            metrics: Metrics = self._get(self.remote.improve.remote(timesteps, *fragments), "the learner")
        except rex.ObjectLostError as error:
            log.warning(
                "a fragment was lost on its way to the learner, and all are sampled again (%s)", type(error).__name__
            )
            return self.improve(self.sample(self.newest)[0], timesteps)
        return metrics

    def _get(self, reference: Any, whom: str) -> Any:
        """What `reference` stands for, once it is there. Raises Interrupted if the run is asked to end meanwhile."""
        patience = Patience(self.check)
        while not ray.wait([reference], timeout=POLL)[0]:
            patience.pause(False, lambda: f"{whom}; Ray has {resources()}")
        try:
            return receive(reference)
        except rex.RayActorError as error:
            raise RunError("LearnerLost", f"the learner's process was lost: {str(error).splitlines()[0]}") from error

    def state(self, workers: bool) -> Tree:
        """See Backend. A worker that does not answer is left out."""
        tree = (
            learner_state(self.learner)
            if self.learner is not None
            else self._get(self.remote.state.remote(), "the learner")
        )
        states: Tree = {}
        references = [actor.state.remote() for actor in self.actors] if workers else []
        ray.wait(references, num_returns=len(references), timeout=STATE_PATIENCE) if references else None
        for index, reference in enumerate(references):
            try:
                states[str(index)] = ray.get(reference, timeout=0)
            except (*LOST, rex.GetTimeoutError):
                log.warning("worker %d does not answer: its state is not in the checkpoint", index)
        return {**tree, "workers": {index: state for index, state in states.items() if state is not None}}

    def load(self, tree: Tree, generation: int) -> None:
        """See Backend."""
        if self.learner is not None:
            self.learner.load(tree["policy"], tree["learner"])
        else:
            self._get(self.remote.load.remote(tree["policy"], tree["learner"]), "the learner")
        self.starts = [(tree["workers"].get(str(index)), generation) for index in range(len(self.actors))]

    def close(self) -> None:
        """See Backend."""
        for actor in (*self.actors, *([self.remote] if self.remote is not None else [])):
            ray.kill(actor)
        if self.began_ray:
            ray.shutdown()


class Patience:
    """Waits that end when the run is asked to, and say every now and then what they wait for."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check, self.since = check, monotonic()

    def pause(self, progress: bool, what: Callable[[], str]) -> None:
        """Called between two looks; `what` is waited for unless there was `progress`. Raises Interrupted."""
        self.check()
        now = monotonic()
        if progress:
            self.since = now
        elif now - self.since >= SPEAK_EVERY:
            self.since = now
            log.info("waiting for %s", what())


def receive(reference: Any) -> Any:
    """What a finished call returned; an error of our own comes without Ray's traceback around it."""
    try:
        return ray.get(reference)
    except rex.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RunError):
            raise RunError(cause.reason, cause.message, cause.permanent) from None
        raise RunError("WorkerFailed", f"a worker failed: {type(cause).__name__}: {cause}") from error


def describe(missing: int, count: int, losses: list[int]) -> str:
    """Which workers are waited for, and what Ray has for them."""
    replaced = " (some are being replaced)" if any(losses) else ""
    return f"{missing} of {count} workers{replaced}; Ray has {resources()}"


def resources() -> str:
    """The cluster's CPUs and GPUs, in words."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    parts = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s free" for name in ("CPU", "GPU")]
    return " and ".join(parts)


def connect(cpus: float, gpus: int) -> bool:
    """Joins the cluster that RAY_ADDRESS names, or begins one on this machine; whether it is ours to end."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address=os.environ["RAY_ADDRESS"], logging_level=logging.WARNING)
        return True
    ray.init(
        address="local",
        num_cpus=max(1, round(cpus + 0.5)) + gpus,
        include_dashboard=False,
        object_store_memory=512 << 20,
        logging_level=logging.WARNING,
    )
    if gpus and not ray.cluster_resources().get("GPU"):  # type: ignore[no-untyped-call]
        ray.shutdown()
        raise RunError("InvalidOption", "num_gpus is 1, and Ray finds no GPU on this machine: set num_gpus to 0", True)
    return True
