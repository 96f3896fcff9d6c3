"""Stable-Baselines3 as a contender. Runs in the peers' environment, of which this project's knows nothing.

python -m benchmarks.speed.sb3 WORK
"""

import importlib
import operator
import sys
from functools import partial
from typing import Any

import torch
from stable_baselines3.common.atari_wrappers import AtariWrapper  # type: ignore[import-not-found]
from stable_baselines3.common.callbacks import (  # type: ignore[import-not-found]
    BaseCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize  # type: ignore[import-not-found]

from benchmarks.speed.meter import Meter, parse_work

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class Ticks(BaseCallback):  # type: ignore[misc]
    """Tells the meter of the steps done, whenever sampling begins."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter, self.seen = meter, 0

    def _on_rollout_start(self) -> None:
        self.meter.tick(self.num_timesteps - self.seen)
        self.seen = self.num_timesteps

    def _on_step(self) -> bool:
        return True


def environments(work: dict[str, Any]) -> Any:
    count = work["options"]["num_envs_per_worker"]
    if not work["env"].startswith("ALE/"):
        return make_vec_env(work["env"], n_envs=count, seed=0)
    importlib.import_module("ale_py")
    plain = {"frameskip": 1}
    envs = make_vec_env(
        work["env"],
        n_envs=count,
        seed=0,
        env_kwargs=plain,
        wrapper_class=AtariWrapper,
        wrapper_kwargs={"terminal_on_life_loss": False},
    )
    return VecFrameStack(envs, n_stack=4)


def on_policy(o: dict[str, Any]) -> dict[str, Any]:
    """What PPO and A2C have in common."""
    return {
        "n_steps": o["rollout_fragment_length"],
        "gae_lambda": o["lambda"],
        "vf_coef": o["vf_coeff"],
        "ent_coef": o["entropy_coeff"],
        "max_grad_norm": o["grad_clip"],
    }


def off_policy(o: dict[str, Any]) -> dict[str, Any]:
    """What the algorithms with a replay buffer have in common."""
    steps = o["rollout_fragment_length"] * o["num_envs_per_worker"]
    return {
        "batch_size": o["batch_size"],
        "buffer_size": o["buffer_size"],
        "learning_starts": o["learning_starts"],
        "train_freq": o["rollout_fragment_length"],
        "gradient_steps": max(1, round(steps * o["updates_per_step"])),
        "tau": o["tau"],
    }


def arguments(run: str, o: dict[str, Any]) -> dict[str, Any]:
    """`o`, options by our names, as SB3's algorithm `run` takes them."""
    match run:
        case "PPO":
            return {
                **on_policy(o),
                "batch_size": o["minibatch_size"],
                "n_epochs": o["epochs"],
                "clip_range": o["clip"],
                "normalize_advantage": o["normalize_advantages"],
            }
        case "A2C":
            return {**on_policy(o), "use_rms_prop": False}
        case "DQN":
            every = round(o["target_update_freq"] / o["updates_per_step"])
            fixed = {"exploration_fraction": 1e-9, "exploration_final_eps": o["epsilon_schedule"][-1][1]}
            return {
                **off_policy(o),
                **fixed,
                "target_update_interval": every,
                "max_grad_norm": o["grad_clip"],
            }
        case "SAC" | "DDPG" | "TD3":
            return off_policy(o)
    raise SystemExit(f"SB3 has no {run}")


class Reached(BaseCallback):  # type: ignore[misc]
    """Ends training once the mean return of the last 100 episodes is `reward`."""

    def __init__(self, reward: float) -> None:
        super().__init__()
        self.reward = reward

    def _on_step(self) -> bool:
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        return len(returns) < 100 or sum(returns) / len(returns) < self.reward


def reach(work: dict[str, Any]) -> None:
    """Train until the threshold, with rl-zoo3's options."""
    torch.set_num_threads(1)
    o, linear = work["options"], work["options"].get("linear", {})
    envs = make_vec_env(work["env"], n_envs=o.get("n_envs", 1), seed=work["seed"])
    if o.get("normalize"):
        envs = VecNormalize(envs)
    schedules = {name: partial(operator.mul, first) for name, first in linear.items()}  # of the share that is left
    algorithm = getattr(importlib.import_module("stable_baselines3"), work["run"])
    model = algorithm("MlpPolicy", envs, seed=work["seed"], device="cpu", **o["kwargs"], **schedules)
    callback: Any = Reached(work["reward"])
    if work["evaluated"]:
        ended = StopTrainingOnRewardThreshold(work["reward"])
        callback = EvalCallback(
            make_vec_env(work["env"], n_envs=1, seed=1_000_000),
            callback_on_new_best=ended,
            n_eval_episodes=10,
            eval_freq=work["evaluated"],
            verbose=0,
        )
    model.learn(o["total"], callback=callback)
    sys.exit(0 if model.num_timesteps < o["total"] else 1)


def main(work: dict[str, Any]) -> None:
    if "reward" in work:
        reach(work)
    torch.set_num_threads(work["threads"])
    meter, o, run = Meter(work), work["options"], work["run"]
    images = work["env"].startswith("ALE/")
    policy: dict[str, Any] = {"activation_fn": ACTIVATIONS[o["activation"]]}
    if not images:
        policy["net_arch"] = o["hiddens"]
    if images and run == "DQN":
        policy["net_arch"] = []
    module = importlib.import_module("stable_baselines3")
    model = getattr(module, run)(
        "CnnPolicy" if images else "MlpPolicy",
        environments(work),
        learning_rate=o["lr"],
        gamma=o["gamma"],
        policy_kwargs=policy,
        device="cpu",
        seed=0,
        **arguments(run, o),
    )
    model.learn(10**9, callback=Ticks(meter))


if __name__ == "__main__":
    main(parse_work())
