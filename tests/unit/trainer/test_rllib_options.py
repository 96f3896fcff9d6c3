"""Each of RLlib's options under our name and in our units; notes, and errors for what is untranslatable."""

from typing import Any

import pytest

from rltrainer.api.options import OptionError
from rltrainer.rllib_compat import (
    ALGORITHMS,
)
from rltrainer.rllib_compat.options import task_free_options
from tests.unit.trainer.rllib_experiments import config_of, notes_of, spec_of

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
ASYNC = {**ACTOR_CRITIC, "num_envs_per_worker": 1, "lr": 5e-4, "train_batch_size": 500, "rollout_fragment_length": 50}
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
        ("IMPALA", "IMPALA", {**ASYNC, "grad_clip": 0.08}),
        (
            "APPO",
            "APPO",
            {**ASYNC, "clip": 0.4, "kl_coeff": 0.0, "epochs": 1, "minibatch_size": 500, "grad_clip": 40.0},
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
def test_rllibs_defaults_complete_a_file(run: str, ours: str, options: dict[str, Any]) -> None:
    spec = spec_of(run, {})
    assert spec["run"] == ours
    assert spec["config"] == {**task_free_options(ours, options), **options}, "no task changes them"
    (note,) = [note for note in notes_of(run, {}) if note.startswith("left open, and as RLlib has it: ")]
    assert all(f"{name} " in note for name in options)


@pytest.mark.parametrize(
    ("run", "theirs", "ours"),
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
        # what published files of older and newer versions have
        (
            "DQN",
            {
                "schedule_max_timesteps": 2_000_000,
                "exploration_fraction": 0.1,
                "exploration_final_eps": 0.01,
                "beta_annealing_fraction": 1.0,
                "final_prioritized_replay_beta": 1.0,
            },
            {
                "epsilon_schedule": [[0, 1.0], [200_000, 0.01]],
                "priority_beta_schedule": [[0, 0.4], [2_000_000, 1.0]],
            },
        ),
        ("DQN", {"schedule_max_timesteps": 50_000}, {"epsilon_schedule": [[0, 1.0], [5000, 0.02]]}),
        ("DQN", {"exploration_fraction": 0.4}, {"epsilon_schedule": [[0, 1.0], [40_000, 0.02]]}),
        (
            "APEX",
            {"schedule_max_timesteps": 300, "beta_annealing_fraction": 0.5, "final_prioritized_replay_beta": 1},
            {"priority_beta_schedule": [[0, 0.4], [150, 1]]},
        ),
        ("SAC", {"exploration_enabled": True, "gumbel_softmax_temperature": 0.5}, {"initial_alpha": 1.0}),
        ("DQN", {"rollout_fragment_length": "auto", "n_step": 3}, {"rollout_fragment_length": 3}),
        ("IMPALA", {"rollout_fragment_length": "auto", "num_workers": 2}, {"rollout_fragment_length": 250}),
        ("APPO", {"num_learner_workers": 2, "num_workers": 2, "exploration_config": {}}, {"num_learners": 2}),
        ("APEX_DDPG", {"noise_scale": 1.0, "n_step": 3}, {"exploration_sigma": 0.4}),
        # names that are ours already
        ("DQN", {"updates_per_step": 0.5}, {"updates_per_step": 0.5}),
        ("PPO", {"kl_stop": 0.02}, {"kl_stop": 0.02}),
    ],
)
def test_an_option_keeps_its_meaning(run: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    config = config_of(
        run, theirs, env="Pendulum-v1" if ALGORITHMS[run].run in ("DDPG", "TD3", "SAC") else "CartPole-v0"
    )
    assert {name: config.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("run", "theirs", "absent"),
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
def test_an_option_without_effect_is_left_out(run: str, theirs: dict[str, Any], absent: str) -> None:
    assert absent not in config_of(run, theirs)


@pytest.mark.parametrize(
    ("run", "theirs", "message"),
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
def test_a_note_says_what_is_translated(run: str, theirs: dict[str, Any], message: str) -> None:
    notes = notes_of(run, theirs)
    assert [note for note in notes if note.startswith(message)]
    assert all("\n" not in note for note in notes)


def test_no_note_on_what_is_the_same_in_both() -> None:
    assert notes_of("PPO", {"gamma": 0.9, "lr": 0.01, "lambda": 0.9, "framework": "torch", "multiagent": {}})[:-1] == []


@pytest.mark.parametrize(
    ("run", "theirs", "message"),
    [
        ("PPO", {"num_sgd_itr": 6}, 'it.yaml: it.config). Did you mean "num_sgd_iter"?'),
        ("PPO", {"num_sgd_itr": "auto"}, 'Did you mean "num_sgd_iter"?'),
        ("PPO", {"model": {"fcnet_hidens": "auto"}}, 'Did you mean "model.fcnet_hiddens"?'),
        ("PPO", {"lr": "auto"}, 'it.config.lr: takes a value, got "auto"'),
        ("PPO", {"_disable_preprocesor_api": True}, 'Did you mean "_disable_preprocessor_api"?'),
        ("PPO", {"_num_workers": 3}, 'PPO has no option "_num_workers"'),
        ("PPO", {"model": {"_hiddens": [3]}}, 'PPO has no option "model._hiddens"'),
        ("APPO", {"_separate_vf_optimizer": True}, "policy and critic have one optimizer here"),
        ("SAC", {"exploration_enabled": False}, "it.config.exploration_enabled: training always explores"),
        ("SAC", {"_use_beta_distribution": True}, "_use_beta_distribution: the policy's distribution is a squashed"),
        ("DQN", {"soft_q": True}, "it.config.soft_q: there is no SoftQ"),
        ("PPO", {"exploration_config": {"type": "Curiosity"}}, "there is no Curiosity: the policy itself explores"),
        ("PPO", {"grad_clip_by": "value"}, "it.config.grad_clip_by: gradients are clipped by their norm"),
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
def test_an_untranslatable_option_is_an_error(run: str, theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        config_of(run, theirs)
    assert message in str(caught.value)
