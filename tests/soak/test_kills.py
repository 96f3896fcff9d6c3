"""kill -9 at random instants: a run that goes on each time equals one that was not killed, in rows, policy and replay.

A dozen kills by default; RLTRAINER_KILLS says how many. `make soak` makes 200, over all algorithms.
"""

import json
import multiprocessing as mp
import os
import random
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from rltrainer.api.options import OPTIONS
from rltrainer.runs import train
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TASKS, equal, experiment, small

KILLS = int(os.environ.get("RLTRAINER_KILLS", "12"))
ITERATIONS = 6
TIMES = ("time_this_iter_s", "time_total_s", "timesteps_per_second", "sample_time_s", "learn_time_s")
CONTINUOUS = ("DDPG", "TD3", "ApexDDPG", "SAC")
ASYNCHRONOUS = ("A3C", "IMPALA", "APPO", "ApexDQN", "ApexDDPG")
"""With workers their order is that of the machine."""
RUNS = ["PPO", "DQN", "SAC", "IMPALA"] if len(OPTIONS) > KILLS else sorted(OPTIONS)
WITH_WORKERS = [run for run in RUNS if run not in ASYNCHRONOUS] if KILLS > 100 else []
CASES = [(run, 0) for run in RUNS] + [(run, 2) for run in WITH_WORKERS]


def document(run: str, workers: int) -> Any:
    env = "Pendulum-v1" if run in CONTINUOUS else TASKS + "Described" if run == "ParametricDQN" else "CartPole-v1"
    config = small(run, num_workers=workers, timesteps_per_iteration=100)
    stop, checkpoint = {"training_iteration": ITERATIONS}, {"frequency": 1, "keep": 2}
    return experiment(run=run, env=env, config=config, stop=stop, checkpoint=checkpoint)


def trained(run: str, workers: int, folder: Path) -> None:
    """Train in a process of its own, which is forked from one that has the imports behind it."""
    torch.set_num_threads(1)
    train.run(document(run, workers), folder)


def started(run: str, workers: int, folder: Path) -> Any:
    process = CONTEXT.Process(target=trained, args=(run, workers, folder))
    process.start()
    return process


CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rltrainer.runs.train", "tests.soak.test_kills"])


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "test" / "result.json").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def newest(folder: Path) -> dict[str, Any]:
    root = folder / "test" / "checkpoints"
    return ckpt.read(root / ckpt.manifests_in(root)[-1].name)[1]


def cut(run: str, workers: int, folder: Path, kills: int, seconds: float, rng: random.Random) -> int:
    """Train to the end, with up to so many kills at random instants within `seconds`; return how many there were."""
    done = 0
    while True:
        process = started(run, workers, folder)
        if done < kills:
            process.join(rng.uniform(0, seconds))
        else:
            process.join()
        if process.exitcode is not None:
            assert process.exitcode == 0
            return done
        process.kill()
        process.join()
        done += 1


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("run", "workers"), CASES)
def test_a_killed_run_equals_one_that_was_not(tmp_path: Path, run: str, workers: int) -> None:
    warm = CONTEXT.Process(target=int)  # the imports of the process that forks the others are not to be timed
    warm.start()
    warm.join()
    begun = time.monotonic()
    whole = started(run, workers, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    kills = -(-KILLS // len(CASES))
    seconds = time.monotonic() - begun
    rng = random.Random(f"{run} {workers}")  # noqa: S311 - which instants does not matter
    folders = (tmp_path / f"cut{attempt}" for attempt in count())
    folder = next(each for each in folders if cut(run, workers, each, kills, seconds, rng))  # else it was too fast
    expected, found = newest(tmp_path / "whole"), newest(folder)
    assert rows(folder) == rows(tmp_path / "whole")
    for part in ("policy", "learner", "replay", "workers", "strategy"):
        assert equal(expected[part], found[part]), part
