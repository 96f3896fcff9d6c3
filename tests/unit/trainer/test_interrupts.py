"""A run that a signal ends within an iteration goes on as if it had not stopped, and every update is counted once."""

import json
import signal
import zlib
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from rltrainer.api.options import OPTIONS
from rltrainer.errors import Interrupted
from rltrainer.runs import interrupt as interrupts
from rltrainer.runs import train
from rltrainer.runs.interrupt import Interrupt
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TASKS, equal, experiment, small

TIMES = ("time_this_iter_s", "time_total_s", "timesteps_per_second", "sample_time_s", "learn_time_s")
CONTINUOUS = ("DDPG", "TD3", "ApexDDPG", "SAC")


class Asked(Interrupt):
    """Asked to end at its `when`-th check or soon after, `waited` seconds after which the run stops."""

    def __init__(self, when: int, waited: float) -> None:
        super().__init__()
        self.left, self.waited = when, waited

    def check(self) -> None:
        self.left -= 1
        may = self.in_round or self.waited < interrupts.ROUND_GRACE  # only a round can be abandoned
        if self.left <= 0 and self.signum is None and may:
            self.ask(signal.SIGTERM)
            self._since = monotonic() - self.waited
        super().check()


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "test" / "result.json").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def state(result: train.Result) -> dict[str, Any]:
    assert result.checkpoint is not None
    tree = ckpt.read(result.checkpoint)[1]
    del tree["run"]["progress"]["time_total_s"]
    return tree


def given(run: str, **config: Any) -> Any:
    env = "Pendulum-v1" if run in CONTINUOUS else TASKS + "Described" if run == "ParametricDQN" else "CartPole-v1"
    options = small(run, timesteps_per_iteration=150, **config)
    return experiment(run=run, env=env, config=options, stop={"training_iteration": 4}, checkpoint={"frequency": 0})


@pytest.mark.parametrize("run", sorted(OPTIONS))
def test_a_run_that_is_ended_between_two_rounds_goes_on_bit_for_bit(tmp_path: Path, run: str) -> None:
    document = given(run)
    whole = state(train.run(document, tmp_path / "whole"))
    when = 60 + zlib.crc32(run.encode()) % 80  # of some 45 checks in an iteration of five rounds
    with pytest.raises(Interrupted):
        train.run(document, tmp_path / "cut", interrupt=Asked(when, interrupts.GRACE + 1))
    (saved,) = ckpt.manifests_in(tmp_path / "cut" / "test" / "checkpoints")
    begun = ckpt.read(tmp_path / "cut" / "test" / "checkpoints" / saved.name)[1]["run"]["begun"]
    assert begun is None or sum(report["timesteps"] for report in begun["reports"]) < 150
    cut = state(train.run(document, tmp_path / "cut"))
    for part in whole:
        assert equal(whole[part], cut[part]), part
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


@pytest.mark.parametrize("run", ["DQN", "SAC", "IMPALA", "A3C", "ApexDQN"])
def test_a_round_that_is_abandoned_leaves_no_update_uncounted(
    tmp_path: Path, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted):
        train.run(given(run), tmp_path, interrupt=Asked(125, interrupts.ROUND_GRACE + 1))
    assert "abandoned" in caplog.text
    (saved,) = ckpt.manifests_in(tmp_path / "test" / "checkpoints")
    tree = ckpt.read(tmp_path / "test" / "checkpoints" / saved.name)[1]
    begun = sum(report["timesteps"] for report in tree["run"]["begun"]["reports"])
    assert begun > 0
    assert tree["workers"] == {}
    steps = saved.timesteps_total + begun
    if tree["replay"]:
        held = tree["replay"]["0"].get("buffer", tree["replay"]["0"])["streams"][0]["columns"]["valid"]
        updates = tree["learner"]["memory"]["0"]["updates"]
        assert updates == int(0.25 * (steps - 40)) or abs(updates - 0.25 * (steps - 32)) <= 8, "one round at most"
        assert held.sum() <= steps
    row = train.run(given(run), tmp_path).row
    assert row["training_iteration"] == 4
    assert "no states of environments" in caplog.text


def test_learning_starts_counts_from_where_the_replay_begins_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def document(num_envs: int, iterations: int) -> Any:
        config = small("DQN", num_envs_per_worker=num_envs, timesteps_per_iteration=0, learning_starts=100)
        return experiment(
            run="DQN", config=config, stop={"training_iteration": iterations}, checkpoint={"frequency": 0}
        )

    train.run(document(4, 6), tmp_path)  # 192 steps and more
    train.run(document(2, 14), tmp_path, resume=True)
    assert "learning_starts counts from here" in capsys.readouterr().err
    sizes = {row["training_iteration"]: row["info"]["learner"].get("replay_size") for row in rows(tmp_path)}
    first = min(iteration for iteration, size in sizes.items() if iteration > 6 and size)
    assert sizes[first] >= 100 - 2
