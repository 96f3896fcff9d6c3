"""Every algorithm on its reference tasks, over several seeds: `make learning`.

    python -m benchmarks.learning [--only PATTERN...] [--seeds N] [--jobs N] [--report]

Runs each seed that has no result yet in a process of its own, one after the other or --jobs side by side, keeps it in
benchmarks/learning/results/, and writes benchmarks/learning/RESULTS.md. It can be stopped at any moment and goes on
with the next seed. A result is of one document: when that changes, its task is run anew.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from benchmarks import results
from benchmarks.learning.report import write_report
from benchmarks.learning.table import TASKS, TUNED, Task
from benchmarks.results import Results, outcome_of, store

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=["*"], help="tasks with a name like one of these: 'cartpole-*'")
    arguments.add_argument("--seeds", type=int, help="at most so many seeds of each task")
    arguments.add_argument("--jobs", type=int, default=1, help="seeds side by side, on an equal share of the CPUs each")
    arguments.add_argument("--report", action="store_true", help="run nothing, write RESULTS.md from what is there")
    options = arguments.parse_args()
    tasks = [task for task in TASKS if any(fnmatch.fnmatch(task.name, pattern) for pattern in options.only)]
    if not options.report:
        complete([(task, min(task.seeds, options.seeds or task.seeds)) for task in tasks], options.jobs)
    write_report({task.name: stored(task) for task in TASKS})
    return 0


def complete(tasks: list[tuple[Task, int]], jobs: int) -> None:
    """Run the missing seeds of each task, `jobs` at a time; the first that fails ends all."""
    missing: list[tuple[Task, int]] = []
    for task, seeds in tasks:
        finished = stored(task)["seeds"]
        missing += [(task, seed) for seed in range(seeds) if str(seed) not in finished]
    shares: Queue[set[int]] = Queue()
    for share in split(os.sched_getaffinity(0), jobs):
        shares.put(share)
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(one, task.name, seed, shares): (task, seed) for task, seed in missing}
        for ended in as_completed(running):
            task, seed = running[ended]
            try:
                outcome = ended.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            store(path(task), stored(task), seed, outcome)
            print(f"{task.name:24} seed {seed}  {summary(outcome)}", flush=True)


def split(cpus: set[int], jobs: int) -> list[set[int]]:
    """An equal share of `cpus` for each job: with more jobs than CPUs, some have the same one."""
    ordered = sorted(cpus)
    return [set(ordered[job::jobs]) or {ordered[job % len(ordered)]} for job in range(jobs)]


def one(name: str, seed: int, shares: Queue[set[int]]) -> dict[str, Any]:
    """Run one seed in a process of its own on one share of the CPUs; return its result. Raises SystemExit."""
    share = shares.get()
    try:
        command = ["taskset", "--cpu-list", ",".join(map(str, share))]
        command += [sys.executable, "-m", "benchmarks.learning.one", name, str(seed)]
        return outcome_of(command, f"{name}, seed {seed}")
    finally:
        shares.put(share)


def summary(outcome: dict[str, Any]) -> str:
    return (
        f"{outcome['mean']:8.1f} ± {outcome['stderr']:.1f} after {outcome['timesteps']:,} steps, {outcome['seconds']} s"
    )


def path(task: Task) -> Path:
    return RESULTS / f"{task.name}.json"


def stored(task: Task) -> Results:
    """Return the results of `task`, empty where its document has changed since."""
    return results.stored(path(task), fingerprint(task))


def fingerprint(task: Task) -> str:
    """Hash what is trained and for how long; comments and the order of fields do not count."""
    spec = yaml.safe_load((TUNED / f"{task.name}.yaml").read_text())["spec"]
    return hashlib.sha256(json.dumps([spec, task.steps], sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
