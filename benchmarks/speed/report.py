"""RESULTS.md, from the figures of all rows."""

import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed import peers
from benchmarks.speed.table import APART, LIMIT, ROWS, Memory, Published, Row, Scaling, Threshold, Throughput

RESULTS = Path(__file__).parent / "RESULTS.md"
NAMES = {"sb3": "SB3", "rllib": "RLlib", "cleanrl": "CleanRL's way", LIMIT: "the limit", APART: "runs apart"}
HEAD = """# Speed

Written by `make bench`; [performance.md](../../docs/performance.md) says how it is measured and what was
done about it.

{machine}

Figures are medians over the rounds, with the least and the most. In a round every contender works for one window while
the others stand still, so that ratios compare what was measured within seconds. "CleanRL's way" is a loop in the manner
of its scripts, written for this benchmark; "the limit" are the environment's steps and the networks' passes alone, as
PyTorch does them; "runs apart" are as many runs of ours at once as there are workers, without Ray, together. A row is
as old as its date.
"""


def machine() -> str:
    """Where, and with what."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "gymnasium", "ray", "numpy"))
    others = f"Stable-Baselines3 {peers.version('sb3')}, RLlib {peers.version('rllib')}"
    return (
        f"Machine: {models[0] if models else platform.processor()}, {len(os.sched_getaffinity(0))} CPUs, "
        f"{platform.system()} {platform.release()}. Python {platform.python_version()}, {packages}. Peers: {others}."
    )


def write_report(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write RESULTS.md from the results of the rows."""
    known = [(row, results[row.name]) for row in ROWS if row.name in results]
    machines = dict.fromkeys(each["machine"] for _, each in known)
    parts = [HEAD.format(machine="\n\n".join(machines))]
    for kind, title in (
        (Throughput, "Environment steps a second, learning included"),
        (Threshold, "Seconds from the command to the reward"),
        (Scaling, "Workers whose environment sleeps a millisecond a step: environment steps a second"),
        (Memory, "Megabytes of a run"),
        (Published, "Environment steps a second on a GPU, beside what LeanRL has published of one H100"),
    ):
        rows = [(row, each) for row, each in known if isinstance(row, kind)]
        if rows:
            parts += [f"\n## {title}\n", "\n".join(table(rows)), ""]
    missing = [row.name for row in ROWS if row.name not in results]
    if missing:
        parts += ["\n## Not measured yet\n", f"{', '.join(missing)}.", ""]
    RESULTS.write_text("\n".join(parts))


def table(rows: list[tuple[Any, Mapping[str, Any]]]) -> Iterator[str]:
    """A table of rows of one kind; under the ratio of each is what it is to be."""
    names = list(dict.fromkeys(name for _, each in rows for name in each["figures"]))
    yield "| row | " + " | ".join(NAMES.get(name, name) for name in names) + " | ratios (bar) | date |"
    yield "| --- |" + " --- |" * (len(names) + 2)
    for row, each in rows:
        figures = each["figures"]
        cells = [spread(figures[name]) if name in figures else "" for name in names]
        yield f"| {row.name} | " + " | ".join(cells) + f" | {'; '.join(ratios(row, figures))} | {each['date']} |"


def spread(values: list[float]) -> str:
    """The median, the least and the most; what was not reached in time is infinite."""
    if len(values) == 1 or min(values) == max(values):
        return figure(median(values))
    return f"{figure(median(values))} ({figure(min(values))} to {figure(max(values))})"


def figure(value: float) -> str:
    if math.isinf(value):
        return "not in time"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratios(row: Row, figures: Mapping[str, list[float]]) -> Iterable[str]:
    """Yield the ratios of the medians, with the row's bars."""
    medians = {name: median(values) for name, values in figures.items()}
    match row:
        case Throughput():
            for name in (name for name in medians if name != "ours"):
                yield ratio_text(NAMES[name], medians["ours"] / medians[name], row.bars.get(name))
        case Threshold():
            yield ratio_text(NAMES[row.peer], medians[row.peer] / medians["ours"], row.bar)
        case Scaling():
            one, many = medians.values()
            yield ratio_text("one worker", many / one, row.bar)
        case Published():
            yield ratio_text(f"LeanRL's {row.rate:,.0f}", medians["ours"] / row.rate, 1.0)
            yield ratio_text("kernel by kernel", medians["ours"] / medians["kernel by kernel"], None)
        case Memory():
            if row.most is not None:
                yield f"{'' if medians['ours'] <= row.most else '**missed** '}at most {row.most:.0f}"
            for name, most in row.share.items():
                share = medians["ours"] / medians[name]
                yield f"{NAMES[name]} x {share:.2f} (at most {most}{'' if share <= most else ', **missed**'})"


def ratio_text(name: str, ratio: float, bar: float | None) -> str:
    """Format a ratio and its bar."""
    if math.isnan(ratio) or math.isinf(ratio):
        return f"{name}: no ratio, for one was not in time"
    text = f"{name} x {ratio:.2f}"
    return text if bar is None else f"{text} ({bar:g}{'' if ratio >= bar else ', **missed**'})"
