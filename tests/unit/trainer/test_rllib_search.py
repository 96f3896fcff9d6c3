"""RLlib's grid_search and the like as spec.tune.space, or as several documents."""

from typing import Any

import pytest

from rltrainer.api.options import OptionError
from rltrainer.rllib_compat import (
    translate_experiments,
)
from tests.unit.trainer.rllib_experiments import notes_of, spec_of


@pytest.mark.parametrize(
    ("run", "theirs", "space"),
    [
        ("PPO", {"lr": {"grid_search": [3e-4, 1e-3]}}, {"lr": {"grid_search": [3e-4, 1e-3]}}),
        ("PPO", {"vf_loss_coeff": {"grid_search": [0.5, 1.0]}}, {"vf_coeff": {"grid_search": [1.0, 2.0]}}),
        (
            "PPO",
            {"num_sgd_iter": {"grid_search": [1, 4]}, "sgd_minibatch_size": {"grid_search": [128, 256]}},
            {"epochs": {"grid_search": [1, 4]}, "minibatch_size": {"grid_search": [128, 256]}},
        ),
        (
            "PPO",
            {"train_batch_size": {"grid_search": [2000, 4000]}},
            {"rollout_fragment_length": {"grid_search": [200, 400]}},
        ),
        (
            "PPO",
            {"model": {"fcnet_hiddens": {"grid_search": [[32], [64, 64]]}}},
            {"hiddens": {"grid_search": [[32], [64, 64]]}},
        ),
        (
            "PPO",
            {"model": {"grid_search": [{"fcnet_hiddens": [8]}, {"fcnet_hiddens": [9]}]}},
            {"hiddens": {"grid_search": [[8], [9]]}},
        ),
        (
            "DQN",
            {"target_network_update_freq": {"choice": [500, 1000]}},
            {"target_update_freq": {"choice": [125, 250]}},
        ),
        ("A2C", {"grad_clip": {"grid_search": [None, 20.0]}}, {"grad_clip": {"grid_search": [0.0, 0.1]}}),
        ("PPO", {"lr": {"loguniform": [1e-5, 1e-3]}}, {"lr": {"loguniform": [1e-5, 1e-3]}}),
        ("PPO", {"vf_loss_coeff": {"quniform": [0.1, 0.5, 0.1]}}, {"vf_coeff": {"quniform": [0.2, 1.0, 0.2]}}),
        ("SAC", {"target_entropy": {"grid_search": ["auto", -1.0]}}, {"target_entropy": {"grid_search": [None, -1.0]}}),
    ],
)
def test_a_search_has_values_in_our_units(run: str, theirs: dict[str, Any], space: dict[str, Any]) -> None:
    spec = spec_of(run, theirs)
    assert spec["tune"] == {"numSamples": 1, "space": space}
    assert not space.keys() & spec["config"].keys()


def test_a_grid_that_decides_several_options_is_several_documents() -> None:
    config = {"train_batch_size": 64, "num_envs_per_worker": {"grid_search": [2, 4]}, "lr": {"grid_search": [0.1, 0.2]}}
    translated = translate_experiments({"it": {"run": "PPO", "env": "CartPole-v0", "config": config}}, "it.yaml")
    assert [each.document["metadata"]["name"] for each in translated] == ["it", "it-2"]
    configs = [each.document["spec"]["config"] for each in translated]
    assert [(each["num_envs_per_worker"], each["rollout_fragment_length"]) for each in configs] == [(2, 32), (4, 16)]
    assert all(each.document["spec"]["tune"]["space"] == {"lr": {"grid_search": [0.1, 0.2]}} for each in translated)


def test_a_grid_over_an_ignored_option_is_left_out() -> None:
    config = {"framework": {"grid_search": ["tf", "torch"]}}
    assert "tune" not in spec_of("PPO", config)
    assert "framework is not searched over: here every value of it means the same" in notes_of("PPO", config)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            {"lr": {"sample_from": "lambda spec: 1"}},
            "it.config.lr: sample_from is code; a document has values: grid_search",
        ),
        ({"lr": "tune.uniform(0, 1)"}, "it.config.lr: tune.uniform(0, 1) is code"),
        ({"lr": {"uniform": [1, 0]}}, "it.config.lr: uniform takes [low, high] with low below high"),
        ({"lr": {"grid_search": []}}, "it.config.lr.grid_search: "),
        ({"lr": {"grid_search": [0.1, "fast"]}}, "it.config.lr: "),
        (
            {"train_batch_size": {"randint": [100, 1000]}, "num_workers": 3},
            "it.config.train_batch_size: randint has no counterpart in the units",
        ),
        (
            {"num_envs_per_worker": {"choice": [2, 4]}},
            "it.config.num_envs_per_worker is num_envs_per_worker and rollout_fragment_length together here",
        ),
    ],
)
def test_an_untranslatable_search_is_an_error(theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        translate_experiments({"it": {"run": "PPO", "env": "CartPole-v0", "config": theirs}}, "it.yaml")
    assert message in str(caught.value)


def test_a_grid_in_env_config_is_searched_over() -> None:
    config = {"env_config": {"sutton_barto_reward": {"grid_search": [False, True]}, "same": 1}}
    (translated,) = translate_experiments({"it": {"run": "PPO", "env": "CartPole-v1", "config": config}}, "it.yaml")
    spec = translated.document["spec"]
    assert spec["tune"]["space"] == {"env_config.sutton_barto_reward": {"grid_search": [False, True]}}
    assert spec["envConfig"] == {"sutton_barto_reward": False, "same": 1}
