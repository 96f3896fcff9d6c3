"""Rules of RLlib's options that all algorithms with a replay buffer share."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON
from rltrainer.rllib_compat.policy_gradient import clip_norm
from rltrainer.rllib_compat.rules import Computed, OptionValues, Rule, ignore, ignore_all, keep, reject, rename

SAMPLING_OPTIONS = ("rollout_fragment_length", "num_workers", "num_envs_per_worker", "training_intensity")
APEX_TRAINING_INTENSITY = 16
"""Transitions that Ape-X replays for each one sampled, without training_intensity; RLlib replays as fast as it can."""


def updates_per_step(v: OptionValues) -> float:
    """Return gradient steps per environment step: one per fragment of each worker, or by training_intensity."""
    if v["training_intensity"]:
        return float(v["training_intensity"]) / int(v["train_batch_size"])
    if v.over.get("updates_per_step") is not None:
        return float(v.over["updates_per_step"])
    return 1 / (int(v["rollout_fragment_length"]) * v.num_envs * v.num_workers)


def sharded_updates_per_step(v: OptionValues) -> float:
    """Return gradient steps per environment step of Ape-X, which learns in parallel to its workers."""
    return float(v["training_intensity"] or APEX_TRAINING_INTENSITY) / int(v["train_batch_size"])


def target_update_interval(v: OptionValues) -> int:
    """Return gradient steps between updates of the target network, from environment steps."""
    return max(1, round(float(v["target_network_update_freq"] or 0) * updates_per_step(v)))


def sharded_target_update_interval(v: OptionValues) -> int:
    """Return gradient steps between updates of Ape-X's target network, from transitions learned from."""
    return max(1, round(float(v["target_network_update_freq"] or 0) / int(v["train_batch_size"])))


def prioritized(v: OptionValues) -> bool:
    """Whether replay is prioritized: by prioritized_replay, or else by the buffer's type."""
    buffer_type = v["replay_buffer_config.type"]
    if buffer_type is None or v.has("prioritized_replay"):
        return bool(v["prioritized_replay"])
    return "Prioritized" in str(buffer_type)


def beta_schedule(v: OptionValues) -> list[list[float]] | None:
    """Return the schedule of beta, the exponent of the importance weights, None where it is constant."""
    first, last = v["prioritized_replay_beta"], v["final_prioritized_replay_beta"]
    if last is None or last == first:
        return None
    duration = v["prioritized_replay_beta_annealing_timesteps"]
    if v.has("beta_annealing_fraction"):
        duration = round(v["schedule_max_timesteps"] * v["beta_annealing_fraction"])
    return [[0, first], [duration, last]]


def n_step_fragment(v: OptionValues) -> int:
    """Return the fragment that "auto" means: as many steps as a return is made of."""
    return int(v["n_step"] or 1)


def integer(value: Any) -> int:
    """Return a count, which a file may write as 1e6."""
    return int(float(value))


REPLAY: dict[str, Rule] = {
    **COMMON,
    "rollout_fragment_length": keep(),
    "train_batch_size": rename("batch_size"),
    "buffer_size": keep(convert=integer),
    "learning_starts": keep(convert=integer),
    "n_step": keep(),
    "tau": keep(),
    "prioritized_replay_alpha": rename("priority_alpha"),
    "prioritized_replay_beta": rename("priority_beta"),
    "prioritized_replay_eps": rename("priority_epsilon"),
    **ignore_all(
        "transitions are replayed, batch_size of them at a time",
        *("replay_buffer_config.storage_unit", "replay_buffer_config.replay_mode"),
        *("replay_buffer_config.replay_burn_in", "replay_buffer_config.replay_zero_init_states"),
        "replay_buffer_config.replay_batch_size",
    ),
    "replay_buffer_config.replay_buffer_shards_colocated_with_driver": ignore("Ray finds the place of a shard"),
    "replay_sequence_length": reject("single steps are replayed: R2D2 is not there", 1),
    "before_learn_on_batch": reject("there is none: write an algorithm of your own (docs/new-algorithm.md)"),
    "adam_epsilon": rename("adam_eps"),
    "max_sample_requests_in_flight_per_worker": ignore("the algorithm's strategy says who waits for whom"),
    "rmsprop": ignore("the optimizer is Adam", False),
    "apex_optimizer": reject("run APEX", False),
    "min_train_to_sample_ratio": reject("training_intensity says how often a transition is learned from"),
    "exploration_config.scale_timesteps": ignore("noise stays as it begins"),
    "exploration_config.final_scale": ignore("noise stays as it begins", 1.0),
    "exploration_config.random_timesteps": ignore("actions are random until learning_starts"),
}
UPDATE_INTERVALS = (
    Computed(
        "updates_per_step",
        SAMPLING_OPTIONS,
        updates_per_step,
        "one for each fragment of each worker",
        deciding=("training_intensity",),
    ),
    Computed(
        "target_update_freq",
        ("target_network_update_freq",),
        target_update_interval,
        "it counts gradient steps here, and environment steps there",
    ),
)
SHARDED_UPDATE_INTERVALS = (
    Computed(
        "updates_per_step",
        ("training_intensity", "train_batch_size"),
        sharded_updates_per_step,
        "replayed transitions for each sampled one, over the batch",
        deciding=("training_intensity",),
    ),
    Computed(
        "target_update_freq",
        ("target_network_update_freq",),
        sharded_target_update_interval,
        "it counts gradient steps here, and transitions learned from there",
    ),
)
PRIORITIES = (
    Computed("prioritized", ("prioritized_replay", "replay_buffer_config.type"), prioritized),
    Computed(
        "priority_beta_schedule",
        (
            *("final_prioritized_replay_beta", "prioritized_replay_beta_annealing_timesteps"),
            *("beta_annealing_fraction", "schedule_max_timesteps"),
        ),
        beta_schedule,
    ),
    Computed("grad_clip", ("grad_clip",), clip_norm),
)
SHARDED_RULES: dict[str, Rule] = {
    "num_replay_buffer_shards": rename("replay_shards"),
    **ignore_all(
        "a worker gets new weights with each request",
        *("optimizer.max_weight_sync_delay", "max_weight_sync_delay", "optimizer.debug"),
    ),
    "per_worker_exploration": ignore("every environment has an epsilon of its own: epsilon_base", True, -1),
    **ignore_all(
        "Ray says when an answer is there",
        *("timeout_s_sampler_manager", "timeout_s_replay_manager", "max_requests_in_flight_per_replay_worker"),
    ),
    "replay_buffer_config.no_local_replay_buffer": ignore("shards are Ray actors"),
}
REPLAY_DEFAULTS = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "n_step": 1,
    "buffer_size": 50_000,
    "prioritized_replay": True,
    "prioritized_replay_beta": 0.4,
    "prioritized_replay_beta_annealing_timesteps": 20_000,
    "schedule_max_timesteps": 100_000,
    "timesteps_per_iteration": 1000,
}
SHARDED_DEFAULTS = {
    "n_step": 3,
    "buffer_size": 2_000_000,
    "learning_starts": 50_000,
    "train_batch_size": 512,
    "rollout_fragment_length": 50,
    "target_network_update_freq": 500_000,
    "timesteps_per_iteration": 25_000,
}
