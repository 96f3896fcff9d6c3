"""What a run leaves in its folder: result.json, progress.csv, params.json, TensorBoard events, train.log; and on the
terminal."""

import csv
import json
import logging
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any, TextIO

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams
from tqdm import tqdm

from rltrainer.api.experiment import Stop
from rltrainer.reporting.rows import Row, flattened
from rltrainer.storage.files import finite, write_whole
from rltrainer.storage.paths import LOG, PARAMS, RESULTS, TABLE

log = logging.getLogger(__name__)

ROW_LOG_INTERVAL_S = 1.0
"""Seconds between log lines of rows, at least."""
Plain = str | bool | int | float
HPARAM_METRICS = ("episode_reward_mean", "timesteps_total")
"""What TensorBoard's table of hyperparameters shows beside them."""


def keep_until(folder: Path, iteration: int) -> None:
    """Cut result.json back to the rows up to `iteration`, so that a restored run writes each row once."""
    path = folder / RESULTS
    if not path.exists():
        return
    rows = [line for line in path.read_text().splitlines() if _iteration(line) <= iteration]
    write_whole(path, "".join(row + "\n" for row in rows))


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["training_iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a row that was cut off in writing


class Results:
    """The rows of a run, wherever people look for them."""

    def __init__(self, folder: Path, iteration: int, stop: Stop, terminal: bool) -> None:
        self.folder, self.stop = folder, stop
        keep_until(folder, iteration)
        self._rows = (folder / RESULTS).open("a")
        self._table = Table(folder / TABLE, folder / RESULTS)
        self._board = SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None, flush_secs=10)
        self._last_logged = float("-inf")
        self._bar = progress_bar(stop) if terminal else None

    def write(self, row: Row, last: bool) -> None:
        """Write one row to result.json, progress.csv and TensorBoard.

        It is logged too, for people, where a second has passed, it is the last, or it has an evaluation.
        """
        row = finite(row)
        self._rows.write(json.dumps(row, allow_nan=False) + "\n")
        self._rows.flush()
        flat, step = flattened(row), int(row["training_iteration"])
        self._table.write(flat)
        self._board.file_writer.add_summary(summary_of(flat), step)
        if self._bar is not None:
            self._bar.update(row["timesteps_total"] - self._bar.n)
            self._bar.set_postfix_str(summary(row))
        if last or "evaluation" in row or monotonic() - self._last_logged >= ROW_LOG_INTERVAL_S:
            self._last_logged = monotonic()
            log.info("iteration %4d  %9s steps  %s", step, f"{row['timesteps_total']:,}", summary(row))

    def hyperparameters(self, options: Row) -> None:
        """Write the options of this run for TensorBoard's table of hyperparameters."""
        present = {name: value for name, value in options.items() if value is not None}
        plain = {name: value if isinstance(value, Plain) else json.dumps(value) for name, value in present.items()}
        experiment, start, _ = hparams(plain, dict.fromkeys(HPARAM_METRICS))  # how it ends is not known yet
        for each in (experiment, start):
            self._board.file_writer.add_summary(each)

    def files(self) -> list[Path]:
        """Return the files that storage is to have a copy of."""
        events = self.folder.glob("events.out.tfevents.*")
        named = [self.folder / name for name in (RESULTS, TABLE, PARAMS, LOG)]
        return [path for path in (*named, *events) if path.exists()]

    def close(self) -> None:
        """Write what is still to be written."""
        with ExitStack() as closing:  # each of them, also where the disk is full
            for each in (self._rows, self._table, self._board, self._bar):
                if each is not None:
                    closing.callback(each.close)


