"""One seed of an algorithm of ours with nothing but its defaults.

    python -m benchmarks.defaults.ours RUN ENV STEPS SEED EPISODES STATES

Prints one JSON object: the environment steps, and the mean of EPISODES deterministic episodes after training, in states
that follow from STATES and that training never saw.
"""

import json
import sys
import tempfile
from statistics import fmean
from typing import Any

from rltrainer.api.documents import Experiment
from rltrainer.runs.rollout import evaluate
from rltrainer.runs.train import run as train


def main() -> None:
    run, env = sys.argv[1:3]
    steps, seed, episodes, states = map(int, sys.argv[3:])
    print(json.dumps(trained(run, env, steps, seed, episodes, states)))


def trained(
    run: str, env: str, steps: int, seed: int, episodes: int, states: int, **config: Any
) -> dict[str, float | int]:
    """Train with the defaults, and `config` over them; return what became of it."""
    document = {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "defaults"},
        "spec": {
            "run": run,
            "env": env,
            "config": {"seed": seed, **config},
            "stop": {"timesteps_total": steps},
            "checkpoint": {"frequency": 0, "atEnd": True},
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        result = train(Experiment.parse(document), folder)
        returns = evaluate(str(result.checkpoint), episodes, seed=states).returns
    return {"timesteps": int(result.row["timesteps_total"]), "mean": round(fmean(returns), 2)}


if __name__ == "__main__":
    main()
