"""One seed of Stable-Baselines3 with its own defaults. Runs in the peers' environment, of which ours knows nothing.

    python -m benchmarks.defaults.sb3 RUN ENV STEPS SEED EPISODES STATES

Prints one JSON object: the environment steps, and the mean of EPISODES deterministic episodes after training, in states
that follow from STATES and that training never saw.
"""

import importlib
import json
import sys

import torch
from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
from stable_baselines3.common.evaluation import evaluate_policy  # type: ignore[import-not-found]


def main() -> None:
    run, env = sys.argv[1:3]
    steps, seed, episodes, states = map(int, sys.argv[3:])
    torch.set_num_threads(1)
    algorithm = getattr(importlib.import_module("stable_baselines3"), run)
    model = algorithm("MlpPolicy", env, seed=seed, device="cpu").learn(steps)
    mean, _ = evaluate_policy(model, make_vec_env(env, n_envs=1, seed=states), episodes, deterministic=True)
    print(json.dumps({"timesteps": model.num_timesteps, "mean": round(float(mean), 2)}))


if __name__ == "__main__":
    main()
