"""RESULTS.md: what the reference tasks reach, from the results that are there."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.table import TASKS, TUNED, Task

REPORT = Path(__file__).parent / "RESULTS.md"
HEAD = """# Reference tasks

Written by `make learning` (`python -m benchmarks.learning`), from the results in benchmarks/learning/results. Each row
is the document of that name in examples/tuned, printed below, trained once per seed; its stop condition ends a run.

*Return* is the interquartile mean over the seeds of the mean of 100 deterministic episodes after training, in states
that training never saw, others for every seed. *Steps* and *seconds* are the mean environment steps and seconds of
training, without the evaluations on the way, on so many *CPUs*; what has one of several had other runs beside it. A row
is *met* if the return is at least the bar within the steps allowed.
"""


def write_report(results: dict[str, dict[str, Any]]) -> None:
    """Write RESULTS.md from the results by the task's name."""
    lines = [HEAD, machine(), ""]
    lines += ["| task | bar | within | return | each seed | steps | seconds | CPUs | met | reference |"]
    lines += ["| --- " * 10 + "|"]
    lines += [row(task, list(results[task.name]["seeds"].values())) for task in TASKS]
    lines += ["", "## The documents", ""]
    for task in TASKS:
        document = (TUNED / f"{task.name}.yaml").read_text().strip()
        lines += [f"### {task.name}", "", "```yaml", document, "```", ""]
    REPORT.write_text("\n".join(lines).rstrip() + "\n")


def machine() -> str:
    """What it was measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "gymnasium", "numpy"))
    return f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {packages}."


def row(task: Task, outcomes: list[dict[str, Any]]) -> str:
    """One line of the table."""
    bar = "stated" if task.bar is None else f"{task.bar:g}"
    cells = [task.name, bar, f"{task.steps:,}"]
    if not outcomes:
        return "| " + " | ".join([*cells, "not run", "", "", "", "", "", task.reference]) + " |"
    means = [outcome["mean"] for outcome in outcomes]
    middle = interquartile_mean(means)
    enough = len(outcomes) >= task.seeds
    met = "" if task.bar is None else ("yes" if middle >= task.bar else "**no**")
    cells += [
        f"{middle:.1f}",
        ", ".join(f"{mean:.0f}" for mean in means),
        f"{mean_of(outcomes, 'timesteps'):,.0f}",
        f"{mean_of(outcomes, 'seconds'):,.0f}",
        ", ".join(map(str, sorted({outcome["cpus"] for outcome in outcomes}))),
        met if enough else f"{met} ({len(outcomes)} of {task.seeds} seeds)",
        task.reference,
    ]
    return "| " + " | ".join(cells) + " |"


def mean_of(outcomes: list[dict[str, Any]], name: str) -> float:
    return fmean(float(outcome[name]) for outcome in outcomes)


def interquartile_mean(values: list[float]) -> float:
    """The mean of the middle half; a value on its border counts in part. Agarwal et al. 2021, arXiv 2108.13264."""
    quarter = len(values) / 4
    weights = [min(i + 1, len(values) - quarter) - max(i, quarter) for i in range(len(values))]
    weighted = [(max(0.0, weight), value) for weight, value in zip(weights, sorted(values), strict=True)]
    return sum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)
