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
        ("DQN", {"target_network_update_freq": 1000}, {}, {"target_update_freq": 250}),
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
        ("DQN", {"num_envs_per_env_runner": {"grid_search": [1, 2]}, "rollout_fragment_length": 2}, "together here"),
    ],
)
def test_an_untranslatable_option_of_a_command_line_is_an_error(run: str, theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        translate_config(run, theirs)
    assert message in str(caught.value)
