"""Results of seeds, a file for each of what is trained: whole or not there, and forgotten once that has changed."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Results = dict[str, Any]
"""`document`, which identifies what was trained, and `seeds`: an outcome by each seed's number."""


def stored(path: Path, document: str) -> Results:
    """Return the results at `path`; empty ones where there are none, or those of another `document`."""
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    return results if results.get("document") == document else {"document": document, "seeds": {}}


def store(path: Path, results: Results, seed: int, outcome: dict[str, Any]) -> None:
    """Add the outcome of a seed to `results`, and write them to `path`, whole or not at all."""
    results["seeds"] = dict(sorted({**results["seeds"], str(seed): outcome}.items()))
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.part")
    part.write_text(json.dumps(results) + "\n")
    part.rename(path)


def outcome_of(command: Sequence[str], what: str) -> dict[str, Any]:
    """Run a process; return the JSON object that it prints last. Raises SystemExit that names `what` has failed."""
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{what}, failed:\n{process.stderr[-4000:]}")
    outcome: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return outcome
