"""Environments that pay for naming what they show: solved in seconds, or something is wrong."""

from pathlib import Path
from typing import Any

import pytest

from rltrainer import train
from tests.unit.trainer.helpers import TOYS, experiment

SMALL = {"seed": 0, "num_envs_per_worker": 8, "hiddens": [32], "gamma": 0.0}
PPO = {**SMALL, "rollout_fragment_length": 32, "lr": 0.005, "epochs": 4, "minibatch_size": 64}
A2C = {**SMALL, "rollout_fragment_length": 8, "lr": 0.01}


@pytest.mark.parametrize(
    ("run", "env", "config", "reward", "timesteps"),
    [
        ("PPO", "Identity", PPO, 9.5, 20_000),
        ("PPO", "IdentityMulti", PPO, 9.5, 20_000),
        ("PPO", "IdentityBox", {**PPO, "epochs": 10}, -2.0, 60_000),
        ("PPO", "IdentityImage", {**PPO, "lr": 0.001}, 9.5, 6_000),
        ("PPO", "Identity", {**PPO, "normalize_rewards": True, "vf_share_layers": True, "kl_coeff": 0.2}, 9.0, 40_000),
        ("PPO", "IdentityBox", {**PPO, "normalize_observations": True, "vf_clip": 0.5, "kl_stop": 0.05}, -2.5, 80_000),
        ("A2C", "Identity", A2C, 9.5, 20_000),
        ("A2C", "IdentityBox", A2C, -2.5, 80_000),
    ],
)
def test_identity_is_solved(
    tmp_path: Path, run: str, env: str, config: dict[str, Any], reward: float, timesteps: int
) -> None:
    stop = {"episode_reward_mean": reward, "timesteps_total": timesteps}
    result = train.run(experiment(run=run, env=TOYS + env, config=config, stop=stop), tmp_path)
    assert result.stopped_by == f"episode_reward_mean >= {reward:g}", result.row
