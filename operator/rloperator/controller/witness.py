"""What pods said last: a pod that is taken away is often gone before anybody looks."""

import threading
import time
from collections.abc import Callable

from rloperator.kube.types import Manifest

TAKEN_FOR = 60.0
"""Seconds that a pod which was taken away is remembered for: by then it stands in the status."""
FAILED_FOR = 600.0
"""Seconds that a pod which has failed is remembered for, to be counted."""
_MOST = 10_000

Place = tuple[str, str]
"""Namespace and experiment."""


class Witness:
    """A memory of pods that were taken away, or failed. Safe to use from several threads; a restart forgets it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Place, dict[str, tuple[float, Manifest]]] = {}
        self._lock = threading.Lock()

    def saw(self, place: Place, pod: Manifest, seconds: float = TAKEN_FOR) -> None:
        """Remember a pod as it is now, for that many seconds."""
        with self._lock:
            self._seen.setdefault(place, {})[pod["metadata"]["uid"]] = (self._clock() + seconds, _last_words(pod))
            while len(self._seen) > _MOST:
                self._seen.pop(next(iter(self._seen)))

    def gone(self, place: Place, present: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
        """The pods remembered that are not among those present."""
        with self._lock:
            known = self._seen.get(place, {})
            for uid in [uid for uid, (until, _) in known.items() if self._clock() > until]:
                del known[uid]
            if not known:
                self._seen.pop(place, None)
            uids = {pod["metadata"]["uid"] for pod in present}
            return tuple(pod for uid, (_, pod) in known.items() if uid not in uids)


def _last_words(pod: Manifest) -> Manifest:
    """As much of a pod as tells whose it was, where, and how it ended."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": dict(pod["metadata"]),
        "spec": {"nodeName": (pod.get("spec") or {}).get("nodeName")},
        "status": dict(pod.get("status") or {}),
    }
