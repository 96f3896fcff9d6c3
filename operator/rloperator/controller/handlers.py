"""What kopf calls: each event becomes a key in the queue, and a sweep adds whatever is not finished.

Only low-level event handlers: nothing is written to an object to keep track of it, and no finalizer is set.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import kopf

from rloperator.config import Settings
from rloperator.controller.converge import Converger, Key
from rloperator.controller.witness import FAILED_FOR, TAKEN_FOR
from rloperator.controller.workqueue import WorkQueue
from rloperator.kube import names
from rloperator.kube.client import KubeClient, connect
from rloperator.kube.disruption import disruption
from rloperator.kube.pod_problems import has_failed
from rloperator.kube.types import Manifest
from rltrainer.api.base import GROUP, PLURAL, VERSION

log = logging.getLogger(__name__)

_SILENT_SWEEPS = 8
"""Sweeps that may be missing before the operator calls itself unhealthy."""
_HUNG_AFTER = 300.0
"""Seconds after which work on one object is hung: each of its requests has a timeout, and the first failure ends it."""


class Backoffs:
    """Seconds between tries of kopf's requests: it never gives up, and is never far from its next try."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 2.0), itertools.repeat(10.0))


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Configure kopf, and start the queue and the sweep."""
    configure(settings)
    own: Settings = memo["settings"]
    executor = ThreadPoolExecutor(own.workers + 1, thread_name_prefix="converge")
    converger = Converger(KubeClient(connect(own.workers + 1)), own)
    memo["witness"] = converger.witness
    memo["queue"] = WorkQueue(converger.reconcile_key, executor)
    memo["swept"], memo["away"] = time.monotonic(), ""
    memo["tasks"] = [
        asyncio.create_task(memo["queue"].run(own.workers)),
        asyncio.create_task(sweep(converger, memo, executor)),
    ]


def configure(settings: kopf.OperatorSettings) -> None:
    """Set what kopf itself goes by."""
    settings.scanning.disabled = True  # needs no right to read CRDs and namespaces
    settings.posting.enabled = False  # the events are ours
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["ray.io", "v1", "rayjobs"] = names.EXPERIMENT_LABEL
    settings.watching.label_selectors["", "v1", "pods"] = names.EXPERIMENT_LABEL
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.ROLLOUT_LABEL
    settings.queueing.worker_limit = 16
    settings.queueing.idle_timeout = 0.05  # a worker keeps its place that long
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Backoffs()


async def sweep(converger: Converger, memo: kopf.Memo, executor: ThreadPoolExecutor) -> None:
    """Look at everything that is not finished, again and again: what no watch reported is seen here."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            for key in await loop.run_in_executor(executor, lambda: list(converger.unfinished())):
                memo["queue"].add(key)
            if memo["away"]:
                log.info("the API server answers again")
            memo["away"] = ""
        except Exception as error:  # whatever it was, the next sweep is the retry
            if not memo["away"]:
                log.warning("the API server does not answer, and is asked again: %s", error)
            memo["away"] = str(error) or repr(error)
        memo["swept"] = time.monotonic()
        await asyncio.sleep(converger.settings.sweep_seconds)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End the queue and the sweep; the next operator takes up what they were doing."""
    for task in memo.get("tasks", []):
        task.cancel()


@kopf.on.probe(id="sweep", errors=kopf.ErrorsMode.PERMANENT)
async def health(memo: kopf.Memo, **_: Any) -> str:
    """Answer how the operator itself does. Fails, and with it the liveness probe, where a restart helps.

    An API server that is away is no fault of the operator's: a restart would not bring it back.
    """
    age, longest = time.monotonic() - memo["swept"], memo["queue"].longest()
    ended = [task for task in memo["tasks"] if task.done()]
    if ended or age > _SILENT_SWEEPS * max(memo["settings"].sweep_seconds, 15.0):
        raise kopf.PermanentError(f"no sweep for {age:.0f} s, {len(ended)} tasks have ended")
    if longest > _HUNG_AFTER:
        raise kopf.PermanentError(f"work on one object hangs since {longest:.0f} s")
    return f"the API server is away: {memo['away']}" if memo["away"] else f"{age:.0f} s ago"


@kopf.on.event(GROUP, VERSION, PLURAL["RLExperiment"])
@kopf.on.event(GROUP, VERSION, PLURAL["RLRollout"])
async def object_changed(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Queue one of our own objects, which was made, changed or deleted."""
    metadata = body["metadata"]
    memo["queue"].add(Key(body["kind"], metadata["namespace"], metadata["name"]))


@kopf.on.event("ray.io", "v1", "rayjobs", labels={names.EXPERIMENT_LABEL: kopf.PRESENT})
async def rayjob_changed(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Queue the experiment of an attempt, which was made, got on, or is gone."""
    metadata = body["metadata"]
    memo["queue"].add(Key("RLExperiment", metadata["namespace"], metadata["labels"][names.EXPERIMENT_LABEL]))


@kopf.on.event("batch", "v1", "jobs", labels={names.ROLLOUT_LABEL: kopf.PRESENT})
async def job_changed(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Queue the rollout of a Job, which was made, got on, or is gone."""
    metadata = body["metadata"]
    memo["queue"].add(Key("RLRollout", metadata["namespace"], metadata["labels"][names.ROLLOUT_LABEL]))


@kopf.on.event("", "v1", "pods", labels={names.EXPERIMENT_LABEL: kopf.PRESENT})
async def pod_changed(body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
    """Remember a pod of an experiment that is taken away or failed, and queue the experiment; the rest is looked up."""
    pod: Manifest = dict(body)
    is_taken = disruption(pod, datetime.now(UTC)) is not None
    if not is_taken and not has_failed(pod):
        return
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["labels"][names.EXPERIMENT_LABEL]
    memo["witness"].saw((namespace, name), pod, TAKEN_FOR if is_taken else FAILED_FOR)
    memo["queue"].add(Key("RLExperiment", namespace, name))
