"""`rl.results`: what a run has written down."""

import os
from pathlib import Path
from typing import Any

from rltrainer.reporting.frames import results_table
from rltrainer.runs.train import Result


def results(run: Result | str | os.PathLike[str]) -> Any:
    """Return the results of a run, as `train` returns it or its folder, as a pandas DataFrame: a row for each
    iteration, nested names joined by slashes. Raises RunError without pandas, or where there are none."""
    return run.results if isinstance(run, Result) else results_table(Path(run).expanduser())
