"""The cost and result of searches: each scheduler and searcher over the same trials, beside the default options.

`python -m benchmarks.search` prints a table; `--only ASHA` runs one of them beside FIFO.
"""

import argparse
import tempfile
from typing import Any

from rltrainer import tune
from rltrainer.api.base import API_VERSION
from rltrainer.api.documents import Experiment
from rltrainer.runs import train

TRIALS = 16
ITERATIONS = 60
"""Iterations of a trial that is not stopped early: 61,440 steps of PPO's default."""
SPACE: dict[str, Any] = {
    "lr": {"loguniform": [0.00001, 0.01]},
    "gamma": {"uniform": [0.9, 0.999]},
    "entropy_coeff": {"loguniform": [0.0001, 0.1]},
}
EARLY = {"timeAttr": "training_iteration"}
SEARCHES: dict[str, dict[str, Any]] = {
    "FIFO": {},
    "ASHA": {"scheduler": {"name": "AsyncHyperBand", **EARLY, "maxT": ITERATIONS, "gracePeriod": 6}},
    "HyperBand": {"scheduler": {"name": "HyperBand", **EARLY, "maxT": ITERATIONS}},
    "MedianStopping": {"scheduler": {"name": "MedianStopping", **EARLY, "gracePeriod": 6}},
    "HyperOpt": {"search": {"name": "HyperOpt", "randomTrials": 6}, "maxConcurrentTrials": 2},
    "Optuna": {"search": {"name": "Optuna", "randomTrials": 6}, "maxConcurrentTrials": 2},
    "PBT": {"scheduler": {"name": "PBT", **EARLY, "perturbationInterval": 10}, "maxConcurrentTrials": TRIALS},
}


def document(name: str, search: dict[str, Any] | None) -> Experiment:
    """PPO on CartPole with a learning rate that is far too small, searched over or not."""
    spec: dict[str, Any] = {
        "run": "PPO",
        "env": "CartPole-v1",
        "config": {"seed": 1, "lr": 0.00003},
        "stop": {"training_iteration": ITERATIONS},
        "checkpoint": {"frequency": 20},
    }
    if search is not None:
        spec["tune"] = {"numSamples": TRIALS, "space": SPACE, **search}
    return Experiment.parse(
        {"apiVersion": API_VERSION, "kind": "RLExperiment", "metadata": {"name": name.lower()}, "spec": spec}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SEARCHES), help="these, beside FIFO")
    chosen = ["FIFO", *(parser.parse_args().only or [name for name in SEARCHES if name != "FIFO"])]
    with tempfile.TemporaryDirectory() as folder:
        default = train.run(document("default", None), folder)
        lines = [f"without a search: {default.row['episode_reward_mean']:.1f}"]
        fifo_steps = 0
        for name in chosen:
            search = tune.run(document(name, SEARCHES[name]), folder)
            steps = sum(entry.timesteps_total for entry in search.journal.trials)
            fifo_steps = fifo_steps or steps
            reward = search.best.reward if search.best else None
            lines.append(f"{name:15} best {reward:6.1f}  {steps:9,} steps  {steps / fifo_steps:4.0%} of FIFO's")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
