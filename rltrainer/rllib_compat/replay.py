"""What the classic RLlib's algorithms with a replay buffer share."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON
from rltrainer.rllib_compat.policy_gradient import clipped
from rltrainer.rllib_compat.rows import Joint, Row, Values, all_dropped, dropped, kept, refused

FRAGMENTS = ("rollout_fragment_length", "num_workers", "num_envs_per_worker", "training_intensity")
APEX_INTENSITY = 16
"""Transitions that Ape-X replays for each one sampled, where nothing says how many; RLlib replays as fast as it can."""


def updates_per_step(v: Values) -> float:
    """Gradient steps for each environment step: one for each fragment of each worker, or as training_intensity says."""
    if v["training_intensity"]:
        return float(v["training_intensity"]) / int(v["train_batch_size"])
    if "updates_per_step" in v.over and not v.has(*FRAGMENTS):
        return float(v.over["updates_per_step"])
    return 1 / (int(v["rollout_fragment_length"]) * v.environments * v.workers)


def sharded_updates_per_step(v: Values) -> float:
    """The same of Ape-X, which learns beside its workers."""
    return float(v["training_intensity"] or APEX_INTENSITY) / int(v["train_batch_size"])


def target_updates(v: Values) -> int:
    """Gradient steps between updates of the targets, from environment steps."""
    return max(1, round(float(v["target_network_update_freq"] or 0) * updates_per_step(v)))


def sharded_target_updates(v: Values) -> int:
    """The same of Ape-X, from transitions learnt from."""
    return max(1, round(float(v["target_network_update_freq"] or 0) / int(v["train_batch_size"])))


def prioritized(v: Values) -> bool:
    """Whether replay is prioritised: as said, or as the buffer's type says."""
    kind = v["replay_buffer_config.type"]
    if kind is None or v.has("prioritized_replay"):
        return bool(v["prioritized_replay"])
    return "Prioritized" in str(kind)


def beta_schedule(v: Values) -> list[list[float]] | None:
    """The exponent of the weights over time, where it changes."""
    first, last = v["prioritized_replay_beta"], v["final_prioritized_replay_beta"]
    if last is None or last == first:
        return None
    return [[0, first], [v["prioritized_replay_beta_annealing_timesteps"], last]]


def whole(value: Any) -> int:
    """A count that may be written as 1e6."""
    return int(float(value))


REPLAY: dict[str, Row] = {
    **COMMON,
    "rollout_fragment_length": kept(),
    "train_batch_size": kept("batch_size"),
    "buffer_size": kept(value=whole),
    "learning_starts": kept(value=whole),
    "n_step": kept(),
    "tau": kept(),
    "prioritized_replay_alpha": kept("priority_alpha"),
    "prioritized_replay_beta": kept("priority_beta"),
    "prioritized_replay_eps": kept("priority_epsilon"),
    **all_dropped(
        "transitions are replayed, batch_size of them at a time",
        *("replay_buffer_config.storage_unit", "replay_buffer_config.replay_mode"),
        *("replay_buffer_config.replay_burn_in", "replay_buffer_config.replay_zero_init_states"),
        "replay_buffer_config.replay_batch_size",
    ),
    "replay_buffer_config.replay_buffer_shards_colocated_with_driver": dropped("Ray finds the place of a shard"),
    "replay_sequence_length": refused("single steps are replayed: R2D2 is not there", 1),
    "before_learn_on_batch": refused("there is none: write an algorithm of your own (docs/new-algorithm.md)"),
    "adam_epsilon": dropped("Adam's epsilon is 1e-8"),
    "exploration_config.scale_timesteps": dropped("noise stays as it begins"),
    "exploration_config.final_scale": dropped("noise stays as it begins", 1.0),
    "exploration_config.random_timesteps": dropped("actions are random until learning_starts"),
}
SAMPLED = (
    Joint("updates_per_step", FRAGMENTS, updates_per_step, "one for each fragment of each worker"),
    Joint(
        "target_update_freq",
        ("target_network_update_freq",),
        target_updates,
        "it counts gradient steps here, and environment steps there",
    ),
)
SHARDED = (
    Joint(
        "updates_per_step",
        ("training_intensity", "train_batch_size"),
        sharded_updates_per_step,
        "replayed transitions for each sampled one, over the batch",
    ),
    Joint(
        "target_update_freq",
        ("target_network_update_freq",),
        sharded_target_updates,
        "it counts gradient steps here, and transitions learnt from there",
    ),
)
PRIORITIES = (
    Joint("prioritized", ("prioritized_replay", "replay_buffer_config.type"), prioritized),
    Joint(
        "priority_beta_schedule",
        ("final_prioritized_replay_beta", "prioritized_replay_beta_annealing_timesteps"),
        beta_schedule,
    ),
    Joint("grad_clip", ("grad_clip",), clipped),
)
SHARDS: dict[str, Row] = {
    "num_replay_buffer_shards": kept("replay_shards"),
    **all_dropped("a worker gets new weights with each request", "optimizer.max_weight_sync_delay", "optimizer.debug"),
    "replay_buffer_config.no_local_replay_buffer": dropped("shards are Ray actors"),
}
REPLAY_DEFAULTS = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "n_step": 1,
    "buffer_size": 50_000,
    "prioritized_replay": True,
    "prioritized_replay_beta": 0.4,
    "prioritized_replay_beta_annealing_timesteps": 20_000,
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
