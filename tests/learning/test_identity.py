"""Tasks whose right answers are known: solved in seconds, or something is wrong."""

from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.options import OPTIONS
from rltrainer.runs import train
from tests.unit.trainer.helpers import TASKS, TOYS, experiment

SMALL = {"seed": 0, "num_envs_per_worker": 8, "hiddens": [32], "gamma": 0.0}
PPO = {**SMALL, "rollout_fragment_length": 32, "lr": 0.005, "epochs": 4, "minibatch_size": 64}
PG = {**SMALL, "rollout_fragment_length": 32, "lr": 0.02}
A2C = {**SMALL, "rollout_fragment_length": 8, "lr": 0.01}
A3C = {**A2C, "timesteps_per_iteration": 500}
IMPALA = {**A3C, "train_batch_size": 64, "entropy_coeff": 0.0}
APPO = {**IMPALA, "train_batch_size": 256, "lr": 0.005, "epochs": 4, "minibatch_size": 64, "target_update_freq": 8}

REPLAY = {**SMALL, "learning_starts": 200, "buffer_size": 3000, "timesteps_per_iteration": 500}
APEX_DQN = {**REPLAY, "lr": 0.005, "batch_size": 32, "target_update_freq": 50, "epsilon_base": 0.1}
DQN = {**REPLAY, "lr": 0.005, "batch_size": 32, "target_update_freq": 50, "epsilon_schedule": [[0, 1.0], [2000, 0.0]]}
RAINBOW = {**{name: DQN[name] for name in DQN if name != "epsilon_schedule"}, "num_atoms": 11, "v_min": -1, "v_max": 2}
IMAGE_DQN = {**DQN, "lr": 0.001, "updates_per_step": 0.05, "epsilon_schedule": [[0, 1.0], [500, 0.0]]}
CONTINUOUS = {**REPLAY, "lr": 0.003, "batch_size": 64, "updates_per_step": 0.25}
SAC = {**CONTINUOUS, "initial_alpha": 0.1, "target_entropy_ratio": 0.1}

MEMORY = {**SMALL, "num_envs_per_worker": 16, "hiddens": [16], "gamma": 0.9, "lr": 0.01, "rollout_fragment_length": 16}
LSTM, GRU = {"recurrent": "lstm", "recurrent_size": 16}, {"recurrent": "gru", "recurrent_size": 16}
PPO_MEMORY = {**MEMORY, "rollout_fragment_length": 32, "epochs": 4, "minibatch_size": 128}
IMPALA_MEMORY = {**MEMORY, "train_batch_size": 256}
APPO_MEMORY = {**MEMORY, "train_batch_size": 512, "epochs": 4, "minibatch_size": 128, "target_update_freq": 8}

NUMBERS = {
    "PG": PG,
    "A2C": A2C,
    "A3C": A3C,
    "PPO": PPO,
    "IMPALA": IMPALA,
    "APPO": APPO,
    "DQN": DQN,
    "ParametricDQN": DQN,
    "QRDQN": {**DQN, "num_quantiles": 8},
    "Rainbow": RAINBOW,
    "ApexDQN": APEX_DQN,
    "SAC": SAC,
}
"""Options of each algorithm that can name things."""
REACH = {"DDPG": CONTINUOUS, "TD3": CONTINUOUS, "ApexDDPG": CONTINUOUS, "SAC": CONTINUOUS, "A2C": A2C, "PPO": PPO}
"""Options of each algorithm that is to reach for things; what the exploration costs is not made up for."""


def solves(tmp_path: Path, run: str, env: str, config: dict[str, Any], reward: float, timesteps: int) -> None:
    stop = {"episode_reward_mean": reward, "timesteps_total": timesteps}
    given = experiment(run=run, env=env, config=config, stop=stop, checkpoint={"frequency": 0, "atEnd": False})
    result = train.run(given, tmp_path)
    assert result.stopped_by == f"episode_reward_mean >= {reward:g}", result.row


def test_no_algorithm_is_left_out() -> None:
    assert NUMBERS.keys() | REACH.keys() == OPTIONS.keys()


@pytest.mark.parametrize("run", NUMBERS)
def test_numbers_are_named(tmp_path: Path, run: str) -> None:
    solves(tmp_path, run, TASKS + "Numbers", NUMBERS[run], 9.0, 8000)


@pytest.mark.parametrize("run", REACH)
def test_numbers_are_reached(tmp_path: Path, run: str) -> None:
    limit = 100_000 if run in ("A2C", "PPO") else 8000
    solves(tmp_path, run, TASKS + "Reach", REACH[run], -2.5, limit)


@pytest.mark.parametrize(
    ("run", "env", "config", "reward", "timesteps"),
    [
        ("PPO", "IdentityMulti", PPO, 9.5, 20_000),
        ("PPO", "IdentityImage", {**PPO, "lr": 0.001}, 9.5, 6_000),
        ("PPO", "Identity", {**PPO, "normalize_rewards": True, "vf_share_layers": True, "kl_coeff": 0.2}, 9.0, 40_000),
        ("PPO", "IdentityBox", {**PPO, "normalize_observations": True, "vf_clip": 0.5, "kl_stop": 0.05}, -2.5, 80_000),
        ("PG", "IdentityMulti", PG, 9.0, 20_000),
        ("DQN", "IdentityImage", IMAGE_DQN, 9.0, 6_000),
        ("DQN", "Identity", {**DQN, "prioritized": True, "dueling": True, "normalize_observations": True}, 9.5, 6_000),
        ("TD3", "IdentityBox", {**CONTINUOUS, "prioritized": True, "n_step": 2}, -2.5, 8_000),
    ],
)
def test_identity_is_solved(
    tmp_path: Path, run: str, env: str, config: dict[str, Any], reward: float, timesteps: int
) -> None:
    solves(tmp_path, run, TOYS + env, config, reward, timesteps)


def test_actions_of_several_parts(tmp_path: Path) -> None:
    solves(tmp_path, "PPO", TASKS + "Both", PPO, 8.0, 40_000)


@pytest.mark.parametrize("run", NUMBERS)
def test_the_best_of_what_is_legal(tmp_path: Path, run: str) -> None:
    """7.5 is the most there is to have; any illegal action ends the run."""
    solves(tmp_path, run, TASKS + "Masked", NUMBERS[run], 6.9, 12_000)


@pytest.mark.parametrize("run", ["ParametricDQN", "Rainbow", "ApexDQN"])
def test_actions_are_known_by_their_descriptions(tmp_path: Path, run: str) -> None:
    solves(tmp_path, run, TASKS + "Described", NUMBERS[run], 9.0, 8000)


RECALL = {"PPO": PPO_MEMORY, "A2C": MEMORY, "A3C": MEMORY, "IMPALA": IMPALA_MEMORY, "APPO": APPO_MEMORY}


@pytest.mark.parametrize("run", RECALL)
@pytest.mark.parametrize("cell", [LSTM, GRU], ids=["lstm", "gru"])
def test_what_was_shown_is_remembered(tmp_path: Path, run: str, cell: dict[str, Any]) -> None:
    solves(tmp_path, run, TASKS + "Recall", {**RECALL[run], **cell}, 0.9, 40_000)


def test_without_memory_it_cannot_be_known(tmp_path: Path) -> None:
    given = experiment(env=TASKS + "Recall", config=PPO_MEMORY, stop={"timesteps_total": 15_000})
    assert abs(train.run(given, tmp_path).row["episode_reward_mean"]) < 0.5
