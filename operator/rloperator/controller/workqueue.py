"""A queue of keys to work on: each at most once at a time, again after failures, later where the work wants it."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from rloperator.controller.converge import Key
from rloperator.kube.client import ApiError, ConflictError

log = logging.getLogger(__name__)

Work = Callable[[Key], float | None]

_AFTER_CONFLICT = 0.1
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0


class WorkQueue:
    """A queue of keys for `work`, in threads. A key that is added while it is worked on is worked on once more."""

    def __init__(self, work: Work, executor: Executor) -> None:
        self._work = work
        self._executor = executor
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._busy: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._unexpected: dict[Key, str] = {}

    def add(self, key: Key) -> None:
        """Work on `key` as soon as possible."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on `key` in a while, unless an earlier time is set for it."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and timer.when() <= loop.time() + seconds:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._on_time, key)

    def _on_time(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def longest(self) -> float:
        """Seconds that the oldest piece of work under way has taken so far; 0 where none is."""
        return asyncio.get_running_loop().time() - min(self._busy.values()) if self._busy else 0.0

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._busy[key] = asyncio.get_running_loop().time()
            try:
                delay = await self._work_once(key)
            finally:
                del self._busy[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if delay is not None:
                self.add_after(key, delay)

    async def _work_once(self, key: Key) -> float | None:
        """Work once; seconds until the next time, or None."""
        try:
            loop = asyncio.get_running_loop()
            delay: float | None = await loop.run_in_executor(self._executor, self._work, key)
        except ConflictError:
            return _AFTER_CONFLICT
        except Exception as error:
            return self._failed(key, error)
        self._failures.pop(key, None)
        self._unexpected.pop(key, None)
        return delay

    def _failed(self, key: Key, error: Exception) -> float:
        """Log a failure, and return the seconds until the next try. One that nobody expected is logged once."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        asked = error.retry_after if isinstance(error, ApiError) else 0.0
        delay = max(min(_FIRST_RETRY * 2.0 ** (failures - 1), _LONGEST_RETRY), asked)
        if _is_expected(error):
            log.warning("%s: %s. Trying again in %.0f s", key, error, delay)
        elif self._unexpected.get(key) != repr(error):
            self._unexpected[key] = repr(error)
            log.error("%s: %r. It is tried again, and not logged again until it differs", key, error, exc_info=error)
        return delay


def _is_expected(error: Exception) -> bool:
    """Whether the message alone says enough."""
    return type(error).__module__.startswith(("rloperator.", "urllib3."))
