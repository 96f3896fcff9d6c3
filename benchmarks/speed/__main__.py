"""How fast every algorithm is, beside other libraries and beside the limit of the machine: `make bench`.

    python -m benchmarks.speed [--only PATTERN] [--rounds N] [--seconds S] [--again] [--report]

Measures one row after the other, keeps each in benchmarks/speed/results/ as it is done, and writes
benchmarks/speed/RESULTS.md. It can be stopped at any moment and goes on with the row that it was at: a row is done once
it has been measured with the code as it is now. The peers are installed from PyPI into environments of their own. Let
nothing else run on the machine.
"""

import argparse
import fnmatch
import hashlib
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.learning.table import TUNED
from benchmarks.speed.measure import measured
from benchmarks.speed.peers import python
from benchmarks.speed.report import figure, machine, ratios, write_report
from benchmarks.speed.table import ROWS, Published, Row, Threshold, Throughput

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ROUNDS = {Throughput: 5, Threshold: 1}
"""Default rounds of a row by its kind; 2 of any other."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="*", help="rows whose name matches, such as 'ppo-*'")
    arguments.add_argument("--rounds", type=int, help="rounds of each row (5; thresholds 1, others 2)")
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a window (%(default)s)")
    arguments.add_argument("--again", action="store_true", help="measure rows that are done once more")
    arguments.add_argument("--report", action="store_true", help="measure nothing, write RESULTS.md from what is there")
    options = arguments.parse_args()
    failed = 0
    if not options.report:
        for contender in ("sb3", "rllib"):
            python(contender)  # installs it, before anything is measured
        for row in ROWS:
            if not fnmatch.fnmatch(row.name, options.only) or (is_measured(row) and not options.again):
                continue
            if isinstance(row, Published) and not torch.cuda.is_available():
                print(f"{row.name:28} left out: PyTorch sees no GPU", flush=True)
            else:
                failed += not complete(row, options.rounds or ROUNDS.get(type(row), 2), options.seconds)
    write_report({row.name: json.loads(path(row).read_text()) for row in ROWS if path(row).exists()})
    return 1 if failed else 0


def complete(row: Row, rounds: int, seconds: float) -> bool:
    """Measure a row, store its figures and print them, or print the error; return whether it succeeded."""
    try:
        figures = measured(row, rounds, seconds)
    except RuntimeError as error:
        print(f"{row.name} failed: {error}", flush=True)
        return False
    result = {"code": code(), "row": described(row), "machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    RESULTS.mkdir(exist_ok=True)
    part = path(row).with_suffix(".part")
    part.write_text(json.dumps({**result, "figures": figures}, indent=1) + "\n")
    part.rename(path(row))
    medians = ", ".join(f"{name} {figure(median(values))}" for name, values in figures.items())
    print(f"{row.name:28} {medians}; {'; '.join(ratios(row, figures))}", flush=True)
    return True


def path(row: Row) -> Path:
    return RESULTS / f"{row.name}.json"


def is_measured(row: Row) -> bool:
    """Whether the current row was measured with the current code."""
    result: dict[str, Any] = json.loads(path(row).read_text()) if path(row).exists() else {}
    return (result.get("code"), result.get("row")) == (code(), described(row))


def described(row: Row) -> Any:
    """The row, and the document that it runs, if it does."""
    content = (TUNED / f"{row.document}.yaml").read_text() if isinstance(row, Threshold) else None
    return json.loads(json.dumps({**asdict(row), "content": content}))


def code() -> str:
    """A fingerprint of the trainer."""
    files = sorted((HERE.parents[1] / "rltrainer").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
