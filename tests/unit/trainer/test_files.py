"""Files of a run that are whole or not there, however the process ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from rltrainer.reporting.results import write_params
from rltrainer.runs.folder import MARK, RunFolder
from rltrainer.storage import files
from rltrainer.tune.journal import Journal


def write_mark(folder: Path, version: str) -> Path:
    RunFolder(folder, version).mark("done")
    return folder / MARK


def write_parameters(folder: Path, version: str) -> Path:
    write_params(folder, {"version": version})
    return folder / "params.json"


def write_journal(folder: Path, version: str) -> Path:
    return Journal(metric=version, mode="max").write(folder)


@pytest.mark.parametrize("write", [write_mark, write_parameters, write_journal])
def test_a_process_that_ends_while_it_writes_leaves_the_file_before(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends once all is written but not on the disk: a machine that stops then may have any part of it."""
    path: Path = write(tmp_path, "one")
    before = path.read_text()

    def end(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "sync_to_disk", end)
        write(tmp_path, "two")
    assert path.read_text() == before
    write(tmp_path, "two")
    assert "two" in path.read_text()
    assert json.loads(path.read_text())
    assert not list(tmp_path.glob("*.part"))
