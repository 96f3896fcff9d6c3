"""RLlib's files and the fields of their experiments as documents."""

from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OptionError
from rltrainer.cli import main
from rltrainer.rllib_compat import (
    is_rllib_document,
    translate_experiments,
    translate_file,
)
from rltrainer.rllib_compat.fields import ARGUMENTS, FIELD_NAMES, FIELDS, IN_S3
from tests.unit.trainer.rllib_experiments import config_of, spec_of


@pytest.mark.parametrize(
    ("theirs", "config", "ours", "ours_config"),
    [
        ("CartPole-v0", {}, "CartPole-v0", None),
        ("MountainCar-v0", {}, "MountainCar-v0", None),
        ("Pendulum-v0", {"env_config": {"g": 9.8}}, "Pendulum-v1", {"g": 9.8}),
        ("LunarLander-v2", {}, "LunarLander-v3", None),
        ("HalfCheetah-v2", {}, "HalfCheetah-v5", None),
        ("Humanoid-v3", {}, "Humanoid-v5", None),
        ("CartPole-v0", {"horizon": 50}, "CartPole-v0", {"max_episode_steps": 50}),
        ("my.package.Env", {"env_config": {"size": 3}}, "my.package:Env", {"size": 3}),
        ("PongNoFrameskip-v4", {}, "ALE/Pong-v5", {"repeat_action_probability": 0.0, "episodic_life": True}),
        ("Breakout-v0", {}, "ALE/Breakout-v5", {"repeat_action_probability": 0.25, "episodic_life": True}),
        (
            "ALE/Pong-v5",
            {"env_config": {"frameskip": 1, "repeat_action_probability": 0.0}, "clip_rewards": True},
            "ALE/Pong-v5",
            {"repeat_action_probability": 0.0, "episodic_life": True},
        ),
        (
            "PongDeterministic-v4",
            {"clip_rewards": False, "model": {"dim": 42}},
            "ALE/Pong-v5",
            {
                "repeat_action_probability": 0.0,
                "episodic_life": True,
                "reward_clipping": False,
                "img_height": 42,
                "img_width": 42,
            },
        ),
    ],
)
def test_environments_have_todays_names(theirs: str, config: dict[str, Any], ours: str, ours_config: Any) -> None:
    spec = spec_of("PPO", config, env=theirs)
    assert spec["env"] == ours
    assert spec.get("envConfig") == ours_config


def test_images_go_through_convolutions_alone() -> None:
    assert config_of("PPO", {}, env="PongNoFrameskip-v4")["hiddens"] == []
    assert config_of("DQN", {"hiddens": [512]}, env="PongNoFrameskip-v4")["hiddens"] == [512]


