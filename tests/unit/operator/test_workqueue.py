"""Each key at most once at a time, again after failures, later where asked to."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rloperator.controller.converge import Key
from rloperator.controller.workqueue import WorkQueue
from rloperator.kube.client import ConflictError

KEY, OTHER = Key("RLExperiment", "team", "a"), Key("RLExperiment", "team", "b")


def run(work: Callable[[Key], float | None], script: Callable[[WorkQueue], None], until: Callable[[], bool]) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(4) as executor:
            queue = WorkQueue(work, executor)
            task = asyncio.create_task(queue.run(4))
            script(queue)
            async with asyncio.timeout(20):
                while not until():
                    await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())


def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more_and_never_twice_at_a_time() -> None:
    busy, most, done = 0, 0, 0
    lock = threading.Lock()

    def work(key: Key) -> float | None:
        nonlocal busy, most, done
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.05)
        with lock:
            busy -= 1
            done += 1
        return None

    def script(queue: WorkQueue) -> None:
        queue.add(KEY)
        for delay in (0.01, 0.02, 0.03):
            asyncio.get_running_loop().call_later(delay, queue.add, KEY)

    run(work, script, lambda: done == 2)
    assert most == 1


def test_a_conflict_is_tried_again_at_once_and_a_failure_a_little_later() -> None:
    seen: list[Key] = []

    def work(key: Key) -> float | None:
        seen.append(key)
        if seen.count(key) == 1:
            raise ConflictError(409, "changed") if key == KEY else RuntimeError("no route")
        return None

    def script(queue: WorkQueue) -> None:
        queue.add(KEY)
        queue.add(OTHER)

    run(work, script, lambda: seen.count(KEY) == 2 and seen.count(OTHER) == 2)


def test_what_asks_for_another_look_gets_it_and_the_earlier_time_wins() -> None:
    seen: list[float] = []

    def work(key: Key) -> float | None:
        seen.append(time.monotonic())
        return 0.05 if len(seen) < 3 else None

    def script(queue: WorkQueue) -> None:
        queue.add_after(KEY, 0.05)
        queue.add_after(KEY, 60.0)

    run(work, script, lambda: len(seen) == 3)
