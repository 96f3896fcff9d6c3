"""What every use of Ray here needs: a cluster, waits that can be interrupted, and errors in their own words."""

import logging
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import ray
from ray import exceptions as rex

from rltrainer.errors import RunError

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
            log.info("waiting for %s; Ray has %s", what(), resources())


def awaited(references: Sequence[Any], check: Callable[[], None], whom: str) -> list[Any]:
    """What `references` stand for, once all of it is there. The first that failed raises, the others are not awaited.

    Raises Interrupted if the run is asked to end meanwhile, `receive`'s errors, and those in LOST.
    """
    patience, waiting = Patience(check), list(references)
    found: dict[Any, Any] = {}
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=POLL)
        patience.pause(bool(ready), lambda: whom)
        found.update((reference, receive(reference)) for reference in ready)
    return [found[reference] for reference in references]


def receive(reference: Any) -> Any:
    """What a finished call returned; an error of our own comes without Ray's traceback around it."""
    try:
        return ray.get(reference)
    except rex.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RunError):
            raise RunError(cause.reason, cause.message, cause.permanent) from None
        raise RunError("WorkerFailed", f"a worker failed: {type(cause).__name__}: {cause}") from error


def summary(error: Exception) -> str:
    """The first line of what an error says: Ray's go on for many."""
    return str(error).strip().partition("\n")[0]


def resources() -> str:
    """The cluster's CPUs and GPUs, in words."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    parts = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s free" for name in ("CPU", "GPU")]
    return " and ".join(parts)


def connect(cpus: float, gpus: int) -> bool:
    """Joins the cluster that RAY_ADDRESS names, or begins one on this machine; whether it is ours to end.

    Raises RunError, permanent, where this machine has fewer GPUs than `gpus`.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address=os.environ["RAY_ADDRESS"], logging_level=logging.WARNING)
        return True
    ray.init(
        address="local",
        num_cpus=max(1, round(cpus + 0.5)),
        include_dashboard=False,
        object_store_memory=512 << 20,
        logging_level=logging.WARNING,
    )
    there = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if gpus > there:
        ray.shutdown()
        raise RunError(
            "InvalidOption", f"num_gpus is 1 for {gpus} learner(s), and Ray finds {there} GPUs on this machine", True
        )
    return True
