"""Every algorithm on its reference tasks, over several seeds: `make learning`.

    python -m benchmarks.learning [--only PATTERN] [--seeds N] [--report]

Runs each seed that has no result yet in a process of its own, one after the other, keeps it in
benchmarks/learning/results/, and writes benchmarks/learning/RESULTS.md. It can be stopped at any moment and goes on
with the next seed. A result is of one document: when that changes, its task is run anew.
"""

import argparse
import fnmatch
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.learning.report import write_report
from benchmarks.learning.table import TASKS, TUNED, Task

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="*", help="tasks whose name matches, such as 'cartpole-*'")
    arguments.add_argument("--seeds", type=int, help="at most so many seeds of each task")
    arguments.add_argument("--report", action="store_true", help="run nothing, write RESULTS.md from what is there")
    given = arguments.parse_args()
    for task in TASKS:
        if not given.report and fnmatch.fnmatch(task.name, given.only):
            complete(task, min(task.seeds, given.seeds or task.seeds))
    write_report({task.name: stored(task) for task in TASKS})
    return 0


def complete(task: Task, seeds: int) -> None:
    """Runs the seeds of `task` that are missing."""
    found = stored(task)
    for seed in range(seeds):
        if str(seed) not in found["seeds"]:
            found["seeds"][str(seed)] = outcome = one(task.name, seed)
            store(task, found)
            print(f"{task.name:24} seed {seed}  {summary(outcome)}", flush=True)


def one(name: str, seed: int) -> dict[str, Any]:
    """What one seed reaches, in a process of its own, or what went wrong."""
    command = [sys.executable, "-m", "benchmarks.learning.one", name, str(seed)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{name}, seed {seed}, failed:\n{process.stderr[-4000:]}")
    outcome: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return outcome


def summary(outcome: dict[str, Any]) -> str:
    return (
        f"{outcome['mean']:8.1f} ± {outcome['stderr']:.1f} after {outcome['timesteps']:,} steps, {outcome['seconds']} s"
    )


def stored(task: Task) -> dict[str, Any]:
    """What is known of `task` with its document as it is now."""
    path, now = RESULTS / f"{task.name}.json", fingerprint(task)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("document") == now else {"document": now, "seeds": {}}


def store(task: Task, found: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f".{task.name}.part"
    part.write_text(json.dumps(found) + "\n")
    part.rename(RESULTS / f"{task.name}.json")


def fingerprint(task: Task) -> str:
    """Of what is trained and for how long; comments and the order of fields do not count."""
    spec = yaml.safe_load((TUNED / f"{task.name}.yaml").read_text())["spec"]
    return hashlib.sha256(json.dumps([spec, task.steps], sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
