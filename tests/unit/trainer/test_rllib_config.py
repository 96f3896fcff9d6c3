"""translate_config, which the command line and a checkpoint's overrides use."""

from typing import Any

import pytest

from rltrainer.api.options import OptionError
from rltrainer.rllib_compat import (
    translate_config,
)


def test_a_command_line_takes_our_names_as_ours() -> None:
    ours = {"lr": 0.01, "hiddens": [64, 64], "rollout_fragment_length": 16, "grad_clip": 3.0}
    for run in ("DQN", "A2C", "my.package:MINE"):
        assert translate_config(run, ours) == (ours, {}, [])


@pytest.mark.parametrize(
    ("run", "theirs", "over", "ours"),
    [
        ("PPO", {"num_sgd_iter": 6, "lr": 0.01}, {}, {"epochs": 6, "lr": 0.01}),
        ("PPO", {"train_batch_size": 4000}, {}, {"rollout_fragment_length": 500}),
        (
            "PPO",
            {"train_batch_size": 4000},
            {"num_workers": 5, "num_envs_per_worker": 4},
            {"rollout_fragment_length": 200},
        ),
        ("DQN", {"target_network_update_freq": 1000}, {}, {"target_update_freq": 500, "updates_per_step": 0.5}),
        ("DQN", {"target_network_update_freq": 1000}, {"updates_per_step": 0.5}, {"target_update_freq": 500}),
        ("APEX", {"optimizer": {"num_replay_buffer_shards": 2}}, {}, {"replay_shards": 2}),
    ],
)
def test_a_command_line_takes_rllibs_names_over_a_documents_options(
    run: str, theirs: dict[str, Any], over: dict[str, Any], ours: dict[str, Any]
) -> None:
    config, space, notes = translate_config(run, theirs, over)
    assert (config, space) == (ours, {})
    assert notes


@pytest.mark.parametrize(
    ("run", "config", "over", "ours"),
    [
        ("PPO", {"framework": "torch", "num_envs_per_worker": 8}, {}, {"num_envs_per_worker": 8}),
        ("PPO", {"framework": "torch", "num_workers": 3}, {}, {"num_workers": 3}),
        ("PPO", {"num_env_runners": 3}, {"num_envs_per_worker": 2}, {"num_workers": 3}),
        ("PPO", {"sample_batch_size": 64}, {}, {"rollout_fragment_length": 64}),
        ("PPO", {"use_gae": True}, {"lambda": 0.7}, {"lambda": 0.7}),
        ("PPO", {"model": {"use_lstm": True}}, {"recurrent_size": 64}, {"recurrent": "lstm"}),
        ("A2C", {"framework": "torch", "grad_clip": 8}, {}, {"grad_clip": 8}),
        ("A2C", {"framework": "torch", "rollout_fragment_length": 64}, {}, {"rollout_fragment_length": 64}),
        ("DQN", {"framework": "torch", "rollout_fragment_length": 64}, {}, {"rollout_fragment_length": 64}),
        ("DQN", {"num_env_runners": 2}, {"updates_per_step": 0.5}, {"num_workers": 2}),
        ("DQN", {"model": {"fcnet_activation": "tanh"}}, {"hiddens": [8]}, {"activation": "tanh"}),
        ("APEX", {"training_intensity": 8, "batch_size": 64}, {}, {"updates_per_step": 0.125, "batch_size": 64}),
    ],
)
def test_one_of_rllibs_names_changes_no_other_option(
    run: str, config: dict[str, Any], over: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert translate_config(run, config, over)[0] == ours


def test_a_note_says_where_rllib_means_another_value_by_a_name_of_ours() -> None:
    notes = translate_config("A2C", {"framework": "torch", "grad_clip": 8, "gamma": 0.9})[2]
    assert notes == ["grad_clip 8 has its meaning here; what RLlib means by it is 0.04"]


def test_a_search_beside_rllibs_names_keeps_our_meaning() -> None:
    config = {"framework": "torch", "num_envs_per_worker": {"grid_search": [4, 8]}}
    assert translate_config("PPO", config)[:2] == ({}, {"num_envs_per_worker": {"grid_search": [4, 8]}})


def test_options_are_validated_together_with_those_below_them() -> None:
    assert translate_config("PPO", {"num_learners": 2}, {"num_workers": 4})[0] == {"num_learners": 2}
    with pytest.raises(OptionError, match="num_learners 2 does not divide num_workers 0"):
        translate_config("PPO", {"num_learners": 2})


def test_a_command_line_can_search() -> None:
    config, space, _ = translate_config("PPO", {"clip_param": {"grid_search": [0.1, 0.2]}, "gamma": 0.9})
    assert (config, space) == ({"gamma": 0.9}, {"clip": {"grid_search": [0.1, 0.2]}})
    config, space, _ = translate_config("PPO", {"clip": {"uniform": [0.1, 0.2]}, "gamma": 0.9})
    assert (config, space) == ({"gamma": 0.9}, {"clip": {"uniform": [0.1, 0.2]}})


@pytest.mark.parametrize(
    ("run", "theirs", "message"),
    [
        ("PPO", {"env_config": {"a": 1}}, "--config.env_config: it stands elsewhere in a document, at spec.envConfig"),
        ("PPO", {"learning_rate": 1}, 'PPO has no option "learning_rate" (in --config). Did you mean "lr"?'),
        ("DQN", {"training_intensity": {"grid_search": [1, 2]}, "target_network_update_freq": 900}, "together here"),
        ("PPO", {"num_sgd_iter": 6, "epochs": 5}, "--config.epochs: num_sgd_iter decides it too: give one of them"),
        ("PPO", {"num_sgd_iter": 6, "num_epochs": 5}, "--config.num_epochs: num_sgd_iter is another name of it"),
        ("PPO", {"train_batch_size": 64, "rollout_fragment_length": 5}, "train_batch_size decides it too"),
        ("PPO", {"framework": "torch", "learning_rte": "auto"}, 'PPO has no option "learning_rte"'),
        ("PPO", {"framework": "torch", "_lr": 1}, 'PPO has no option "_lr" (in --config)'),
        ("PPO", {"num_sgd_iter": "auto"}, '--config.num_sgd_iter: takes a value, got "auto"'),
    ],
)
def test_an_untranslatable_option_of_a_command_line_is_an_error(run: str, theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        translate_config(run, theirs)
    assert message in str(caught.value)
