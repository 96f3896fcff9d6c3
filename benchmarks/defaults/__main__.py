"""Every algorithm with nothing but its defaults, beside Stable-Baselines3 with its own.

    python -m benchmarks.defaults [--only PATTERN...] [--seeds N] [--report]

Runs each seed that has no result yet in a process of its own, keeps it in benchmarks/defaults/results/, and writes
benchmarks/defaults/RESULTS.md. It can be stopped at any moment and goes on with the next seed. A result of ours is of
the defaults as they are: where they change, it is run anew. Stable-Baselines3 is installed from PyPI into an
environment of its own.
"""

import argparse
import fnmatch
import hashlib
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import results
from benchmarks.defaults.table import ROWS, Row
from benchmarks.results import Results, outcome_of, store
from benchmarks.speed import peers
from rltrainer.api.options import OPTIONS, options_for_task
from rltrainer.envs.source import EnvSource
from rltrainer.runs.build import tasks_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SEEDS, EPISODES = 3, 100
STATES = 1_000_000
"""Seed of the states that a policy is evaluated in; each seed's policy has its own."""
HEAD = """# Defaults

Written by `python -m benchmarks.defaults`, from the results in benchmarks/defaults/results: `--run X --env Y` and
nothing else, for so many environment steps. A return is the mean of 100 deterministic episodes after training, in
states that training never saw; each seed has its own. Stable-Baselines3 has its own defaults.
"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=["*"], help="rows with a name like one of these: 'PPO-*'")
    arguments.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each row (%(default)s)")
    arguments.add_argument("--report", action="store_true", help="run nothing, write RESULTS.md from what is there")
    options = arguments.parse_args()
    if not options.report:
        for row in ROWS:
            if any(fnmatch.fnmatch(row.name, pattern) for pattern in options.only):
                complete(row, options.seeds)
    write_report()
    return 0


def complete(row: Row, seeds: int) -> None:
    """Run the missing seeds of a row, of each contender."""
    for seed in range(seeds):
        for contender in row.contenders:
            finished = stored(row, contender)
            if str(seed) not in finished["seeds"]:
                outcome = trained(row, contender, seed)
                store(path(row, contender), finished, seed, outcome)
                print(f"{row.name:28} {contender:5} seed {seed}  {outcome['mean']:8.1f}", flush=True)


def trained(row: Row, contender: str, seed: int) -> dict[str, Any]:
    """Train one seed in a process of its own; return its outcome. Raises SystemExit."""
    command = [peers.python(contender), "-m", f"benchmarks.defaults.{contender}", row.run, row.env]
    command += [str(number) for number in (row.steps, seed, EPISODES, STATES + seed)]
    return outcome_of(command, f"{row.name}, {contender}, seed {seed}")


def path(row: Row, contender: str) -> Path:
    """Return the file of a contender's results."""
    return RESULTS / f"{row.name}.{contender}.json"


def stored(row: Row, contender: str) -> Results:
    """Return the results of a contender; none where the defaults that they are of have changed."""
    return results.stored(path(row, contender), fingerprint(row, contender))


def fingerprint(row: Row, contender: str) -> str:
    """Return what identifies the defaults: the peer's version, or a hash of our options on this task."""
    if contender != "ours":
        return peers.version(contender)
    options = options_for_task(OPTIONS[row.run], {}, tasks_of(EnvSource(row.env).spaces()))
    return hashlib.sha256(options.model_dump_json().encode()).hexdigest()[:16]


def write_report() -> None:
    """Write RESULTS.md from the results that are there."""
    lines = [HEAD, f"| run | env | steps | ours | each seed | SB3 {peers.version('sb3')} | each seed |"]
    lines += ["| --- " * 7 + "|"]
    lines += [report_row(row) for row in ROWS]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


def report_row(row: Row) -> str:
    """Return one line of the table."""
    cells = [row.run, row.env.rpartition(":")[2], f"{row.steps:,}"]
    for contender in ("ours", "sb3"):
        seeds = stored(row, contender)["seeds"].values() if contender in row.contenders else ()
        means = [outcome["mean"] for outcome in seeds]
        absent = "not run" if contender in row.contenders else "has none"
        cells += [f"{fmean(means):.0f}" if means else absent, ", ".join(f"{mean:.0f}" for mean in means)]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
