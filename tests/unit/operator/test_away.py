"""An API server that is away, at the start and later: the operator stays, says so, and goes on."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import kopf
import pytest
from rloperator.__main__ import serving_health, wait_for_kinds
from rloperator.controller import handlers
from rloperator.controller.converge import Key
from rloperator.controller.workqueue import WorkQueue
from rloperator.kube.client import ApiError, KubeClient
from urllib3.exceptions import MaxRetryError, NewConnectionError

from tests.unit.operator.builders import SETTINGS

KEY = Key("RLExperiment", "team", "a")
AWAY = MaxRetryError(cast(Any, None), "/apis", NewConnectionError(cast(Any, None), "Connection refused"))
ALL = ("RLExperiment", "RLRollout", "RayJob")


class Starting(KubeClient):
    """Answers each look as it is told to: by an error, or with the kinds that are there."""

    def __init__(self, *looks: Exception | tuple[str, ...]) -> None:
        self.looks = list(looks)
        self.asked = 0

    def serves(self, api_version: str, kind: str) -> bool:
        look = self.looks[0]
        if isinstance(look, Exception) or kind == ALL[-1]:
            self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return kind in look


def test_the_start_waits_for_the_server_and_for_the_kinds_and_says_for_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Starting(AWAY, AWAY, ApiError(503, "etcd has no leader"), ApiError(403, "RBAC is not there yet"),
                      (), ALL[:2], ALL[:2], ALL)  # fmt: skip
    wait_for_kinds(server, every=0.0)
    assert server.looks == []
    said = [record.message for record in caplog.records]
    assert len(said) == 6, "each state once"
    assert "does not answer" in said[0]
    assert "503: etcd has no leader" in said[1]
    assert "403: RBAC" in said[2]
    assert "no RLExperiment of" in said[3]
    assert "install KubeRay 1.6" in said[4]
    assert "serves all that is needed" in said[5]


def test_health_is_served_while_the_start_waits() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/healthz"
    with serving_health(url), urlopen(url, timeout=5) as answer:
        assert answer.status == 200
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))  # kopf takes it over


def memo(**fields: Any) -> kopf.Memo:
    queue = SimpleNamespace(longest=lambda: fields.pop("longest", 0.0), add=lambda key: None)
    return kopf.Memo(
        **{"settings": SETTINGS, "queue": queue, "swept": time.monotonic(), "away": "", "tasks": []} | fields
    )


def health(memo: kopf.Memo) -> str:
    return str(asyncio.run(cast(Any, handlers.health)(memo=memo)))


def test_an_absent_server_is_no_fault_of_the_operator() -> None:
    assert health(memo(away="refused")) == "the API server is away: refused"
    assert health(memo()) == "0 s ago"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"longest": 301.0}, "work on one object hangs since 301 s"),
        ({"swept": time.monotonic() - 1000}, "no sweep for"),
        ({"tasks": [SimpleNamespace(done=lambda: True)]}, "1 tasks have ended"),
    ],
    ids=str,
)
def test_what_a_restart_would_mend_is_unhealthy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(kopf.PermanentError, match=message):
        health(memo(**fields))


class Flaky:
    """A server that is away for some sweeps and then is there."""

    settings = SimpleNamespace(sweep_seconds=0.0)

    def __init__(self, away: int) -> None:
        self.away = away

    def unfinished(self) -> Iterator[Key]:
        self.away -= 1
        if self.away >= 0:
            raise AWAY
        yield KEY


def test_sweeps_go_on_through_an_absence_of_any_length_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Key] = []
    states: list[str] = []
    ours = memo(swept=0.0, queue=SimpleNamespace(add=seen.append))

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            task = asyncio.create_task(handlers.sweep(cast(Any, Flaky(away=50)), ours, executor))
            while not seen:
                states.append(ours["away"])
                await asyncio.sleep(0)
            task.cancel()

    asyncio.run(main())
    assert seen == [KEY]
    assert "Connection refused" in states[-1]
    assert ours["away"] == ""
    assert ours["swept"] > 0
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "the API server does not answer", "the API server answers again",
    ]  # fmt: skip


def test_the_queue_knows_how_long_its_oldest_work_takes() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            hung = asyncio.Event()
            loop = asyncio.get_running_loop()
            done = SimpleNamespace(at=0.0)

            def work(key: Key) -> None:
                loop.call_soon_threadsafe(hung.set)
                while not done.at:
                    time.sleep(0.01)

            queue = WorkQueue(work, executor)
            assert queue.longest() == 0.0
            task = asyncio.create_task(queue.run(1))
            queue.add(KEY)
            await hung.wait()
            begun = loop.time()
            while queue.longest() < 0.05:
                await asyncio.sleep(0.01)
            assert queue.longest() >= loop.time() - begun
            done.at = 1.0
            while queue.longest():
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())


def test_kopf_never_gives_up_and_is_never_far_from_its_next_try() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    waits = iter(cast(Any, settings.networking.error_backoffs))
    assert max(next(waits) for _ in range(10_000)) <= 10
