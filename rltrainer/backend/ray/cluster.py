"""What every use of Ray here needs: a cluster, waits that can be interrupted, and errors without Ray's tracebacks."""

import logging
import os
from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic
from typing import Any

import ray
from ray import exceptions as rex

from rltrainer.api.options import Options
from rltrainer.backend.ray.settings import CURRENT, RaySettings
from rltrainer.errors import RunError
from rltrainer.waiting import LOG_INTERVAL_S

log = logging.getLogger(__name__)

LOST = (
    rex.RayActorError,
    rex.ObjectLostError,
    rex.NodeDiedError,
    rex.WorkerCrashedError,
    rex.OutOfMemoryError,
)
"""What says that a process or its node has gone, rather than that its code has failed."""
OBJECT_STORE = 512 << 20
"""Bytes of shared memory of a node that is started here, where the settings name none."""
POLL = 0.5
"""Seconds after which a wait looks whether the run was asked to end."""


class Patience:
    """A wait that ends when the run is asked to, and says every now and then what it is for."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check, self.last_logged = check, monotonic()

    def pause(self, progress: bool, what: Callable[[], str]) -> None:
        """Note between two looks that `what` is waited for, unless there was `progress`. Raises Interrupted."""
        self.check()
        now = monotonic()
        if progress:
            self.last_logged = now
        elif now - self.last_logged >= LOG_INTERVAL_S:
            self.last_logged = now
            log.info("waiting for %s; Ray has %s", what(), resources())


def awaited(references: Sequence[Any], check: Callable[[], None], what: str) -> list[Any]:
    """Wait for all `references`, which `what` describes, and return their values.

    The first that failed raises, and the others are not awaited. Raises Interrupted if the run is asked to end
    meanwhile, `receive`'s errors, and those in LOST.
    """
    patience, waiting = Patience(check), list(references)
    values: dict[Any, Any] = {}
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=POLL)
        patience.pause(bool(ready), lambda: what)
        values.update((reference, receive(reference)) for reference in ready)
    return [values[reference] for reference in references]


def receive(reference: Any) -> Any:
    """Return what a finished call returned; an error of our own comes without Ray's traceback around it."""
    try:
        return ray.get(reference)
    except rex.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RunError):
            raise RunError(cause.reason, cause.message, cause.permanent) from None
        raise RunError("WorkerFailed", f"a worker failed: {type(cause).__name__}: {cause}") from error


def summary(error: Exception) -> str:
    """Return the first line of an error's message: Ray's go on for many."""
    return str(error).strip().partition("\n")[0]


def resources() -> str:
    """Describe the cluster's CPUs and GPUs."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    parts = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s free" for name in ("CPU", "GPU")]
    return " and ".join(parts)


Bundle = dict[str, float]
"""What is reserved together on one node, by the name of the resource."""


def reserved(options: Options, gpu_share: float = 1.0) -> list[Bundle]:
    """Return what a run on Ray reserves beside its own process, for each learner and each worker."""
    learners = max(options.num_learners, options.num_gpus)
    gpu = {"GPU": gpu_share} if options.num_gpus else {}
    return [{"CPU": 1.0, **gpu}] * learners + [{"CPU": options.num_cpus_per_worker}] * max(1, options.num_workers)


def connect(bundles: Sequence[Bundle], cpus: int | None = None) -> bool:
    """Join the cluster that the settings or RAY_ADDRESS name, or start one on this machine.

    What is started here has `cpus`, or else room for `bundles`, which the run reserves; numbers in the settings come
    first. Returns whether it is ours to end, by `disconnect`; it is not where this process was in a cluster before.

    Raises RunError, permanent, where there is no such cluster, or what was started here can never hold `bundles`.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings = CURRENT
    if joined():
        _join(settings.address or os.environ["RAY_ADDRESS"])
        return True
    cpus = cpus if cpus is not None else max(1, ceil(sum(bundle.get("CPU", 0.0) for bundle in bundles)))
    try:
        _start(settings, cpus)
    except Exception as error:  # of a node that does not start in time Ray raises just that
        disconnect()
        message = f"Ray cannot be started on this machine: {summary(error)}. --ray-address joins a cluster that runs, "
        raise RunError("RayNotStarted", message + "and num_workers 0 does without Ray") from error
    try:
        refuse(bundles, "the run")
    except RunError:
        disconnect()
        raise
    return True


def _start(settings: RaySettings, cpus: int) -> None:
    """Start what the settings say on this machine. Raises whatever Ray raises where that fails."""
    if settings.nodes > 1:
        _emulate(settings, cpus)
    else:
        ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, **_node(settings, cpus))


def refuse(bundles: Sequence[Bundle], who: str) -> None:
    """Raise RunError, permanent, where no node of the cluster as it is can hold one of the `bundles` that `who`
    reserves, or all together cannot hold all."""
    if (missing := shortage(bundles)) is not None:
        raise RunError(
            "NotEnoughResources",
            f"{who} reserves {missing}, and would wait for ever. Ask for less (num_workers, num_cpus_per_worker, "
            "num_learners, num_gpus, tune.resourcesPerTrial), or have Ray share out more than there is: --ray-num-cpus",
            permanent=True,
        )


def shortage(bundles: Sequence[Bundle]) -> str | None:
    """Say what of `bundles` the cluster as it is does not have, in words; None where it may hold them."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    for name in sorted({name for bundle in bundles for name in bundle}):
        needed = sum(bundle.get(name, 0.0) for bundle in bundles)
        total = sum(node.get(name, 0.0) for node in nodes)
        if needed > total:
            return f"{needed:g} {name}s, and Ray has {total:g} here"
        largest = max(bundle.get(name, 0.0) for bundle in bundles)
        if largest > (most := max(node.get(name, 0.0) for node in nodes)):
            return f"{largest:g} {name}s on one node, and Ray has no node here with more than {most:g}"
    return None


def joined() -> bool:
    """Return whether the cluster is one that was there before, and so may grow."""
    return bool(CURRENT.address or os.environ.get("RAY_ADDRESS"))


def _join(address: str) -> None:
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError("NoCluster", f"no Ray cluster answers at {address}: {summary(error)}", permanent=True) from None


def _node(settings: RaySettings, cpus: int) -> dict[str, Any]:
    """Return what one node of this machine has, as ray.init takes it."""
    return {
        "num_cpus": settings.cpus if settings.cpus is not None else cpus,
        "object_store_memory": settings.object_store_memory or OBJECT_STORE,
        **({"num_gpus": settings.gpus} if settings.gpus is not None else {}),
        **({"_memory": settings.memory} if settings.memory is not None else {}),
    }


_emulated_clusters: list[Any] = []
"""The cluster of several nodes that this process has started, if it has."""


def _emulate(settings: RaySettings, cpus: int) -> None:
    """Start several nodes on this machine, each with what `_node` says."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - seldom needed

    node = _node(settings, cpus)
    if "_memory" in node:
        node["memory"] = node.pop("_memory")
    cluster = Cluster()
    for _ in range(settings.nodes):
        cluster.add_node(include_dashboard=False, **node)
    _emulated_clusters.append(cluster)
    ray.init(address=cluster.address, logging_level=logging.WARNING)
    cluster.wait_for_nodes()


def disconnect() -> None:
    """Leave the cluster, and end it if it was started here."""
    ray.shutdown()
    while _emulated_clusters:
        _emulated_clusters.pop().shutdown()
