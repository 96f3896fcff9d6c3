"""The classic RLlib's files and names: what each becomes, in which units, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OPTIONS, OptionError, option_names
from rltrainer.rllib_compat import documents, is_classic, translate, translate_config
from rltrainer.rllib_compat.algorithms import CLASSIC
from rltrainer.rllib_compat.fields import ARGUMENTS, EXPERIMENT, FIELDS, IN_S3
from rltrainer.rllib_compat.tables import renewed

PAGE = Path(__file__).parents[3] / "docs" / "migrating.md"


def spec_of(run: str, config: dict[str, Any], env: str = "CartPole-v0", **fields: Any) -> dict[str, Any]:
    """The spec of an experiment, which our own schema accepts too."""
    (made,) = translate({"it": {"run": run, "env": env, "config": config, **fields}}, "it.yaml")
    Experiment.parse(made.document, where="it.yaml")
    spec: dict[str, Any] = made.document["spec"]
    return spec


def config_of(run: str, config: dict[str, Any], env: str = "CartPole-v0") -> dict[str, Any]:
    options: dict[str, Any] = spec_of(run, config, env)["config"]
    return options


def notes_of(run: str, config: dict[str, Any], env: str = "CartPole-v0", **fields: Any) -> list[str]:
    (made,) = translate({"it": {"run": run, "env": env, "config": config, **fields}}, "it.yaml")
    return made.notes


Q_LEARNING = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "lr": 5e-4,
    "grad_clip": 40.0,
    "priority_beta": 0.4,
    "dueling": True,
    "double_q": True,
    "prioritized": True,
    "hiddens": [256, 256, 256],
    "activation": "relu",
}
DQN = {
    **Q_LEARNING,
    "n_step": 1,
    "buffer_size": 50_000,
    "timesteps_per_iteration": 1000,
    "batch_size": 32,
    "rollout_fragment_length": 4,
    "learning_starts": 1000,
    "updates_per_step": 0.25,
    "target_update_freq": 125,
    "epsilon_schedule": [[0, 1.0], [10_000, 0.02]],
}
ACTOR_CRITIC = {
    "gamma": 0.99,
    "hiddens": [256, 256],
    "activation": "tanh",
    "vf_share_layers": True,
    "vf_coeff": 0.5,
    "entropy_coeff": 0.01,
}
QUEUE = {**ACTOR_CRITIC, "num_envs_per_worker": 1, "lr": 5e-4, "train_batch_size": 500, "rollout_fragment_length": 50}
CONTINUOUS = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "priority_beta": 0.4,
    "activation": "relu",
    "grad_clip": 0.0,
    "lr": 1e-3,
    "critic_lr": 1e-3,
}
DDPG = {
    **CONTINUOUS,
    "n_step": 1,
    "buffer_size": 50_000,
    "prioritized": True,
    "timesteps_per_iteration": 1000,
    "tau": 0.002,
    "batch_size": 256,
    "rollout_fragment_length": 1,
    "learning_starts": 1500,
    "updates_per_step": 1.0,
    "target_update_freq": 1,
    "hiddens": [400, 300],
    "critic_hiddens": [400, 300],
    "exploration_noise": "ornstein-uhlenbeck",
    "exploration_sigma": 0.04,
    "exploration_theta": 0.15,
    "target_noise": 0.0,
}
SHARDED = {
    "n_step": 3,
    "buffer_size": 2_000_000,
    "timesteps_per_iteration": 25_000,
    "batch_size": 512,
    "rollout_fragment_length": 50,
    "learning_starts": 50_000,
    "updates_per_step": 0.03125,
    "target_update_freq": 977,
}


@pytest.mark.parametrize(
    ("run", "ours", "options"),
    [
        (
            "PG",
            "PG",
            {
                "gamma": 0.99,
                "lr": 4e-4,
                "hiddens": [256, 256],
                "activation": "tanh",
                "num_envs_per_worker": 1,
                "rollout_fragment_length": 200,
            },
        ),
        (
            "A2C",
            "A2C",
            {
                **ACTOR_CRITIC,
                "lr": 1e-4,
                "lambda": 1.0,
                "num_envs_per_worker": 10,
                "rollout_fragment_length": 20,
                "grad_clip": 0.2,
            },
        ),
        (
            "A3C",
            "A3C",
            {
                **ACTOR_CRITIC,
                "lr": 1e-4,
                "lambda": 1.0,
                "num_envs_per_worker": 1,
                "rollout_fragment_length": 10,
                "grad_clip": 4.0,
            },
        ),
        (
            "PPO",
            "PPO",
            {
                **ACTOR_CRITIC,
                "lr": 5e-5,
                "lambda": 1.0,
                "num_envs_per_worker": 20,
                "rollout_fragment_length": 200,
                "vf_share_layers": False,
                "vf_coeff": 2.0,
                "entropy_coeff": 0.0,
                "kl_coeff": 0.2,
                "kl_target": 0.01,
                "clip": 0.3,
                "vf_clip": 10.0,
                "minibatch_size": 128,
                "epochs": 30,
                "grad_clip": 0.0,
            },
        ),
        ("IMPALA", "IMPALA", {**QUEUE, "grad_clip": 0.08}),
        (
            "APPO",
            "APPO",
            {**QUEUE, "clip": 0.4, "kl_coeff": 0.0, "epochs": 1, "minibatch_size": 500, "grad_clip": 40.0},
        ),
        ("DQN", "DQN", DQN),
        (
            "SimpleQ",
            "DQN",
            {
                **DQN,
                "hiddens": [256, 256],
                "activation": "tanh",
                "dueling": False,
                "double_q": False,
                "prioritized": False,
            },
        ),
        ("ParametricDQN", "ParametricDQN", DQN),
        (
            "Rainbow",
            "Rainbow",
            {
                **{name: value for name, value in DQN.items() if name != "epsilon_schedule"},
                "noisy": True,
                "num_atoms": 51,
                "n_step": 3,
            },
        ),
        ("APEX", "ApexDQN", {**Q_LEARNING, **SHARDED}),
        ("DDPG", "DDPG", DDPG),
        ("APEX_DDPG", "ApexDDPG", {**DDPG, **SHARDED}),
        (
            "TD3",
            "TD3",
            {
                **{name: value for name, value in DDPG.items() if name != "exploration_theta"},
                "tau": 0.005,
                "batch_size": 100,
                "buffer_size": 1_000_000,
                "prioritized": False,
                "learning_starts": 10_000,
                "exploration_noise": "gaussian",
                "exploration_sigma": 0.1,
                "target_noise": 0.2,
            },
        ),
        (
            "SAC",
            "SAC",
            {
                **CONTINUOUS,
                "n_step": 1,
                "buffer_size": 1_000_000,
                "prioritized": False,
                "timesteps_per_iteration": 100,
                "tau": 0.005,
                "batch_size": 256,
                "rollout_fragment_length": 1,
                "learning_starts": 1500,
                "updates_per_step": 1.0,
                "target_update_freq": 1,
                "hiddens": [256, 256],
                "critic_hiddens": [256, 256],
                "lr": 3e-4,
                "critic_lr": 3e-4,
                "alpha_lr": 3e-4,
                "initial_alpha": 1.0,
            },
        ),
    ],
)
def test_what_a_file_leaves_open_is_as_rllib_has_it(run: str, ours: str, options: dict[str, Any]) -> None:
    spec = spec_of(run, {})
    assert spec["run"] == ours
    assert spec["config"] == options
    (said,) = [note for note in notes_of(run, {}) if note.startswith("left open, and as RLlib has it: ")]
    assert all(f"{name} " in said for name in options)


@pytest.mark.parametrize(
    ("run", "classic", "ours"),
    [
        # what all share
        ("PPO", {"gamma": 0.9, "lr": 0.001, "seed": 7, "num_workers": 3}, {"gamma": 0.9, "lr": 0.001, "seed": 7}),
        ("PG", {"num_rollout_workers": 2}, {"num_workers": 2}),
        ("DQN", {"num_env_runners": 2, "num_envs_per_env_runner": 4}, {"num_workers": 2, "num_envs_per_worker": 4}),
        ("PPO", {"observation_filter": "MeanStdFilter"}, {"normalize_observations": True}),
        ("PPO", {"observation_filter": "NoFilter"}, {"normalize_observations": False}),
        ("PPO", {"num_gpus": 0.25}, {"num_gpus": 1}),
        ("PPO", {"num_gpus": 0}, {"num_gpus": 0}),
        ("SAC", {"remote_worker_envs": True}, {"vector_env": "subprocess"}),
        ("SAC", {"min_sample_timesteps_per_iteration": 600}, {"timesteps_per_iteration": 600}),
        ("PPO", {"lr_schedule": [[0, 1e-3], [1000, 1e-4]]}, {"lr_schedule": [[0, 1e-3], [1000, 1e-4]]}),
        ("PPO", {"lr": [[0, 1e-3], [1000, 1e-4]]}, {"lr_schedule": [[0, 1e-3], [1000, 1e-4]]}),
        ("A2C", {"entropy_coeff_schedule": [[0, 0.1], [9, 0.0]]}, {"entropy_coeff_schedule": [[0, 0.1], [9, 0.0]]}),
        # networks of the policy gradient
        (
            "PPO",
            {"model": {"fcnet_hiddens": [32], "fcnet_activation": "linear", "vf_share_layers": True}},
            {"hiddens": [32], "activation": "linear", "vf_share_layers": True},
        ),
        ("A2C", {"model": {"fcnet_activation": "swish"}}, {"activation": "silu"}),
        ("PPO", {"model": {"fcnet_hiddens": [8], "post_fcnet_hiddens": [4]}}, {"hiddens": [8, 4]}),
        ("IMPALA", {"model": {"use_lstm": True}}, {"recurrent": "lstm", "recurrent_size": 256}),
        ("PPO", {"model": {"use_lstm": True, "lstm_cell_size": 64}}, {"recurrent": "lstm", "recurrent_size": 64}),
        # a round: train_batch_size over all environments of all workers
        (
            "PPO",
            {"train_batch_size": 512, "num_envs_per_worker": 20},
            {"rollout_fragment_length": 26, "num_envs_per_worker": 20},
        ),
        (
            "PPO",
            {"train_batch_size": 65_536, "num_workers": 16, "num_envs_per_worker": 16},
            {"rollout_fragment_length": 256},
        ),
        (
            "PPO",
            {"train_batch_size": 4000, "sample_batch_size": 100, "num_workers": 2},
            {"rollout_fragment_length": 100, "num_envs_per_worker": 20},
        ),
        (
            "A2C",
            {"train_batch_size": 120, "rollout_fragment_length": 20, "num_workers": 3},
            {"rollout_fragment_length": 20, "num_envs_per_worker": 2},
        ),
        ("PG", {"train_batch_size": 100}, {"rollout_fragment_length": 100, "num_envs_per_worker": 1}),
        ("PPO", {"rollout_fragment_length": "auto"}, {"rollout_fragment_length": 200, "num_envs_per_worker": 20}),
        (
            "PPO",
            {"train_batch_size": 4000, "model": {"use_lstm": True, "max_seq_len": 25}},
            {"rollout_fragment_length": 25, "num_envs_per_worker": 160},
        ),
        # losses
        ("PPO", {"vf_loss_coeff": 0.25}, {"vf_coeff": 0.5}),
        ("A2C", {"vf_loss_coeff": 0.25}, {"vf_coeff": 0.25}),
        ("APPO", {"vf_loss_coeff": 0.25}, {"vf_coeff": 0.25}),
        ("A2C", {"grad_clip": 10.0, "train_batch_size": 100}, {"grad_clip": 0.1}),
        ("A3C", {"grad_clip": 10.0, "rollout_fragment_length": 5, "num_envs_per_worker": 2}, {"grad_clip": 1.0}),
        ("IMPALA", {"grad_clip": 20.0, "train_batch_size": 1000}, {"grad_clip": 0.02}),
        ("PPO", {"grad_clip": 0.5}, {"grad_clip": 0.5}),
        ("DQN", {"grad_clip": None}, {"grad_clip": 0.0}),
        ("DQN", {"grad_norm_clipping": 5}, {"grad_clip": 5.0}),
        ("A2C", {"use_gae": False, "lambda": 0.9}, {"lambda": 1.0}),
        ("PPO", {"lambda": 0.9}, {"lambda": 0.9}),
        # PPO, APPO, IMPALA
        (
            "PPO",
            {"clip_param": 0.1, "num_sgd_iter": 6, "sgd_minibatch_size": 64, "vf_clip_param": 3, "kl_coeff": 0.5},
            {"clip": 0.1, "epochs": 6, "minibatch_size": 64, "vf_clip": 3, "kl_coeff": 0.5},
        ),
        ("PPO", {"vf_clip_param": float("inf")}, {"vf_clip": None}),
        ("APPO", {"kl_coeff": 0.5}, {"kl_coeff": 0.0}),
        ("APPO", {"kl_coeff": 0.5, "use_kl_loss": True}, {"kl_coeff": 0.5}),
        ("APPO", {"lambda": 0.1, "vtrace": False}, {"lambda": 0.1}),
        ("APPO", {"train_batch_size": 100}, {"train_batch_size": 100, "minibatch_size": 100}),
        ("APPO", {"target_update_frequency": 4}, {"target_update_freq": 4}),
        (
            "IMPALA",
            {"max_sample_requests_in_flight_per_worker": 1, "vtrace_clip_rho_threshold": 2.0},
            {"requests_in_flight": 1, "vtrace_clip_rho": 2.0},
        ),
        # replay
        ("DQN", {"train_batch_size": 64}, {"batch_size": 64, "updates_per_step": 0.25}),
        (
            "DQN",
            {"rollout_fragment_length": 8, "num_workers": 2, "num_envs_per_worker": 2},
            {"updates_per_step": 1 / 32, "target_update_freq": 16},
        ),
        ("DQN", {"training_intensity": 16, "train_batch_size": 64}, {"updates_per_step": 0.25}),
        ("DQN", {"target_network_update_freq": 8000}, {"target_update_freq": 2000}),
        ("SAC", {"target_network_update_freq": 32}, {"target_update_freq": 32}),
        ("APEX", {"target_network_update_freq": 5120}, {"target_update_freq": 10}),
        ("APEX", {"training_intensity": 8, "train_batch_size": 64}, {"updates_per_step": 0.125}),
        ("APEX", {"optimizer": {"num_replay_buffer_shards": 2}}, {"replay_shards": 2}),
        ("DQN", {"buffer_size": 1e5, "learning_starts": 5e3}, {"buffer_size": 100_000, "learning_starts": 5000}),
        (
            "DQN",
            {"replay_buffer_config": {"capacity": 9000, "min_size_for_sampling": 500, "prioritized_replay_alpha": 0.5}},
            {"buffer_size": 9000, "learning_starts": 500, "priority_alpha": 0.5},
        ),
        ("DQN", {"num_steps_sampled_before_learning_starts": 50}, {"learning_starts": 50}),
        ("DQN", {"replay_buffer_config": {"type": "MultiAgentReplayBuffer"}}, {"prioritized": False}),
        ("SAC", {"replay_buffer_config": {"type": "MultiAgentPrioritizedReplayBuffer"}}, {"prioritized": True}),
        ("DQN", {"prioritized_replay": False}, {"prioritized": False}),
        (
            "DQN",
            {"final_prioritized_replay_beta": 1.0, "prioritized_replay_beta_annealing_timesteps": 4000},
            {"priority_beta": 0.4, "priority_beta_schedule": [[0, 0.4], [4000, 1.0]]},
        ),
        # Q-learning
        (
            "DQN",
            {"num_atoms": 51, "noisy": True, "sigma0": 0.4, "v_min": -5, "v_max": 5, "dueling": False},
            {"num_atoms": 51, "noisy": True, "noisy_sigma": 0.4, "v_min": -5, "v_max": 5, "dueling": False},
        ),
        ("DQN", {"hiddens": [512]}, {"hiddens": [256, 256, 512], "activation": "relu"}),
        ("DQN", {"hiddens": [], "model": {"fcnet_hiddens": [64]}}, {"hiddens": [64], "activation": "tanh"}),
        (
            "DQN",
            {"model": {"fcnet_hiddens": [64], "fcnet_activation": "linear"}},
            {"hiddens": [256], "activation": "relu"},
        ),
        ("DQN", {"model": {"fcnet_activation": "tanh"}}, {"activation": "tanh"}),
        (
            "DQN",
            {"exploration_config": {"initial_epsilon": 0.5, "final_epsilon": 0.1, "epsilon_timesteps": 2000}},
            {"epsilon_schedule": [[0, 0.5], [2000, 0.1]]},
        ),
        (
            "DQN",
            {"exploration_config": {"warmup_timesteps": 100, "epsilon_timesteps": 900}},
            {"epsilon_schedule": [[100, 1.0], [1000, 0.02]]},
        ),
        (
            "DQN",
            {"schedule_max_timesteps": 20_000, "exploration_fraction": 0.1, "exploration_final_eps": 0.05},
            {"epsilon_schedule": [[0, 1.0], [2000, 0.05]]},
        ),
        # continuous actions
        (
            "DDPG",
            {"actor_hiddens": [64, 64], "critic_hiddens": [32], "actor_hidden_activation": "tanh"},
            {"hiddens": [64, 64], "critic_hiddens": [32], "activation": "tanh"},
        ),
        ("DDPG", {"actor_lr": 1e-4, "critic_lr": 2e-4}, {"lr": 1e-4, "critic_lr": 2e-4}),
        (
            "DDPG",
            {"exploration_config": {"ou_sigma": 0.3, "ou_base_scale": 0.2, "ou_theta": 0.1, "initial_scale": 0.5}},
            {"exploration_noise": "ornstein-uhlenbeck", "exploration_sigma": 0.06, "exploration_theta": 0.1},
        ),
        (
            "DDPG",
            {"exploration_config": {"type": "GaussianNoise", "stddev": 0.2}},
            {"exploration_noise": "gaussian", "exploration_sigma": 0.2},
        ),
        ("DDPG", {"smooth_target_policy": True, "target_noise": 0.3}, {"target_noise": 0.3}),
        ("DDPG", {"target_noise": 0.3}, {"target_noise": 0.0}),
        ("TD3", {"policy_delay": 3, "twin_q": False, "tau": 0.01}, {"policy_delay": 3, "twin_q": False, "tau": 0.01}),
        (
            "SAC",
            {"policy_model": {"fcnet_hiddens": [8], "fcnet_activation": "tanh"}, "Q_model": {"fcnet_hiddens": [9]}},
            {"hiddens": [8], "critic_hiddens": [9], "activation": "tanh"},
        ),
        (
            "SAC",
            {"policy_model": {"hidden_layer_sizes": [8]}, "q_model_config": {"fcnet_hiddens": [9]}},
            {"hiddens": [8], "critic_hiddens": [9]},
        ),
        (
            "SAC",
            {
                "optimization": {
                    "actor_learning_rate": 1e-4,
                    "critic_learning_rate": 2e-4,
                    "entropy_learning_rate": 3e-5,
                }
            },
            {"lr": 1e-4, "critic_lr": 2e-4, "alpha_lr": 3e-5},
        ),
        ("SAC", {"target_entropy": -2.0, "initial_alpha": 0.2}, {"target_entropy": -2.0, "initial_alpha": 0.2}),
        # names that are ours already
        ("DQN", {"updates_per_step": 0.5}, {"updates_per_step": 0.5}),
        ("PPO", {"kl_stop": 0.02}, {"kl_stop": 0.02}),
    ],
)
def test_an_option_keeps_its_meaning(run: str, classic: dict[str, Any], ours: dict[str, Any]) -> None:
    found = config_of(run, classic, env="Pendulum-v1" if CLASSIC[run].run in ("DDPG", "TD3", "SAC") else "CartPole-v0")
    assert {name: found.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("run", "classic", "absent"),
    [
        ("SAC", {"target_entropy": "auto"}, "target_entropy"),
        ("APPO", {"lambda": 0.1}, "lambda"),
        ("PPO", {"lr": [[0, 0.1]]}, "lr"),
        ("DQN", {"noisy": True}, "epsilon_schedule"),
        ("DDPG", {"exploration_config": {"type": "GaussianNoise"}}, "exploration_theta"),
        ("DQN", {"final_prioritized_replay_beta": 0.4}, "priority_beta_schedule"),
        ("PPO", {"framework": "torch", "_disable_preprocessor_api": True}, "framework"),
    ],
)
def test_what_has_no_meaning_here_is_not_there(run: str, classic: dict[str, Any], absent: str) -> None:
    assert absent not in config_of(run, classic)


@pytest.mark.parametrize(
    ("run", "classic", "said"),
    [
        ("PPO", {"num_sgd_iter": 6}, "num_sgd_iter is epochs here"),
        ("PPO", {"framework": "tf"}, "framework is left out: PyTorch is all there is"),
        (
            "PPO",
            {"vf_loss_coeff": 0.01},
            "vf_loss_coeff 0.01 is vf_coeff 0.02 here: the value loss is half the squared",
        ),
        (
            "PPO",
            {"observation_filter": "MeanStdFilter"},
            'observation_filter "MeanStdFilter" is normalize_observations true',
        ),
        (
            "DQN",
            {"target_network_update_freq": 500},
            "target_network_update_freq 500 is target_update_freq 125 here: it counts",
        ),
        (
            "A2C",
            {"train_batch_size": 100},
            "train_batch_size 100 gives rollout_fragment_length 20 here: a round is train_",
        ),
        ("A2C", {"train_batch_size": 100}, "train_batch_size 100 gives num_envs_per_worker 5 here: so many that"),
        (
            "DQN",
            {"num_workers": 2, "rollout_fragment_length": 8},
            "rollout_fragment_length 8 and num_workers 2 give updates_per_step 0.0625 here: one for each fragment",
        ),
        ("IMPALA", {"vtrace": False}, "vtrace is left out: advantages are V-trace's"),
        (
            "DDPG",
            {"exploration_config": {"final_scale": 0.02}},
            "exploration_config.final_scale is left out: noise stays",
        ),
        ("APEX", {}, "run APEX is ApexDQN here"),
        ("SAC", {"horizon": 200}, "horizon is spec.envConfig here: max_episode_steps"),
        ("DDPG", {"actor_lr": 0.01}, "actor_lr is lr here"),
    ],
)
def test_what_is_translated_is_said_in_a_line(run: str, classic: dict[str, Any], said: str) -> None:
    notes = notes_of(run, classic)
    assert [note for note in notes if note.startswith(said)]
    assert all("\n" not in note for note in notes)


def test_nothing_is_said_of_what_is_the_same_in_both() -> None:
    assert notes_of("PPO", {"gamma": 0.9, "lr": 0.01, "lambda": 0.9, "framework": "torch", "multiagent": {}})[:-1] == []


@pytest.mark.parametrize(
    ("run", "classic", "said"),
    [
        ("PPO", {"num_sgd_itr": 6}, 'it.yaml: it.config). Did you mean "num_sgd_iter"?'),
        ("PPO", {"lambd": 6}, 'PPO has no option "lambd" (in it.yaml: it.config). Did you mean "lambda"?'),
        ("PPO", {"model": {"fcnet_hidens": [6]}}, 'Did you mean "model.fcnet_hiddens"?'),
        ("A2C", {"clip": 0.1}, 'A2C has no option "clip" (in it.yaml: it.config). It belongs to APPO, PPO'),
        ("PPO", {"lr": "fast"}, "it.yaml: it.config.lr: "),
        ("PPO", {"gamma": 2}, "it.yaml: it.config.gamma: Input should be less than or equal to 1"),
        ("PPO", {"train_batch_size": "many"}, "it.yaml: it.config.train_batch_size: invalid literal"),
        ("PPO", {"model": [64]}, "it.yaml: it.config.model: takes options by name, got [64]"),
        ("PPO", {"model": {"custom_model": "mine"}}, "it.config.model.custom_model: custom models are not taken"),
        ("SAC", {"Q_model": {"custom_model": "mine"}}, "it.config.Q_model.custom_model: custom models are not taken"),
        ("PPO", {"multiagent": {"policies": {"a": None}}}, "it.config.multiagent: there is one agent"),
        ("PPO", {"callbacks": "mine.Callbacks"}, "it.config.callbacks: there are none"),
        ("PPO", {"model": {"use_attention": True}}, "it.config.model.use_attention: there is no attention"),
        ("DQN", {"model": {"use_lstm": True}}, "it.config.model.use_lstm: Q-networks have no memory"),
        ("PPO", {"model": {"fcnet_activation": "gelu"}}, "it.config.model.fcnet_activation: there is no gelu"),
        ("PPO", {"observation_filter": "Mine"}, "it.config.observation_filter: there is no Mine"),
        ("PPO", {"num_gpus": 4}, "it.config.num_gpus: a learner has one GPU: for 4 set num_gpus 1 and num_learners 4"),
        ("IMPALA", {"num_sgd_iter": 4}, "it.config.num_sgd_iter: IMPALA learns from a batch once: run APPO"),
        ("IMPALA", {"replay_proportion": 0.5}, "it.config.replay_proportion: fragments are not replayed"),
        ("A2C", {"use_critic": False}, "it.config.use_critic: A2C and PPO have a critic"),
        ("DQN", {"exploration_config": {"type": "SoftQ"}}, "it.config.exploration_config.type: there is no SoftQ"),
        (
            "DDPG",
            {"exploration_config": {"type": "ParameterNoise"}},
            "exploration_config.type: there is no ParameterNoise",
        ),
        ("DQN", {"explore": False}, "it.config.explore: training always explores"),
        ("PPO", {"input": "episodes/*.json"}, "it.config.input: experience is sampled, not read"),
        ("PPO", {"clip_rewards": True}, "it.config.clip_rewards: clip rewards in the environment"),
        (
            "PPO",
            {"evaluation_interval": 1, "evaluation_duration_unit": "timesteps"},
            "evaluation_duration_unit: an evaluation",
        ),
        (
            "PPO",
            {"evaluation_interval": 1, "evaluation_config": {"lr": 1}},
            "evaluation_config.lr: evaluations run with",
        ),
        ("R2D2", {}, 'unknown algorithm "R2D2": run PPO, IMPALA or APPO with model.use_lstm'),
        ("DQNN", {}, 'it.yaml: it.config: unknown algorithm "DQNN". Did you mean "DQN"?'),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(run: str, classic: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        config_of(run, classic)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("run", "classic", "space"),
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
def test_a_search_has_values_in_our_units(run: str, classic: dict[str, Any], space: dict[str, Any]) -> None:
    spec = spec_of(run, classic)
    assert spec["tune"] == {"numSamples": 1, "space": space}
    assert not space.keys() & spec["config"].keys()


def test_a_grid_that_decides_several_options_is_several_documents() -> None:
    config = {"train_batch_size": 64, "num_envs_per_worker": {"grid_search": [2, 4]}, "lr": {"grid_search": [0.1, 0.2]}}
    made = translate({"it": {"run": "PPO", "env": "CartPole-v0", "config": config}}, "it.yaml")
    assert [each.document["metadata"]["name"] for each in made] == ["it", "it-2"]
    configs = [each.document["spec"]["config"] for each in made]
    assert [(each["num_envs_per_worker"], each["rollout_fragment_length"]) for each in configs] == [(2, 32), (4, 16)]
    assert all(each.document["spec"]["tune"]["space"] == {"lr": {"grid_search": [0.1, 0.2]}} for each in made)


def test_a_grid_over_what_means_nothing_here_is_left_out() -> None:
    config = {"framework": {"grid_search": ["tf", "torch"]}}
    assert "tune" not in spec_of("PPO", config)
    assert "framework is not searched over: here every value of it means the same" in notes_of("PPO", config)


@pytest.mark.parametrize(
    ("classic", "said"),
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
def test_a_search_that_cannot_be_is_refused(classic: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        translate({"it": {"run": "PPO", "env": "CartPole-v0", "config": classic}}, "it.yaml")
    assert said in str(caught.value)


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
def test_environments_of_that_time(theirs: str, config: dict[str, Any], ours: str, ours_config: Any) -> None:
    spec = spec_of("PPO", config, env=theirs)
    assert spec["env"] == ours
    assert spec.get("envConfig") == ours_config


def test_pictures_are_read_by_convolutions_alone() -> None:
    assert config_of("PPO", {}, env="PongNoFrameskip-v4")["hiddens"] == []
    assert config_of("DQN", {"hiddens": [512]}, env="PongNoFrameskip-v4")["hiddens"] == [512]


@pytest.mark.parametrize(
    ("env", "config", "said"),
    [
        ("ray.rllib.examples.env.repeat_after_me_env.RepeatAfterMeEnv", {}, "it.env: ray.rllib.examples"),
        ("Pong-ramNoFrameskip-v4", {}, "it.env: Pong-ramNoFrameskip-v4 shows the console's memory"),
        ("my.module:Env", {"horizon": 5}, "it.config.horizon: end episodes in the environment"),
    ],
)
def test_environments_that_cannot_be_are_refused(env: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        spec_of("PPO", config, env=env)
    assert said in str(caught.value)


def test_a_grid_of_environments_is_a_document_for_each() -> None:
    env = {"grid_search": ["HalfCheetah-v2", "Hopper-v2"]}
    made = translate({"Mujoco TD3!": {"run": "TD3", "env": env}}, "it.yaml")
    assert [(each.document["metadata"]["name"], each.document["spec"]["env"]) for each in made] == [
        ("mujoco-td3", "HalfCheetah-v5"),
        ("mujoco-td3-2", "Hopper-v5"),
    ]


def test_names_are_made_valid_and_stay_apart() -> None:
    experiment = {"run": "PG", "env": "CartPole-v0"}
    content = {"A_B": experiment, "a b": experiment, "1st": experiment, "x" * 50: experiment, "x" * 60: experiment}
    names = [each.document["metadata"]["name"] for each in translate(content, "it.yaml")]
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


def test_a_mean_of_fewer_episodes_is_that_of_an_evaluation() -> None:
    stop = {"episode_reward_mean": -150}
    spec = spec_of("SAC", {"metrics_smoothing_episodes": 5}, env="Pendulum-v1", stop=stop)
    assert spec["stop"] == {"evaluation/episode_reward_mean": -150}
    assert spec["evaluation"] == {"interval": 1, "episodes": 5, "deterministic": False}
    assert "evaluation" not in spec_of("SAC", {"metrics_smoothing_episodes": 100}, stop=stop)


def test_apex_is_judged_by_an_evaluation_as_its_greedy_workers_were() -> None:
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


def test_what_only_the_command_line_knows_is_handed_on() -> None:
    fields = {"local_dir": "/data", "restore": "/old/checkpoint_1", "export_formats": ["model"]}
    (made,) = translate({"it": {"run": "PPO", "env": "CartPole-v0", **fields}}, "it.yaml")
    assert made.arguments == fields
    (made,) = translate({"it": {"run": "PPO", "env": "CartPole-v0", "storage_path": "/data"}}, "it.yaml")
    assert made.arguments == {"local_dir": "/data"}


def test_the_page_names_every_field_that_is_taken() -> None:
    assert EXPERIMENT.keys() == FIELDS.keys() | ARGUMENTS.keys() | IN_S3.keys() | {"run", "env", "config", "stop"}


@pytest.mark.parametrize(
    ("fields", "said"),
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
def test_fields_that_cannot_be_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        translate({"it": {"run": "PPO", "env": "CartPole-v0", **fields}}, "it.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "classic"),
    [
        ({"a": {"run": "PPO", "env": "CartPole-v0"}}, True),
        ({"a": {"run": "PPO", "env": "x"}, "b": {"env": "x", "run": "PG"}}, True),
        ({"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "spec": {"run": "PPO"}}, False),
        ({"kind": "RLExperiment", "spec": {"run": "PPO", "env": "x"}}, False),
        ({"a": {"run": "PPO"}, "b": 3}, False),
        ({}, False),
        (None, False),
        (["a"], False),
    ],
)
def test_a_classic_file_is_known_by_its_form(content: Any, classic: bool) -> None:
    assert is_classic(content) is classic


def test_a_file_becomes_documents(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text("one: {run: PPO, env: CartPole-v0}\ntwo: {run: DQN, env: CartPole-v0}\n")
    assert [each.document["spec"]["run"] for each in documents(path)] == ["PPO", "DQN"]
    path.write_text("one: {run: PPO")
    with pytest.raises(DocumentError, match="is not YAML"):
        documents(path)
    path.write_text("one: 1")
    with pytest.raises(DocumentError, match="holds no experiments as RLlib has them"):
        documents(path)
    with pytest.raises(DocumentError, match="No such file"):
        documents(tmp_path / "none.yaml")


def test_a_command_line_takes_our_names_as_ours() -> None:
    ours = {"lr": 0.01, "hiddens": [64, 64], "rollout_fragment_length": 16, "grad_clip": 3.0}
    for run in ("DQN", "A2C", "my.package:MINE"):
        assert translate_config(run, ours) == (ours, {}, [])


@pytest.mark.parametrize(
    ("run", "classic", "over", "ours"),
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
def test_a_command_line_takes_rllibs_names_over_what_is_there(
    run: str, classic: dict[str, Any], over: dict[str, Any], ours: dict[str, Any]
) -> None:
    config, space, notes = translate_config(run, classic, over)
    assert (config, space) == (ours, {})
    assert notes


def test_a_command_lines_options_are_judged_together_with_those_they_go_over() -> None:
    assert translate_config("PPO", {"num_learners": 2}, {"num_workers": 4})[0] == {"num_learners": 2}
    with pytest.raises(OptionError, match="num_learners 2 does not divide num_workers 0"):
        translate_config("PPO", {"num_learners": 2})


def test_a_command_line_can_search() -> None:
    config, space, _ = translate_config("PPO", {"clip_param": {"grid_search": [0.1, 0.2]}, "gamma": 0.9})
    assert (config, space) == ({"gamma": 0.9}, {"clip": {"grid_search": [0.1, 0.2]}})
    config, space, _ = translate_config("PPO", {"clip": {"uniform": [0.1, 0.2]}, "gamma": 0.9})
    assert (config, space) == ({"gamma": 0.9}, {"clip": {"uniform": [0.1, 0.2]}})


@pytest.mark.parametrize(
    ("run", "classic", "said"),
    [
        ("PPO", {"env_config": {"a": 1}}, "--config.env_config: it stands elsewhere in a document, at spec.envConfig"),
        ("PPO", {"learning_rate": 1}, 'PPO has no option "learning_rate" (in --config). Did you mean "lr"?'),
        ("DQN", {"num_envs_per_env_runner": {"grid_search": [1, 2]}, "rollout_fragment_length": 2}, "together here"),
    ],
)
def test_a_command_line_says_what_it_does_not_take(run: str, classic: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        translate_config(run, classic)
    assert said in str(caught.value)


@pytest.mark.parametrize("run", CLASSIC)
def test_the_tables_name_options_that_there_are(run: str) -> None:
    classic = CLASSIC[run]
    there = option_names(OPTIONS[classic.run])
    rows = {row.ours or name for name, row in classic.rows.items() if row.fate == "kept"}
    assert rows | {joint.ours for joint in classic.joints} <= there.keys()
    sources = {source for joint in classic.joints for source in joint.sources}
    assert classic.defaults.keys() <= classic.rows.keys() | sources


def test_the_page_on_migrating_has_the_tables_of_today() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page, "run `python -m rltrainer.rllib_compat.tables docs/migrating.md`"


def test_translating_imports_neither_torch_nor_ray() -> None:
    code = "import sys, rltrainer.rllib_compat; print({'torch', 'ray', 'numpy', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
