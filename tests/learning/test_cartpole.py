"""The reference reward on a real environment: CartPole-v1, 475 over the last 100 episodes (rl-zoo3)."""

from pathlib import Path

import pytest

from rltrainer import train
from rltrainer.spec import Experiment
from tests.unit.trainer.helpers import experiment

EXAMPLE = Path(__file__).parents[2] / "examples" / "cartpole-ppo.yaml"


@pytest.mark.parametrize("seed", range(5))
def test_the_example_is_solved_within_100k_steps(tmp_path: Path, seed: int) -> None:
    example = Experiment.from_yaml(EXAMPLE)
    spec = example.spec.model_copy(update={"config": {**example.spec.config, "seed": seed}})
    result = train.run(example.model_copy(update={"spec": spec}), tmp_path)
    assert result.stopped_by == "episode_reward_mean >= 475"
    assert result.row["timesteps_total"] <= 100_000


def test_a2c_solves_cartpole_within_500k_steps(tmp_path: Path) -> None:
    stop = {"episode_reward_mean": 475, "timesteps_total": 500_000}
    result = train.run(experiment(run="A2C", config={"seed": 0}, stop=stop), tmp_path)
    assert result.stopped_by == "episode_reward_mean >= 475"
