"""RLlib as a contender, in an environment of its own: it pins another Gymnasium than the other peers.

python -m benchmarks.speed.rllib WORK
"""

import importlib
import logging
import math
import sys
from typing import Any

from benchmarks.speed.meter import Meter, parse_work

STEPS = "num_env_steps_sampled_lifetime"


def training(run: str, o: dict[str, Any]) -> dict[str, Any]:
    """`o`, options by our names, as RLlib's algorithm `run` takes them."""
    steps = o["rollout_fragment_length"] * o["num_envs_per_worker"]
    common = {"lr": o["lr"], "gamma": o["gamma"], "grad_clip": o["grad_clip"] or None, "grad_clip_by": "global_norm"}
    match run:
        case "PPO":
            return {
                **common,
                "train_batch_size_per_learner": steps,
                "minibatch_size": o["minibatch_size"],
                "num_epochs": o["epochs"],
                "lambda_": o["lambda"],
                "clip_param": o["clip"],
                "vf_loss_coeff": o["vf_coeff"],
                "entropy_coeff": o["entropy_coeff"],
                "use_kl_loss": False,
            }
        case "IMPALA" | "APPO":
            return {
                **common,
                "train_batch_size_per_learner": o["train_batch_size"],
                "vf_loss_coeff": o["vf_coeff"],
                "entropy_coeff": o["entropy_coeff"],
            }
        case "DQN" | "SAC":
            return {**common, **replayed(run, o, steps)}
    raise SystemExit(f"RLlib has no {run}")


def replayed(run: str, o: dict[str, Any], steps: int) -> dict[str, Any]:
    """What the algorithms with a replay buffer have in common. Its intensity: steps learned for each one sampled."""
    ratio = o["batch_size"] * o["updates_per_step"]
    own: dict[str, Any] = {"lr": None, "actor_lr": o["lr"], "critic_lr": o["lr"], "alpha_lr": o["lr"]}
    if run == "DQN":
        own = {"double_q": o["double_q"], "dueling": o["dueling"], "num_atoms": 1, "noisy": False}
    return {
        "train_batch_size_per_learner": o["batch_size"],
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": o["buffer_size"]},
        "num_steps_sampled_before_learning_starts": o["learning_starts"],
        "training_intensity": ratio,
        "tau": o["tau"],
        "target_network_update_freq": round(o["target_update_freq"] / o["updates_per_step"]),
        **own,
    }


def environment(work: dict[str, Any]) -> str:
    """The name that RLlib knows the environment by; Atari games are wrapped as RLlib wraps them."""
    if not work["env"].startswith("ALE/"):
        return str(work["env"])
    import gymnasium  # noqa: PLC0415 - of the peers' environment
    from ray.tune.registry import register_env  # noqa: PLC0415

    importlib.import_module("ale_py")
    wrap = importlib.import_module("ray.rllib.env.wrappers.atari_wrappers").wrap_atari_for_new_api_stack

    def make(config: dict[str, Any]) -> Any:
        return wrap(gymnasium.make(work["env"], frameskip=1, render_mode="rgb_array"), dim=84, framestack=4)

    register_env("wrapped", make)
    return "wrapped"


def algorithm(work: dict[str, Any]) -> Any:
    o, run = work["options"], work["run"]
    algorithms = importlib.import_module("ray.rllib.algorithms")
    networks = importlib.import_module("ray.rllib.core.rl_module.default_model_config").DefaultModelConfig
    config = getattr(algorithms, f"{run}Config")()
    network: dict[str, Any] = {"vf_share_layers": o.get("vf_share_layers", False)}
    if work["env"].startswith("ALE/"):
        network = {
            "conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]],
            "conv_activation": "relu",
            "head_fcnet_hiddens": [512],
            "vf_share_layers": True,
        }
    else:
        network |= {"fcnet_hiddens": o["hiddens"], "fcnet_activation": o["activation"]}
    config = (
        config.environment(environment(work))
        .env_runners(
            num_env_runners=o["num_workers"],
            num_envs_per_env_runner=o["num_envs_per_worker"],
            rollout_fragment_length=o["rollout_fragment_length"],
        )
        .learners(num_learners=0)
        .training(**training(run, o))
        .rl_module(model_config=networks(**network))
        .reporting(
            min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0, min_train_timesteps_per_iteration=0
        )
        .debugging(log_level="ERROR", seed=0)
    )
    return config.build_algo()


def reach(running: Any, reward: float) -> None:
    """Train until the mean return of the last 100 episodes is `reward`, then end the process."""
    while running.train()["env_runners"].get("episode_return_mean", -math.inf) < reward:
        pass
    running.stop()
    sys.exit(0)


def main(work: dict[str, Any]) -> None:
    import ray  # noqa: PLC0415 - seconds; the peers' own

    logging.disable(logging.WARNING)
    ray.init(
        address="local",
        num_cpus=work["options"]["num_workers"] + 2,
        include_dashboard=False,
        logging_level=logging.ERROR,
    )
    running, seen = algorithm(work), 0
    if "reward" in work:
        reach(running, work["reward"])
    meter = Meter(work)
    while True:
        steps = int(running.train()["env_runners"].get(STEPS, seen))
        meter.tick(steps - seen)
        seen = steps


if __name__ == "__main__":
    main(parse_work())
