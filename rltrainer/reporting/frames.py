"""The rows of a run as a table of pandas."""

import json
from pathlib import Path
from typing import Any

from rltrainer.errors import RunError
from rltrainer.reporting.rows import flattened
from rltrainer.storage.paths import RESULTS


def results_table(folder: Path) -> Any:
    """Return the rows of result.json in a run's folder as a DataFrame: a row for each iteration, nested names joined by
    slashes. Raises RunError, permanent, without pandas, and where there are no rows."""
    try:
        import pandas  # noqa: PLC0415 - nothing else here needs it
    except ImportError:
        raise RunError("MissingPackage", "results as a table need pandas: pip install pandas", permanent=True) from None
    path = folder / RESULTS
    if not path.exists():
        raise RunError("NoResults", f"there are no results in {folder}: name the folder of a run", permanent=True)
    return pandas.DataFrame([flattened(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()])
