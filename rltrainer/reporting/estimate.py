"""How near a run is to its end, and when it will be there: by the limit that it reaches first."""

import math
from collections import deque
from typing import Any

from rltrainer.api.experiment import Stop
from rltrainer.reporting.progress import Progress

WINDOW = 100
"""Iterations over which speed is measured: it changes, where workers come and go."""
COUNTERS = ("timesteps_total", "training_iteration", "episodes_total", "time_total_s")
"""The stop conditions that a run comes nearer to with each iteration, unlike a mean return."""


class Estimate:
    """The share of a run that is done and the time that is left, of a run whose `stop` limits any counter."""

    def __init__(self, stop: Stop, progress: Progress) -> None:
        limits = {name: getattr(stop, name) for name in COUNTERS}
        self.limits: dict[str, float] = {name: limit for name, limit in limits.items() if limit is not None}
        self._recent: deque[dict[str, float]] = deque(maxlen=WINDOW + 1)
        self.add(progress)

    def add(self, progress: Progress) -> None:
        """Note how far the run has come after one more iteration."""
        self._recent.append({name: getattr(progress, name) for name in COUNTERS})

    def report(self) -> dict[str, Any]:
        """Return it as the status says it: whole percent, which are 100 only once the run is there, and seconds."""
        now = self._recent[-1]
        shares = [now[name] / limit if limit else 1.0 for name, limit in self.limits.items()]
        if not shares:
            return {"progress_percentage": None, "estimated_remaining_seconds": None}
        seconds = min(map(self._seconds_to, self.limits))
        return {
            "progress_percentage": min(math.floor(100 * max(shares)), 100),
            "estimated_remaining_seconds": None if math.isinf(seconds) else math.ceil(seconds),
        }

    def _seconds_to(self, name: str) -> float:
        """Return the seconds until counter `name` reaches its limit at the speed of late; infinite at none."""
        first, now = self._recent[0], self._recent[-1]
        gained, passed = now[name] - first[name], now["time_total_s"] - first["time_total_s"]
        left = max(self.limits[name] - now[name], 0.0)
        if name == "time_total_s" or not left:
            return left
        return left * passed / gained if gained > 0 else math.inf
