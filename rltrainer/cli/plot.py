"""`rltrainer plot`: learning curves, in the terminal or as an image."""

import argparse
import difflib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rltrainer.cli.common import UsageError, storage_arguments, storage_of
from rltrainer.reporting.rows import flattened
from rltrainer.storage.paths import RESULTS

X = ("timesteps_total", "training_iteration", "time_total_s")
MEAN = "episode_reward_mean"
MAX_LEGEND = 20
"""Curves that an image has room for in its legend."""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `plot`."""
    sub.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run, a search (each trial is a curve), a folder with runs in it, or a result.json; a path or s3:// URI",
    )
    sub.add_argument("--x", choices=X, default=X[0], help="what lies to the right (%(default)s)")
    sub.add_argument(
        "--y",
        metavar="METRIC",
        default=MEAN,
        help="a number in the rows of result.json, nested ones as in evaluation/episode_reward_mean (%(default)s)",
    )
    sub.add_argument("--out", metavar="FILE", help="write a picture, .png, .svg or .pdf, instead of drawing here")
    storage_arguments(sub)


@dataclass(frozen=True)
class Curve:
    """The points of one run, in the order of its rows."""

    name: str
    x: list[float]
    y: list[float]


def main(arguments: argparse.Namespace) -> int:
    """Draw the curves of some runs."""
    import importlib  # noqa: PLC0415 - used only here

    library = importlib.import_module("matplotlib.figure" if arguments.out else "plotext")
    curves = [curve_of(name, rows, arguments.x, arguments.y) for name, rows in read_runs(arguments)]
    if arguments.out:
        save_image(library, curves, arguments.x, arguments.y, Path(arguments.out).expanduser())
        sys.stdout.write(f"{arguments.out}\n")
    else:
        sys.stdout.write(draw_text(library, curves, arguments.x, arguments.y) + "\n")
    return 0


def read_runs(arguments: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the name and rows of each run. Raises UsageError for a path without runs, or that cannot be read."""
    from rltrainer.cli.terminal import log_to_terminal  # noqa: PLC0415 - boto3 comes with it
    from rltrainer.storage.open import open_store  # noqa: PLC0415
    from rltrainer.storage.store import retry  # noqa: PLC0415

    with log_to_terminal():
        for path in arguments.runs:
            uri = path.rstrip("/").removesuffix("/" + RESULTS)
            store = open_store(uri, storage_of(arguments, uri))
            files = [key for key in retry(lambda: store.keys("")) if f"/{key}".endswith("/" + RESULTS)]  # noqa: B023
            if not files:
                raise UsageError(f"there is no {RESULTS} in {uri}: give the folder of a run, or one with runs in it")
            for key in files:
                folder = key.removesuffix(RESULTS).rstrip("/")
                content = retry(lambda: store.read(key)) or b""  # noqa: B023 - called at once
                yield "/".join(filter(None, (uri.rpartition("/")[2], folder))), rows_of(content)


def rows_of(content: bytes) -> list[dict[str, Any]]:
    """Parse the rows of a result.json, flattened. The last one may be half written, as the run may still go on."""
    rows = []
    for line in content.decode().splitlines():
        try:
            rows.append(flattened(json.loads(line)))
        except ValueError:
            break
    return rows


def curve_of(name: str, rows: list[dict[str, Any]], x: str, y: str) -> Curve:
    """Return the points of the rows that have `y`. Raises UsageError where no row has."""
    known = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    if rows and y not in known and not any(y in row for row in rows):
        near = difflib.get_close_matches(y, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name} has no {y}.{hint} It has {', '.join(sorted(known))}")
    points = [(row[x], row[y]) for row in rows if row.get(y) is not None and math.isfinite(row[y])]
    return Curve(name, [float(a) for a, _ in points], [float(b) for _, b in points])


def draw_text(plotext: ModuleType, curves: list[Curve], x: str, y: str) -> str:
    """Draw the curves as text, with color on a terminal."""
    figure = plotext.figure
    figure.clear()
    for curve in curves:
        figure.draw(figure.signal(curve.x, curve.y).lines().label(curve.name))
    figure.title(y).label(x, axis="x", side="lower")
    text: str = figure.build().string(colorless=not sys.stdout.isatty())
    return text


def save_image(matplotlib_figure: ModuleType, curves: list[Curve], x: str, y: str, path: Path) -> None:
    """Save the curves as an image at `path`. Raises UsageError where it cannot be written."""
    figure = matplotlib_figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        axes.plot(curve.x, curve.y, label=curve.name)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    if len(curves) <= MAX_LEGEND:
        axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written: {error}") from None
