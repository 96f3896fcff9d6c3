"""What a run leaves in its folder: result.json, params.json, TensorBoard events, train.log; and on the terminal."""

import json
import logging
import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from rltrainer.paths import LOG, PARAMS, RESULTS
from rltrainer.progress import Row
from rltrainer.spec import Stop

log = logging.getLogger(__name__)


def keep_until(folder: Path, iteration: int) -> None:
    """Cuts result.json back to the rows up to `iteration`, so that a restored run writes each row once."""
    path = folder / RESULTS
    if not path.exists():
        return
    rows = [line for line in path.read_text().splitlines() if _iteration(line) <= iteration]
    part = path.with_suffix(".part")
    part.write_text("".join(row + "\n" for row in rows))
    part.rename(path)


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["training_iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a row that was cut off in writing


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """Writes params.json: the document as it was run, with every option and the seed."""
    part = folder / (PARAMS + ".part")
    part.write_text(json.dumps(params, indent=1) + "\n")
    part.rename(folder / PARAMS)


class Results:
    """Writes the rows of a run, wherever people look for them."""

    def __init__(self, folder: Path, iteration: int, stop: Stop, terminal: bool) -> None:
        self.folder, self.stop = folder, stop
        keep_until(folder, iteration)
        self._rows = (folder / RESULTS).open("a")
        self._board = SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None, flush_secs=10)
        self._spoken = float("-inf")
        self._bar = progress_bar(stop) if terminal else None

    def write(self, row: Row, last: bool) -> None:
        """One row to result.json and TensorBoard; a line for people once a second, for the last, and for
        those with an evaluation."""
        self._rows.write(json.dumps(row) + "\n")
        self._rows.flush()
        step = int(row["training_iteration"])
        for name, value in scalars(row):
            self._board.add_scalar(name, value, step)
        if self._bar is not None:
            self._bar.update(row["timesteps_total"] - self._bar.n)
            self._bar.set_postfix_str(summary(row))
        if last or "evaluation" in row or monotonic() - self._spoken >= 1.0:
            self._spoken = monotonic()
            log.info("iteration %4d  %9s steps  %s", step, f"{row['timesteps_total']:,}", summary(row))

    def files(self) -> list[Path]:
        """The files that storage is to have a copy of."""
        events = self.folder.glob("events.out.tfevents.*")
        return [
            path for path in (self.folder / RESULTS, self.folder / PARAMS, self.folder / LOG, *events) if path.exists()
        ]

    def close(self) -> None:
        """Writes what is still to be written."""
        self._rows.close()
        self._board.close()
        if self._bar is not None:
            self._bar.close()


def scalars(row: Row) -> list[tuple[str, float]]:
    """The numbers in a row with TensorBoard's names for them: nested ones are joined by slashes, as RLlib's are."""
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, dict):
            found += [(f"{name}/{inner}", number) for inner, number in scalars(value)]
        elif isinstance(value, int | float):
            found.append((name, value))
    return found


def summary(row: Row) -> str:
    """What people watch, in a line."""
    mean, learner = row["episode_reward_mean"], row["info"]["learner"]
    parts = ["reward       -" if mean is None else f"reward {mean:7.2f}"]
    if mean is not None:
        parts.append(f"({row['episode_reward_min']:g} to {row['episode_reward_max']:g})")
    if evaluation := row.get("evaluation"):
        found = "evaluation {episode_reward_mean:.2f} ({episode_reward_min:g} to {episode_reward_max:g})"
        parts.append(found.format(**evaluation))
    if row["timesteps_per_second"]:
        parts.append(f"{row['timesteps_per_second']:,.0f} steps/s")
    parts += [f"{name} {learner[name]:.3f}" for name in ("entropy", "kl") if learner.get(name) is not None]
    return "  ".join(parts)


def progress_bar(stop: Stop) -> "tqdm[Any]":
    """A bar of environment steps; it has an end where the document gives one."""
    return tqdm(total=stop.timesteps_total, unit=" steps", unit_scale=True, dynamic_ncols=True, leave=False)


class TerminalHandler(logging.StreamHandler[Any]):
    """Log lines that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line above the bar, if there is one."""
        tqdm.write(self.format(record), file=sys.stderr)


def log_to(folder: Path | None, terminal: bool) -> list[logging.Handler]:
    """Sends the package's log to the terminal, and to train.log in `folder`; returns what to take away again."""
    handlers: list[logging.Handler] = [TerminalHandler() if terminal else logging.StreamHandler(sys.stderr)]
    stamped = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handlers[0].setFormatter(logging.Formatter("%(message)s") if terminal else stamped)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / LOG))
        handlers[-1].setFormatter(stamped)
    package = logging.getLogger("rltrainer")
    package.setLevel(logging.INFO)
    package.propagate = False
    for handler in handlers:
        package.addHandler(handler)
    return handlers


def stop_logging(handlers: list[logging.Handler]) -> None:
    """Undoes `log_to`."""
    for handler in handlers:
        logging.getLogger("rltrainer").removeHandler(handler)
        handler.close()


def on_terminal() -> bool:
    """Whether somebody watches: standard error is a terminal, and no CI says otherwise."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
