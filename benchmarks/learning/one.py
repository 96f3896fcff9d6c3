"""One seed of one reference task: trains its document, then evaluates the policy over 100 episodes.

    python -m benchmarks.learning.one NAME SEED

Prints one JSON object: environment steps, seconds of training and the CPUs it had, the mean of 100 deterministic
episodes in states that training never saw and its standard error, and the evaluations on the way.
"""

import json
import os
import sys
import tempfile
from statistics import fmean, stdev
from typing import Any

from benchmarks.learning.table import TASKS, Task
from rltrainer.runs.rollout import evaluate
from rltrainer.runs.train import run

EPISODES = 100
STATES = 1_000_000
"""Seed of the states that a policy is evaluated in; each seed's policy has its own, as 100 states may all be hard."""


def main() -> None:
    name, seed = sys.argv[1], int(sys.argv[2])
    task = next(task for task in TASKS if task.name == name)
    print(json.dumps(trained(task, seed)))


def trained(task: Task, seed: int) -> dict[str, Any]:
    """What became of one run."""
    experiment = task.experiment()
    spec = experiment.spec
    ours = {
        "config": {**spec.config, "seed": seed},
        "stop": spec.stop.model_copy(update={"timesteps_total": task.steps}),
        "checkpoint": spec.checkpoint.model_copy(update={"frequency": 0, "at_end": True}),
    }
    with tempfile.TemporaryDirectory() as folder:
        result = run(experiment.model_copy(update={"spec": spec.model_copy(update=ours)}), folder)
        rows = [json.loads(line) for line in (result.folder / "result.json").read_text().splitlines()]
        returns = evaluate(str(result.checkpoint), EPISODES, seed=STATES + seed).returns
    return {
        "timesteps": result.row["timesteps_total"],
        "seconds": round(result.row["time_total_s"], 1),
        "cpus": len(os.sched_getaffinity(0)),
        "mean": round(fmean(returns), 2),
        "stderr": round(stdev(returns) / len(returns) ** 0.5, 2),
        "curve": [
            [row["timesteps_total"], round(row["evaluation"]["episode_reward_mean"], 1)]
            for row in rows
            if "evaluation" in row
        ],
    }


if __name__ == "__main__":
    main()
