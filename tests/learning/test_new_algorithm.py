"""The page that shows how to write an algorithm: its code runs, learns, and is typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rltrainer.runs import train
from tests.unit.trainer.helpers import experiment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "new-algorithm.md"


def codes() -> list[str]:
    """The page's two files: QR-DQN's, and one's own."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_shows_qr_dqn_as_it_is() -> None:
    assert codes()[0] == (ROOT / "rltrainer" / "algorithms" / "qr_dqn.py").read_text()


@pytest.fixture
def munchausen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's file, on the Python path."""
    (tmp_path / "munchausen.py").write_text(codes()[1])
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "munchausen.py"


def test_the_page_is_an_algorithm_that_learns(munchausen: Path, tmp_path: Path) -> None:
    config = {
        "seed": 0,
        "lr": 0.001,
        "tau": 0.005,
        "target_update_freq": 1,
        "updates_per_step": 0.25,
        "batch_size": 32,
        "rollout_fragment_length": 16,
        "learning_starts": 500,
        "timesteps_per_iteration": 500,
    }
    given = experiment(run="munchausen:MUNCHAUSEN", config=config, stop={"timesteps_total": 10_000})
    result = train.run(given, tmp_path / "runs")
    assert result.row["episode_reward_mean"] > 60, "a random policy gets 22"


def test_the_page_is_well_typed_and_short(munchausen: Path) -> None:
    assert len(munchausen.read_text().splitlines()) <= 70
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(munchausen)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
