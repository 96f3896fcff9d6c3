"""The clock of a contender: it counts environment steps in windows that the race asks for, one after another.

A contender is a process. It says that it is ready, then for every line of standard input, a number of seconds, it
works for as long and says how many steps it did and how long they took. In between it stands still, so that
contenders take turns on a machine that is theirs alone. Nothing here but Python itself: peers' environments have no
more.
"""

import json
import os
import sys
from time import perf_counter
from typing import Any

SETTLING = 0.15
"""Share of a window before the count begins: caches are cold, and what workers had done in the meantime is used up."""


class Meter:
    """Counts environment steps in windows."""

    def __init__(self, work: dict[str, Any]) -> None:
        self.warmup: int = work["warmup"]
        self.channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # keeps what libraries print out of the answers
        self.steps, self.started, self.counting = 0, 0.0, False
        self.settled = self.ends = 0.0

    def tick(self, steps: int) -> None:
        """Count the steps since the last call. Ends the process when the race is over."""
        now = perf_counter()
        if self.warmup > 0:
            self.warmup -= steps
            if self.warmup <= 0:
                self._send(ready=True)
                self._open()
            return
        if self.counting:
            self.steps += steps
        elif now >= self.settled:
            self.counting, self.started = True, now
        if self.steps and now >= self.ends:
            self._send(steps=self.steps, seconds=now - self.started)
            self._open()

    def _open(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # at once: libraries would wait for their threads, and nothing here is to be kept
        seconds, now = float(line), perf_counter()
        self.steps, self.counting = 0, False
        self.settled, self.ends = now + SETTLING * seconds, now + seconds

    def _send(self, **message: Any) -> None:
        self.channel.write(json.dumps(message) + "\n")
        self.channel.flush()


def parse_work() -> dict[str, Any]:
    """Parse the work from the command line of this process."""
    work: dict[str, Any] = json.loads(sys.argv[1])
    return work
