"""kill -9 of a search and of all its processes: no trial is lost, and none is run twice.

One kill by default, three where RLTRAINER_KILLS asks for many, as `make soak` does: each costs the start of a cluster.
"""

import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.soak.test_kills import KILLS
from tests.unit.trainer.test_cli import QUICK, RLTRAINER, ROOT
from tests.unit.trainer.test_cli_train import NUMBERS, journal, rows, trained

GAMMAS = [0.5, 0.6, 0.7, 0.8]
ENOUGH, SAMPLES, ITERATIONS = ((1, 3, 5), 2, 120) if KILLS > 100 else ((1,), 1, 60)
"""Trials that are done at each kill; how often each gamma is tried; iterations of a trial."""


def begin(marker: str, *arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "TOY_SESSION": marker}
    return subprocess.Popen(
        [*RLTRAINER, *arguments], cwd=ROOT, env=env, stderr=subprocess.DEVNULL, start_new_session=True
    )


def of_session(marker: str) -> list[int]:
    """The driver and every process of its Ray: they have inherited its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TOY_SESSION={marker}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_all(marker: str) -> None:
    """SIGKILL, until nobody is left who could begin another."""
    while pids := of_session(marker):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_a_search_that_is_killed_loses_no_trial_and_runs_none_twice(tmp_path: Path) -> None:
    config = {**json.loads(QUICK), "gamma": {"grid_search": GAMMAS}}
    arguments = (
        *(*NUMBERS[:-1], json.dumps(config), "--stop", json.dumps({"training_iteration": ITERATIONS})),
        *("--num-samples", str(SAMPLES), "--checkpoint-freq", "10"),
        *("--local-dir", str(tmp_path), "--experiment-name", "killed"),
    )
    folder, marker = tmp_path / "killed", str(uuid.uuid4())
    done_before: dict[str, bytes] = {}
    for enough in ENOUGH:
        driver = begin(marker, *arguments)
        try:
            while driver.poll() is None and not (
                (folder / "search.json").exists() and sum(e.done for e in journal(folder).trials) >= enough
            ):
                time.sleep(0.05)
            assert driver.poll() is None, "it ended before it could be killed"
        finally:
            kill_all(marker)
            driver.wait()
        finished = [entry for entry in journal(folder).trials if entry.done]
        for name, content in done_before.items():
            assert (folder / name / "result.json").read_bytes() == content, "a trial that was done was run again"
        done_before = {entry.name: (folder / entry.name / "result.json").read_bytes() for entry in finished}
    trained(*arguments)
    trials = journal(folder).trials
    stopped_by = f"training_iteration >= {ITERATIONS}"
    assert [entry.options["gamma"] for entry in trials] == GAMMAS * SAMPLES
    assert [(entry.status, entry.stopped_by) for entry in trials] == [("terminated", stopped_by)] * len(trials)
    for entry in trials:
        assert [row["training_iteration"] for row in rows(folder / entry.name)] == list(range(1, ITERATIONS + 1))
    for name, content in done_before.items():
        assert (folder / name / "result.json").read_bytes() == content
