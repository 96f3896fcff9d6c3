"""A run that was saved and restored in the middle equals one that was not, bit by bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rltrainer.api.options import OPTIONS
from rltrainer.errors import RunError
from rltrainer.runs import train
from rltrainer.runs.folder import MARK
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TASKS, TOYS, equal, experiment, quick, small

EVERYTHING = {
    "normalize_observations": True,
    "normalize_rewards": True,
    "kl_coeff": 0.2,
    "vf_clip": 1.0,
    "lr_schedule": [[0, 0.001], [500, 0.0001]],
    "entropy_coeff_schedule": [[0, 0.01], [500, 0.0]],
}


def final(tmp_path: Path, name: str, iterations: int, **spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last row and the last checkpoint's state of a run of so many iterations."""
    given = experiment(stop={"training_iteration": iterations}, checkpoint={"frequency": 0}, **spec)
    result = train.run(given, tmp_path / name)
    assert result.checkpoint is not None
    return result.row, ckpt.read(result.checkpoint)[1]


def interrupted(tmp_path: Path, **spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `final` of 6 iterations, with the process ended and begun again after 3."""
    final(tmp_path, "parts", 3, **spec)
    mark = tmp_path / "parts" / "test" / MARK
    mark.write_text(json.dumps({"uid": json.loads(mark.read_text())["uid"]}))  # its end was not reached
    return final(tmp_path, "parts", 6, **spec)


RECURRENT = {"recurrent": "lstm", "recurrent_size": 8, "minibatch_size": 16}
EXTENSIONS = {"dueling": True, "noisy": True, "prioritized": True, "num_atoms": 11, "n_step": 3, "tau": 0.5}
CORRELATED = {"exploration_noise": "ornstein-uhlenbeck", "prioritized": True, "n_step": 2}
RESTORED = [
    ("PPO", "CartPole-v1", quick(**EVERYTHING)),
    ("PPO", "CartPole-v1", quick(**EVERYTHING, **{**RECURRENT, "recurrent": "gru"})),
    ("PPO", "Pendulum-v1", quick(**EVERYTHING)),
    ("PPO", "Acrobot-v1", quick()),
    ("PPO", "MountainCar-v0", quick()),
    ("PPO", "MountainCarContinuous-v0", quick()),
    ("PPO", TASKS + "Both", quick()),
    ("PPO", TASKS + "Recall", quick(**RECURRENT)),
    ("PG", "CartPole-v1", small("PG", normalize_rewards=True)),
    ("A2C", "CartPole-v1", small("A2C")),
    ("A2C", TASKS + "Recall", small("A2C", recurrent="gru", recurrent_size=8)),
    ("DQN", "CartPole-v1", small("DQN", normalize_observations=True)),
    ("DQN", "CartPole-v1", small("DQN", **EXTENSIONS)),
    ("Rainbow", "Acrobot-v1", small("Rainbow", priority_beta_schedule=[[0, 0.4], [200, 1.0]])),
    ("QRDQN", "CartPole-v1", small("QRDQN", num_quantiles=5, noisy=True)),
    ("ParametricDQN", TASKS + "Described", small("ParametricDQN")),
    ("DDPG", "Pendulum-v1", small("DDPG", **CORRELATED)),
    ("TD3", "Pendulum-v1", small("TD3", target_update_freq=2, timesteps_per_iteration=50)),
    ("SAC", "Pendulum-v1", small("SAC", normalize_observations=True)),
    ("SAC", TASKS + "Masked", small("SAC", prioritized=True)),
    ("A3C", "CartPole-v1", small("A3C")),
    ("IMPALA", "CartPole-v1", small("IMPALA", train_batch_size=50, normalize_rewards=True)),
    ("APPO", "CartPole-v1", small("APPO")),
    ("ApexDQN", "CartPole-v1", small("ApexDQN", updates_per_step=0.11, replay_shards=1, normalize_observations=True)),
    ("ApexDDPG", "Pendulum-v1", small("ApexDDPG")),
]


@pytest.mark.parametrize(("run", "env", "config"), RESTORED, ids=lambda each: each if isinstance(each, str) else "")
def test_a_restored_run_equals_an_uninterrupted_one(tmp_path: Path, run: str, env: str, config: dict[str, Any]) -> None:
    spec = {"run": run, "env": env, "config": config}
    row, straight = final(tmp_path, "straight", 6, **spec)
    again, parts = interrupted(tmp_path, **spec)
    assert again["info"] == row["info"]
    assert again["episode_reward_mean"] == row["episode_reward_mean"]
    assert straight["workers"]["0"]["envs"] is not None
    for part in ("policy", "learner", "replay", "workers", "strategy"):
        assert equal(straight[part], parts[part]), part
    ignored = ("time_total_s",)
    progress = [{k: v for k, v in tree["run"]["progress"].items() if k not in ignored} for tree in (straight, parts)]
    assert progress[0] == progress[1]
    if straight["replay"]:
        written = straight["replay"]["0"].get("buffer", straight["replay"]["0"])["streams"][0]
        assert row["timesteps_total"] > config["buffer_size"] >= written["written"] - 1, "the ring has come round"


def test_each_row_is_written_once(tmp_path: Path) -> None:
    interrupted(tmp_path, config=quick())
    rows = (tmp_path / "parts" / "test" / "result.json").read_text().splitlines()
    assert [json.loads(row)["training_iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_environments_that_cannot_be_restored_begin_new_episodes_the_same_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"env": "tests.unit.trainer.test_env_state:Counter", "config": quick()}
    first = interrupted(tmp_path / "a", **spec)[1]
    assert "worker 0 begins new episodes: environment 0: its episode" in caplog.text
    second = interrupted(tmp_path / "b", **spec)[1]
    assert equal(first["policy"], second["policy"])


def test_an_environment_that_saves_nothing_lives_through_its_episodes_again(tmp_path: Path) -> None:
    spec = {"env": TOYS + "Identity", "config": quick()}
    straight = final(tmp_path, "straight", 6, **spec)[1]
    assert equal(straight["policy"], interrupted(tmp_path, **spec)[1]["policy"])


def test_an_environment_of_ones_own_is_saved_by_its_own_methods(tmp_path: Path) -> None:
    spec = {"env": __name__ + ":Remembers", "config": quick()}
    straight = final(tmp_path, "straight", 6, **spec)[1]
    assert equal(straight["policy"], interrupted(tmp_path, **spec)[1]["policy"])


from tests.unit.trainer.toy_envs import Identity  # noqa: E402


class Remembers(Identity):
    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t, "shown": self.shown, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t, self.shown = state["t"], state["shown"]
        self.np_random.bit_generator.state = state["rng"]


@pytest.mark.parametrize("run", sorted(OPTIONS))
def test_two_seeded_runs_are_equal_and_two_seeds_are_not(tmp_path: Path, run: str) -> None:
    spec = {"run": run, "env": "Pendulum-v1" if run in ("DDPG", "TD3", "ApexDDPG", "SAC") else "CartPole-v1"}
    first, second = (final(tmp_path, name, 4, config=small(run), **spec)[1]["policy"] for name in ("a", "b"))
    other = final(tmp_path, "c", 4, config=small(run, seed=8), **spec)[1]["policy"]
    assert equal(first, second)
    assert not equal(first, other)


def test_a_seed_that_is_drawn_is_written_down_and_gives_the_same_run(tmp_path: Path) -> None:
    config = {key: value for key, value in quick().items() if key != "seed"}
    drawn = final(tmp_path, "drawn", 3, config=config)[1]
    seed = json.loads((tmp_path / "drawn" / "test" / "params.json").read_text())["config"]["seed"]
    assert equal(final(tmp_path, "given", 3, config={**config, "seed": seed})[1]["policy"], drawn["policy"])


def test_a_finished_run_moves_aside_and_an_unfinished_one_goes_on(tmp_path: Path) -> None:
    final(tmp_path, "runs", 2, config=quick())
    row, _ = final(tmp_path, "runs", 3, config=quick())
    assert row["training_iteration"] == 3
    assert len((tmp_path / "runs" / "test" / "result.json").read_text().splitlines()) == 3
    aside = [path for path in (tmp_path / "runs").iterdir() if path.name != "test"]
    assert len(aside) == 1
    assert len((aside[0] / "result.json").read_text().splitlines()) == 2


def test_another_algorithm_under_the_same_name_is_refused(tmp_path: Path) -> None:
    final(tmp_path, "runs", 2, config=quick())
    (tmp_path / "runs" / "test" / MARK).write_text('{"uid": "x"}')
    with pytest.raises(RunError, match="is of PPO on CartPole-v1, and the document says A2C on CartPole-v1") as caught:
        train.run(experiment(run="A2C", stop={"training_iteration": 3}), tmp_path / "runs", resume=True)
    assert caught.value.exit_code == 2


def test_resume_takes_another_environment_and_begins_its_episodes_anew(tmp_path: Path) -> None:
    final(tmp_path, "runs", 2, config=quick())
    other = experiment(config=quick(lr=1e-5), envConfig={"sutton_barto_reward": True}, stop={"training_iteration": 3})
    result = train.run(other, tmp_path / "runs", resume=True)
    assert result.row["training_iteration"] == 3
    assert "episodes begin anew" in (result.folder / "train.log").read_text()
    history = json.loads((result.folder / "params.json").read_text())["history"]
    assert [(each["iteration"], each["config"]["lr"]) for each in history] == [(0, 3e-4), (2, 1e-5)]
    assert [each["envConfig"] for each in history] == [{}, {"sutton_barto_reward": True}]


def test_changed_layers_under_the_same_name_are_refused(tmp_path: Path) -> None:
    final(tmp_path, "runs", 2, config=quick())
    (tmp_path / "runs" / "test" / MARK).write_text('{"uid": "x"}')
    with pytest.raises(RunError, match="does not fit the networks"):
        other = experiment(config=quick(hiddens=[8]), stop={"training_iteration": 3})
        train.run(other, tmp_path / "runs", resume=True)


def test_a_new_run_starts_from_a_checkpoint_of_another(tmp_path: Path) -> None:
    final(tmp_path, "old", 3, config=quick())
    origin = tmp_path / "old" / "test" / "checkpoints" / "checkpoint_000003"
    given = experiment(config=quick(lr=1e-9), stop={"training_iteration": 1})
    result = train.run(given, tmp_path / "new", restore_from=str(origin))
    assert result.checkpoint is not None
    old, new = ckpt.read(origin)[1]["policy"], ckpt.read(result.checkpoint)[1]["policy"]
    for name in old:
        torch.testing.assert_close(new[name], old[name], atol=1e-5, rtol=0)
    assert result.row["training_iteration"] == 1


def test_a_checkpoint_to_start_from_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot restore from .*nowhere") as caught:
        train.run(experiment(config=quick()), tmp_path, restore_from=str(tmp_path / "nowhere"))
    assert caught.value.reason == "CheckpointNotFound"
    assert caught.value.exit_code == 2


def test_targets_begin_where_the_adopted_networks_do(tmp_path: Path) -> None:
    config = {"seed": 0, "learning_starts": 10**6, "hiddens": [8]}
    first = train.run(experiment(run="DQN", config=config, stop={"training_iteration": 1}), tmp_path / "old")
    given = experiment(run="ParametricDQN", config=config, stop={"training_iteration": 1})
    result = train.run(given, tmp_path / "new", restore_from=str(first.checkpoint))
    assert first.checkpoint is not None
    assert result.checkpoint is not None
    old, new = ckpt.read(first.checkpoint)[1], ckpt.read(result.checkpoint)[1]
    assert equal(new["policy"], old["policy"])
    assert equal(new["learner"]["targets"]["nets"], old["policy"])
