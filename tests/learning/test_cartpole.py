"""The reference reward on a real environment: CartPole-v1, 475 over the last 100 episodes (rl-zoo3)."""

from pathlib import Path

import pytest

from rltrainer.api.documents import Experiment
from rltrainer.runs import train

EXAMPLE = Path(__file__).parents[2] / "examples" / "cartpole-ppo.yaml"


@pytest.mark.parametrize("seed", range(5))
def test_the_example_is_solved_within_100k_steps(tmp_path: Path, seed: int) -> None:
    example = Experiment.from_yaml(EXAMPLE)
    spec = example.spec.model_copy(update={"config": {**example.spec.config, "seed": seed}})
    result = train.run(example.model_copy(update={"spec": spec}), tmp_path)
    assert result.stopped_by == "episode_reward_mean >= 475"
    assert result.row["timesteps_total"] <= 100_000