@pytest.mark.parametrize(
    ("env", "config", "message"),
    [
        ("ray.rllib.examples.env.repeat_after_me_env.RepeatAfterMeEnv", {}, "it.env: ray.rllib.examples"),
        ("Pong-ramNoFrameskip-v4", {}, "it.env: Pong-ramNoFrameskip-v4 shows the console's memory"),
        ("my.module:Env", {"horizon": 5}, "it.config.horizon: end episodes in the environment"),
    ],
)
def test_an_untranslatable_environment_is_an_error(env: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        spec_of("PPO", config, env=env)
    assert message in str(caught.value)


def test_a_grid_of_environments_is_a_document_for_each() -> None:
    env = {"grid_search": ["HalfCheetah-v2", "Hopper-v2"]}
    translated = translate_experiments({"Mujoco TD3!": {"run": "TD3", "env": env}}, "it.yaml")
    assert [(each.document["metadata"]["name"], each.document["spec"]["env"]) for each in translated] == [
        ("mujoco-td3", "HalfCheetah-v5"),
        ("mujoco-td3-2", "Hopper-v5"),
    ]


def test_names_are_valid_and_unique() -> None:
    experiment = {"run": "PG", "env": "CartPole-v0"}
    content = {"A_B": experiment, "a b": experiment, "1st": experiment, "x" * 50: experiment, "x" * 60: experiment}
    names = [each.document["metadata"]["name"] for each in translate_experiments(content, "it.yaml")]
    assert names == ["a-b", "a-b-2", "run-1st", "x" * 40, "x" * 38 + "-2"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            {"episode_reward_mean": 150, "timesteps_total": 1000, "training_iteration": 5, "time_total_s": 60},
            {"episode_reward_mean": 150, "timesteps_total": 1000, "training_iteration": 5, "time_total_s": 60},
        ),
        (
            {"sampler_results/episode_reward_mean": 1, "episodes_total": 3},
            {"episode_reward_mean": 1, "episodes_total": 3},
        ),
        (
            {"env_runners/episode_return_mean": 1, "num_env_steps_sampled_lifetime": 9},
            {"episode_reward_mean": 1, "timesteps_total": 9},
        ),
    ],
)
def test_stop_conditions_under_all_their_names(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert spec_of("PPO", {}, stop=theirs)["stop"] == ours


def test_evaluation() -> None:
    config = {"evaluation_interval": 5, "evaluation_num_episodes": 20, "evaluation_config": {"explore": True}}
    spec = spec_of("PPO", config, stop={"evaluation/episode_reward_mean": 1})
    assert spec["evaluation"] == {"interval": 5, "episodes": 20, "deterministic": False}
    assert spec["stop"] == {"evaluation/episode_reward_mean": 1}
    assert spec_of("PPO", {"evaluation_interval": 3, "evaluation_duration": "auto"})["evaluation"] == {
        "interval": 3,
        "episodes": 10,
        "deterministic": True,
    }
    assert "evaluation" not in spec_of("PPO", {"evaluation_interval": None})


def test_a_mean_of_fewer_episodes_is_one_of_evaluations() -> None:
    stop = {"episode_reward_mean": -150}
    spec = spec_of("SAC", {"metrics_smoothing_episodes": 5}, env="Pendulum-v1", stop=stop)
    assert spec["stop"] == {"evaluation/episode_reward_mean": -150}
    assert spec["evaluation"] == {"interval": 1, "episodes": 5, "deterministic": False}
    assert "evaluation" not in spec_of("SAC", {"metrics_smoothing_episodes": 100}, stop=stop)


def test_the_stop_reward_of_apex_is_one_of_greedy_evaluations() -> None:
    spec = spec_of("APEX", {}, stop={"episode_reward_mean": 150})
    assert spec["stop"] == {"evaluation/episode_reward_mean": 150}
    assert spec["evaluation"] == {"interval": 1, "episodes": 20, "deterministic": True}


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({"checkpoint_freq": 5, "checkpoint_at_end": True}, {"checkpoint": {"frequency": 5, "atEnd": True}}),
        ({"keep_checkpoints_num": None}, {"checkpoint": {"keep": 0}}),
        (
            {"keep_checkpoints_num": 2, "checkpoint_score_attr": "min-episode_len_mean"},
            {"checkpoint": {"keep": 2, "scoreAttribute": "min-episode_len_mean"}},
        ),
        (
            {"checkpoint_config": {"checkpoint_frequency": 3, "num_to_keep": 1, "checkpoint_at_end": False}},
            {"checkpoint": {"frequency": 3, "keep": 1, "atEnd": False}},
        ),
        (
            {
                "checkpoint_config": {
                    "checkpoint_score_attribute": "env_runners/episode_return_mean",
                    "checkpoint_score_order": "min",
                }
            },
            {"checkpoint": {"scoreAttribute": "min-episode_reward_mean"}},
        ),
        ({"num_samples": 4}, {"tune": {"numSamples": 4}}),
        ({"num_samples": 1}, {}),
        ({"max_failures": 5}, {"maxFailures": 5}),
        ({"max_failures": -1}, {"maxFailures": 1000}),
        ({"num_samples": 2, "max_failures": 5}, {"tune": {"numSamples": 2, "maxFailures": 5}}),
        (
            {"resources_per_trial": {"cpu": 2, "gpu": 0}, "num_samples": 2},
            {"tune": {"numSamples": 2, "resourcesPerTrial": {"cpu": 2}}},
        ),
        ({"upload_dir": "s3://bucket/here"}, {"storage": {"uri": "s3://bucket/here"}}),
        ({"sync_config": {"upload_dir": "s3://bucket/here"}}, {"storage": {"uri": "s3://bucket/here"}}),
        ({"storage_path": "s3://bucket/here"}, {"storage": {"uri": "s3://bucket/here"}}),
        (
            {"restore": "s3://bucket/run/checkpoint_000001"},
            {"restoreFrom": {"uri": "s3://bucket/run/checkpoint_000001"}},
        ),
    ],
)
def test_fields_of_an_experiment(fields: dict[str, Any], ours: dict[str, Any]) -> None:
    spec = spec_of("PPO", {}, **fields)
    assert {name: value for name, value in spec.items() if name not in ("run", "env", "config")} == ours


def test_fields_of_the_command_line_become_arguments() -> None:
    fields = {"local_dir": "/data", "restore": "/old/checkpoint_1", "export_formats": ["model"]}
    (translated,) = translate_experiments({"it": {"run": "PPO", "env": "CartPole-v0", **fields}}, "it.yaml")
    assert translated.arguments == fields
    (translated,) = translate_experiments(
        {"it": {"run": "PPO", "env": "CartPole-v0", "storage_path": "/data"}}, "it.yaml"
    )
    assert translated.arguments == {"local_dir": "/data"}


