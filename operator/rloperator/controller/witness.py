"""What pods said last: a pod that is taken away is often gone before anybody looks."""

import threading
import time
from collections.abc import Callable

from rloperator.kube.types import Manifest

_REMEMBERED_FOR = 60.0
"""Seconds: by then it stands in the status."""
_MOST = 10_000

Place = tuple[str, str]
"""Namespace and experiment."""


class Witness:
    """A memory of pods that were seen to be taken away. Safe to use from several threads; a restart forgets it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Place, dict[str, tuple[float, Manifest]]] = {}
        self._lock = threading.Lock()

    def saw(self, place: Place, pod: Manifest) -> None:
        """Remember a pod as it is now, for a minute."""
        with self._lock:
            self._seen.setdefault(place, {})[pod["metadata"]["uid"]] = (self._clock(), _last_words(pod))
            while len(self._seen) > _MOST:
                self._seen.pop(next(iter(self._seen)))

    def gone(self, place: Place, present: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
        """The pods remembered that are not among those present."""
        with self._lock:
            known = self._seen.get(place, {})
            for uid in [uid for uid, (at, _) in known.items() if self._clock() - at > _REMEMBERED_FOR]:
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
