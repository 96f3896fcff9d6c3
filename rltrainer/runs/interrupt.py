"""Signals: the first asks a run to keep its state and end. Ctrl-C after it ends the run, and a command, at once.

A repeated SIGTERM asks for nothing more: in a cluster Ray's job supervisor and the pod's preStop hook both send one.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from rltrainer.errors import Interrupted, end_process

GRACE = 2.0
"""Seconds that an iteration under way, or a wait, may take to end by itself."""
ROUND_GRACE = 10.0
"""Seconds that a round of sampling and learning may take. One that is abandoned costs the episodes under way."""


class Interrupt:
    """Whether the run was asked to end, and since when. A second Ctrl-C calls `at_once`, with 128 + its number."""

    def __init__(self, at_once: Callable[[int], object] = end_process) -> None:
        self.at_once = at_once
        self.signum: int | None = None
        self.in_round = False
        """Whether a round is under way: what ends within it cannot go on from there."""
        self._since = 0.0
        self._requested = threading.Event()

    def ask(self, signum: int, frame: FrameType | None = None) -> None:
        """Handle a signal: the run is to end."""
        if self.signum is not None:
            if signum == signal.SIGINT:
                self.at_once(128 + signum)
            return
        self.signum, self._since = signum, monotonic()
        self._requested.set()

    def check(self) -> None:
        """Raise Interrupted once the grace is over: that of a round where one is under way."""
        grace = ROUND_GRACE if self.in_round else GRACE
        if self.signum is not None and monotonic() - self._since > grace:
            raise Interrupted(self.signum)

    @contextmanager
    def round_under_way(self) -> Iterator[None]:
        """Give what is done within the block the grace of a round."""
        self.in_round = True
        try:
            yield
        finally:
            self.in_round = False

    def stop_here(self) -> None:
        """Raise Interrupted if the run was asked to end: for places where nothing is under way."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def sleep(self, seconds: float) -> None:
        """Wait; raise Interrupted as soon as the run is asked to end."""
        self._requested.wait(seconds)
        self.stop_here()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Answer SIGTERM and SIGINT within the block, where this is the main thread: others get no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {signum: signal.signal(signum, self.ask) for signum in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for signum, handler in earlier.items():
                signal.signal(signum, handler)

    def install(self) -> None:
        """Answer SIGTERM and SIGINT from now on; also take them back from a library with handlers of its own."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self.ask)

    def close(self) -> None:
        """Ignore SIGTERM until the process is gone: everything is kept.

        Python gives the signals back to the system before it ends, and a SIGTERM then would change the exit code.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
