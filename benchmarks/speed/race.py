"""Contenders that take turns: all are started, then in every round each works for one window while the others wait."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from benchmarks.speed.peers import LISTS, python
from benchmarks.speed.processes import end

START_SECONDS = 240.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}


class Contender:
    """A process that works when it is told to."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self.name, self.process, self.errors = name, process, errors

    def answer(self) -> dict[str, Any]:
        """What it says next. Raises RuntimeError with the end of what it wrote to standard error, if it is gone."""
        assert self.process.stdout is not None  # noqa: S101 - for the type checker
        line = self.process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.errors.seek(0)
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}:\n{self.errors.read()[-3000:]}")

    def begin(self, seconds: float) -> None:
        """Has it work for one window; what it says next is how much."""
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def rate(self, seconds: float) -> float:
        """Steps a second over one window."""
        self.begin(seconds)
        found = self.answer()
        return float(found["steps"] / found["seconds"])


@contextmanager
def started(name: str, work: Mapping[str, Any]) -> Iterator[Contender]:
    """A contender, and all that it begins, until the end of the block."""
    command = [python(name), "-m", f"benchmarks.speed.{name}", json.dumps(work)]
    threads = {"OMP_NUM_THREADS": str(work["threads"])} if name in LISTS else {}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, **QUIET, **threads},
        )
        try:
            yield Contender(name, process, errors)
        finally:
            end(process)


def rates(names: tuple[str, ...], work: Mapping[str, Any], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps a second of each contender, round by round. They are made ready one after the other."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        contenders = []
        for name in names:
            contenders.append(stack.enter_context(started(name, work)))
            contenders[-1].answer()
        for _ in range(rounds):
            for contender in contenders:
                found[contender.name].append(contender.rate(seconds))
    return found