class Table:
    """progress.csv: the rows of result.json with nested names joined by slashes.

    It is written anew from result.json where a row brings a column that is not there yet.
    """

    def __init__(self, path: Path, rows: Path) -> None:
        self.path, self.rows = path, rows
        self.columns: dict[str, None] = {}
        self._file: TextIO | None = None
        if rows.stat().st_size:
            self._rewrite()

    def write(self, flat: Row) -> None:
        """Write one row, flattened, which result.json has already."""
        if self._file is None or not flat.keys() <= self.columns.keys():
            self._rewrite()
        else:
            csv.writer(self._file).writerow([flat.get(name, "") for name in self.columns])
            self._file.flush()

    def _rewrite(self) -> None:
        self.close()
        rows = [flattened(json.loads(line)) for line in self.rows.read_text().splitlines()]
        self.columns = dict.fromkeys(name for row in rows for name in row)
        part = self.path.with_suffix(".part")
        self._file = part.open("w", newline="")
        writer = csv.DictWriter(self._file, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        self._file.flush()
        part.rename(self.path)

    def close(self) -> None:
        """End writing."""
        if self._file is not None:
            self._file.close()


def summary_of(flat: Row) -> Summary:
    """Make one summary of all numbers of a flattened row: one each would take TensorBoard ten times as long."""
    return Summary(
        value=[
            Summary.Value(tag=name, simple_value=value)
            for name, value in flat.items()
            if isinstance(value, int | float) and not name.startswith("config/")
        ]
    )


def summary(row: Row) -> str:
    """Say what people watch, in a line."""
    mean, learner = row["episode_reward_mean"], row["info"]["learner"]
    parts = ["reward       -" if mean is None else f"reward {mean:7.2f}"]
    if mean is not None:
        parts.append(f"({row['episode_reward_min']:g} to {row['episode_reward_max']:g})")
    if evaluation := row.get("evaluation"):
        template = "evaluation {episode_reward_mean:.2f} ({episode_reward_min:g} to {episode_reward_max:g})"
        parts.append(template.format(**evaluation))
    if row["timesteps_per_second"]:
        parts.append(f"{row['timesteps_per_second']:,.0f} steps/s")
    parts += [f"{name} {learner[name]:.3f}" for name in ("entropy", "kl") if learner.get(name) is not None]
    return "  ".join(parts)


def progress_bar(stop: Stop) -> "tqdm[Any]":
    """Make a bar of environment steps; it has an end where the document gives one."""
    return tqdm(total=stop.timesteps_total, unit=" steps", unit_scale=True, dynamic_ncols=True, leave=False)


class TerminalHandler(logging.StreamHandler[Any]):
    """Log lines that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line above the bar, if there is one."""
        tqdm.write(self.format(record), file=sys.stderr)


class LogFile(logging.FileHandler):
    """A log in a folder. Where the disk takes no more, that is said once, and the log goes on elsewhere."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say why the line is not written."""
        error = sys.exc_info()[1]
        if not self.failed:
            sys.stderr.write(f"{self.baseFilename} takes no more: {getattr(error, 'strerror', None) or error}\n")
        self.failed = True

    def close(self) -> None:
        """End writing; what the disk does not take is lost."""
        with suppress(OSError):
            super().close()


def log_to(folder: Path | None, terminal: bool, console: bool = True) -> list[logging.Handler]:
    """Send the package's log to standard error, if `console`, and to train.log in `folder`.

    Returns what `stop_logging` takes away again.
    """
    stamped = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handlers: list[logging.Handler] = []
    if console:
        handlers.append(TerminalHandler() if terminal else logging.StreamHandler(sys.stderr))
        handlers[0].setFormatter(logging.Formatter("%(message)s") if terminal else stamped)
        handlers[0].setLevel(logging.INFO)  # where an error was raised, only train.log says
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(LogFile(folder / LOG))
        handlers[-1].setFormatter(stamped)
    package = logging.getLogger("rltrainer")
    package.setLevel(logging.DEBUG)
    package.propagate = False
    for handler in handlers:
        package.addHandler(handler)
    return handlers


def stop_logging(handlers: list[logging.Handler]) -> None:
    """Undo `log_to`."""
    for handler in handlers:
        logging.getLogger("rltrainer").removeHandler(handler)
        handler.close()


def on_terminal() -> bool:
    """Return whether somebody watches: standard error is a terminal, and no CI says otherwise."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
