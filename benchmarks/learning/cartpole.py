"""The reward that examples/cartpole-ppo.yaml reaches, and how fast, over several seeds.

    python -m benchmarks.learning.cartpole [--file FILE] [--seeds N] [--limit STEPS]

Trains the document once per seed and prints a table: environment steps and seconds until its stop condition, the mean
return of the last 100 episodes, and steps per second. Ends with 1 if any seed needs more than the limit.
"""

import argparse
import sys
import tempfile
from time import perf_counter

from rltrainer.spec import Experiment
from rltrainer.train import Result, run


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--file", default="examples/cartpole-ppo.yaml")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--limit", type=int, default=100_000, help="environment steps (%(default)s)")
    given = arguments.parse_args()
    experiment = Experiment.from_yaml(given.file)
    good = 0
    print(f"{'seed':>4}  {'steps':>9}  {'return':>7}  {'seconds':>7}  {'steps/s':>8}  stopped by")
    for seed in range(given.seeds):
        result, seconds = trained(experiment, seed)
        steps, mean = result.row["timesteps_total"], result.row["episode_reward_mean"]
        reached = steps <= given.limit and result.stopped_by.startswith("episode_reward_mean")
        good += reached
        speed = steps / result.row["time_total_s"]
        print(f"{seed:4}  {steps:9,}  {mean:7.1f}  {seconds:7.1f}  {speed:8,.0f}  {result.stopped_by}", flush=True)
    print(f"{good} of {given.seeds} seeds reached it within {given.limit:,} steps")
    return 0 if good == given.seeds else 1


def trained(experiment: Experiment, seed: int) -> tuple[Result, float]:
    """A run of `experiment` with `seed`, and the seconds it took."""
    spec = experiment.spec.model_copy(update={"config": {**experiment.spec.config, "seed": seed}, "storage": None})
    with tempfile.TemporaryDirectory() as folder:
        begun = perf_counter()
        return run(experiment.model_copy(update={"spec": spec}), folder), perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
