"""Files of a run that are whole or not there, however the process ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from rltrainer.api.experiment import Stop
from rltrainer.errors import RunError
from rltrainer.reporting.results import Results
from rltrainer.runs import train
from rltrainer.runs.folder import MARK, RunFolder
from rltrainer.runs.params import write_params
from rltrainer.storage import checkpoint, files
from rltrainer.tune.journal import Journal
from tests.unit.trainer.helpers import experiment, quick


def write_mark(folder: Path, version: str) -> Path:
    RunFolder(folder, version).mark("done")
    return folder / MARK


def write_parameters(folder: Path, version: str) -> Path:
    document = experiment(config={"seed": 1})
    write_params(folder, document.spec, version, document.spec.options(), 1, start=0)
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


def test_result_json_stays_json(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "training_iteration": 1,
        "timesteps_total": 5,
        "episode_reward_mean": float("nan"),
        "timesteps_per_second": 0,
    }
    row |= {"info": {"learner": {"loss": float("inf"), "each": [1.0, float("-inf")]}}}
    results = Results(tmp_path, 0, Stop(), terminal=False)
    results.write(row, last=True)
    results.close()
    (line,) = (tmp_path / "result.json").read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    written = json.loads(line, parse_constant=refuse)
    assert written["episode_reward_mean"] is None
    assert written["info"] == {"learner": {"loss": None, "each": [1.0, None]}}


def test_a_full_disk_is_one_line_and_keeps_no_half_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """safetensors has an error of its own for it."""

    def full(*arguments: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"No space left on device.*Make room") as ended:
        train.run(experiment(config=quick(), stop={"training_iteration": 1}), tmp_path)
    assert ended.value.exit_code == 1
    assert "Traceback" not in capsys.readouterr().err
    assert list((tmp_path / "test" / "checkpoints").iterdir()) == []
