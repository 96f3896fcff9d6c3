"""Every block of Python in the documentation runs; those of a page one after the other, as a reader would. The pages of
decisions show parts of code, and run nowhere."""

import re
from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.documents import Experiment
from rltrainer.library import training
from rltrainer.runs.train import Result, run

ROOT = Path(__file__).parents[3]
ELSEWHERE = {"new-algorithm.md"}
"""tests/learning/test_new_algorithm.py runs its blocks."""
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in path.read_text() and path.name not in ELSEWHERE
]


def brief(experiment: Experiment, *arguments: Any, **more: Any) -> Result:
    """As the page says, but for a few iterations."""
    spec = experiment.spec.model_copy(
        update={"stop": experiment.spec.stop.model_copy(update={"training_iteration": 2})}
    )
    return run(experiment.model_copy(update={"spec": spec}), *arguments, **more)


def test_there_are_pages_with_python() -> None:
    assert {"README.md", "python.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run", brief)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "a_page"}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, page.name, "exec"), names)  # noqa: S102 - our own pages