def test_the_page_names_every_field() -> None:
    assert FIELD_NAMES.keys() == FIELDS.keys() | ARGUMENTS.keys() | IN_S3.keys() | {"run", "env", "config", "stop"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"stop": {"episode_reward_men": 1}},
            'it.stop: no condition "episode_reward_men". Did you mean "episode_reward_mean"?',
        ),
        ({"stop": {"info/x": 1}}, "Known: episode_reward_mean, episodes_total, evaluation/"),
        ({"stop": {"episode_len_mean": 1}}, 'no condition "episode_len_mean"'),
        (
            {"checkpoint_frequency": 1},
            'it: an experiment has no "checkpoint_frequency". Did you mean "checkpoint_freq"?',
        ),
        ({"checkpoint_score_attr": "info/x"}, "it.checkpoint_score_attr: checkpoints are not ranked by info/x"),
        ({"checkpoint_config": {"every": 1}}, "it.checkpoint_config: there is no every. Known: checkpoint_frequency"),
        ({"upload_dir": "gs://bucket"}, "it.upload_dir: takes an s3:// URI, got gs://bucket"),
        ({"env": None}, "it: needs run, an algorithm, and env, an environment"),
        ({"env": {"grid_search": [1]}}, "it.env: takes a name, got 1"),
        ({"config": [1]}, "it.config: takes settings by name, got [1]"),
        ({"stop": 150}, "it.stop: takes settings by name, got 150"),
    ],
)
def test_an_untranslatable_field_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        translate_experiments({"it": {"run": "PPO", "env": "CartPole-v0", **fields}}, "it.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "is_rllib"),
    [
        ({"a": {"run": "PPO", "env": "CartPole-v0"}}, True),
        ({"a": {"run": "PPO", "env": "x"}, "b": {"env": "x", "run": "PG"}}, True),
        ({"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "spec": {"run": "PPO"}}, False),
        ({"kind": "RLExperiment", "spec": {"run": "PPO", "env": "x"}}, False),
        ({"a": {"run": "PPO"}, "b": 3}, False),
        ({"spec": {"run": "PPO", "env": "CartPole-v1"}}, False),
        ({}, False),
        (None, False),
        (["a"], False),
    ],
)
def test_an_rllib_document_is_known_by_its_form(content: Any, is_rllib: bool) -> None:
    assert is_rllib_document(content) is is_rllib


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("spec: {run: PPO, env: CartPole-v1}", "apiVersion and kind missing"),
        ("metadata: {name: it}\nspec: {run: PPO, env: CartPole-v1}", "apiVersion and kind missing"),
        ("kind: RLExperiment\nspec: {run: PPO, env: CartPole-v1}", "apiVersion missing"),
        ("apiVersion: rltrainer.io/v1alpha1\nspec: {run: PPO, env: CartPole-v1}", "kind missing"),
        ("env: HalfCheetah-v3\nlearning_starts: 10000", "a file of RLlib's has its experiments by name"),
    ],
)
@pytest.mark.parametrize("command", [["train", "-f"], ["validate", "-f"]])
def test_a_document_without_its_header_is_told_so(
    text: str, missing: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as left:
        main([*command, str(path)])
    assert left.value.code == 2
    assert missing.lower() in capsys.readouterr().err.lower()
    with pytest.raises(DocumentError, match="missing: a document begins with apiVersion"):
        Experiment.from_yaml(path)


def test_atari_frames_stand_alone_where_a_file_says_so() -> None:
    for model in ({"no_framestack": True}, {"num_framestacks": 1}):
        assert spec_of("IMPALA", {"model": model}, env="PongNoFrameskip-v4")["envConfig"]["stack_num"] == 1
    assert "stack_num" not in spec_of("PPO", {"model": {"num_framestacks": "auto"}}, env="Pong-v0")["envConfig"]


def test_fields_of_older_versions() -> None:
    (translated,) = translate_experiments(
        {"it": {"alg": "PPO", "env": "CartPole-v0", "num_trials": 3, "trial_resources": {"cpu": 2}}}, "it.yaml"
    )
    spec = translated.document["spec"]
    assert (spec["run"], spec["tune"]) == ("PPO", {"numSamples": 3, "resourcesPerTrial": {"cpu": 2}})


def test_a_file_becomes_documents(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text("one: {run: PPO, env: CartPole-v0}\ntwo: {run: DQN, env: CartPole-v0}\n")
    assert [each.document["spec"]["run"] for each in translate_file(path)] == ["PPO", "DQN"]
    path.write_text("one: {run: PPO")
    with pytest.raises(DocumentError, match="is not YAML"):
        translate_file(path)
    path.write_text("one: 1")
    with pytest.raises(DocumentError, match="holds no experiments as RLlib has them"):
        translate_file(path)
    with pytest.raises(DocumentError, match="No such file"):
        translate_file(tmp_path / "none.yaml")
