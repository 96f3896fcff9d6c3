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
from benchmarks.speed.table import APART

START_SECONDS = 240.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}


class Contender:
    """A process that works for one window at a time."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self.name, self.process, self.errors = name, process, errors

    def answer(self) -> dict[str, Any]:
        """Read its next answer. Raises RuntimeError with the end of its standard error if the process has ended."""
        assert self.process.stdout is not None  # noqa: S101 - for the type checker
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.errors.seek(0)
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}:\n{self.errors.read()[-3000:]}")

    def begin(self, seconds: float) -> None:
        """Start one window; its next answer has the steps and seconds."""
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()


@contextmanager
def started(name: str, work: Mapping[str, Any]) -> Iterator[Contender]:
    """Start a contender, and end it and its children with the context."""
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
    """Measure steps per second of each contender, round by round. They start one after the other."""
    steps_per_second: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        teams: dict[str, list[Contender]] = {name: [] for name in names}
        for name, team in teams.items():
            for module, share in processes(name, work):
                team.append(stack.enter_context(started(module, share)))
                team[-1].answer()
        for _ in range(rounds):
            for name, team in teams.items():
                steps_per_second[name].append(together(team, seconds))
    return steps_per_second


def processes(name: str, work: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the processes of a contender: the module of each, and its work."""
    if name != APART:
        return [(name, work)]
    return [("ours", {**work, "config": {**work["config"], "num_workers": 0}})] * work["config"]["num_workers"]


def together(team: list[Contender], seconds: float) -> float:
    """Measure steps per second of a team over one window, in which all its processes work."""
    for contender in team:
        contender.begin(seconds)
    answers = [contender.answer() for contender in team]
    return float(sum(answer["steps"] / answer["seconds"] for answer in answers))
