"""Rules of RLlib's options that all algorithms have, and the other names that options have had."""

from typing import Any

from rltrainer.rllib_compat.rules import Rule, ignore, ignore_all, keep, move, reject, rename

ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "elu": "elu", "swish": "silu", "silu": "silu", "linear": "linear"}
FILTERS = {"NoFilter": False, "MeanStdFilter": True, "ConcurrentMeanStdFilter": True}


def activation(name: Any) -> str:
    """Return our name of an activation function. Raises ValueError for an unknown one."""
    ours = ACTIVATIONS.get(str(name or "linear").lower())
    if ours is None:
        raise ValueError(f"there is no {name}. Known: {', '.join(sorted(set(ACTIVATIONS.values())))}")
    return ours


def is_normalizing(name: Any) -> bool:
    """Whether an observation filter normalizes. Raises ValueError for an unknown one."""
    if name not in FILTERS:
        raise ValueError(f"there is no {name}: MeanStdFilter and NoFilter are known")
    return FILTERS[name]


def whole_gpus(count: Any) -> int:
    """Round the learner's share of a GPU up to a whole one. Raises ValueError for more than one."""
    if float(count) > 1:
        raise ValueError(f"a learner has one GPU: for {count} set num_gpus 1 and num_learners {count:g}")
    return int(float(count) > 0)


def vector_env(value: Any) -> str:
    """Return vector_env for remote_worker_envs."""
    return "subprocess" if value else "auto"


ALIASES = {
    "sample_batch_size": "rollout_fragment_length",
    "train_batch_size_per_learner": "train_batch_size",
    "num_rollout_workers": "num_workers",
    "num_env_runners": "num_workers",
    "num_envs_per_env_runner": "num_envs_per_worker",
    "num_cpus_per_env_runner": "num_cpus_per_worker",
    "gpu": "num_gpus",
    "num_accs": "num_gpus",
    "num_accs_per_worker": "num_gpus_per_worker",
    "num_learner_workers": "num_learners",
    "num_trainer_workers": "num_learners",
    "num_gpus_per_learner_worker": "num_gpus_per_learner",
    "num_gpus_per_trainer_worker": "num_gpus_per_learner",
    "num_cpus_per_learner_worker": "num_cpus_per_learner",
    "num_cpus_per_trainer_worker": "num_cpus_per_learner",
    "num_multi_acc_tower_stacks": "num_multi_gpu_tower_stacks",
    "min_sample_timesteps_per_iteration": "timesteps_per_iteration",
    "min_sample_timesteps_per_reporting": "timesteps_per_iteration",
    "lambda_": "lambda",
    "grad_norm_clipping": "grad_clip",
    "vf_share_layers": "model.vf_share_layers",
    "num_epochs": "num_sgd_iter",
    "minibatch_size": "sgd_minibatch_size",
    "max_requests_in_flight_per_sampler_worker": "max_sample_requests_in_flight_per_worker",
    "replay_buffer_config.capacity": "buffer_size",
    "num_steps_sampled_before_learning_starts": "learning_starts",
    "replay_buffer_config.learning_starts": "learning_starts",
    "replay_buffer_config.min_size_for_sampling": "learning_starts",
    "replay_buffer_config.prioritized_replay": "prioritized_replay",
    "replay_buffer_config.prioritized_replay_alpha": "prioritized_replay_alpha",
    "replay_buffer_config.prioritized_replay_beta": "prioritized_replay_beta",
    "replay_buffer_config.prioritized_replay_eps": "prioritized_replay_eps",
    "replay_buffer_config.worker_side_prioritization": "worker_side_prioritization",
    "replay_buffer_config.replay_sequence_length": "replay_sequence_length",
    "exploration_final_eps": "exploration_config.final_epsilon",
    "noise_scale": "exploration_config.ou_base_scale",
    "pure_exploration_steps": "exploration_config.random_timesteps",
    "replay_batch_size": "replay_buffer_config.replay_batch_size",
    "replay_mode": "replay_buffer_config.replay_mode",
    "no_local_replay_buffer": "replay_buffer_config.no_local_replay_buffer",
    "replay_buffer_shards_colocated_with_driver": "replay_buffer_config.replay_buffer_shards_colocated_with_driver",
    "exploration_enabled": "explore",
    "sgd_stepsize": "lr",
    "sgd_batchsize": "sgd_minibatch_size",
    "timesteps_per_batch": "train_batch_size",
    "smoothing_num_episodes": "metrics_smoothing_episodes",
    "min_train_timesteps_per_reporting": "min_train_timesteps_per_iteration",
    "optimizer.num_replay_buffer_shards": "num_replay_buffer_shards",
    "actor_lr": "optimization.actor_learning_rate",
    "alpha_lr": "optimization.entropy_learning_rate",
    "evaluation_duration": "evaluation_num_episodes",
    "metrics_num_episodes_for_smoothing": "metrics_smoothing_episodes",
    "custom_evaluation_function": "custom_eval_function",
    "input_": "input",
}
"""Other names of options, of other versions of RLlib, and the name that the tables have."""
AUTO = ("rollout_fragment_length", "target_entropy", "evaluation_num_episodes", "model.num_framestacks")
"""Options that RLlib lets be "auto"."""
GROUP_ALIASES = {"q_model_config": "Q_model", "policy_model_config": "policy_model"}
"""The same for groups of options."""

RESOURCES: dict[str, Rule] = {
    "num_workers": keep(),
    "num_envs_per_worker": keep(),
    "num_cpus_per_worker": keep(),
    "num_gpus": keep(note="a part of a GPU is a whole one", convert=whole_gpus),
    "num_learners": keep(),
    "num_gpus_per_learner": ignore("num_gpus: 1 gives each learner one", 0),
    "num_cpus_per_learner": ignore("num_gpus and the threads of PyTorch say what a learner takes", 1),
    "remote_worker_envs": rename("vector_env", convert=vector_env),
}
"""What runs where."""

MODEL: dict[str, Rule] = {
    "model.max_seq_len": ignore("sequences are as long as fragments"),
    "model.dim": move("envConfig", "of Atari games img_width and img_height"),
    "model.conv_filters": reject("convolutions are those of cnn: nature, or resnet", []),
    "model.custom_model": reject(
        "custom models are not taken. Masks and descriptions of actions come with the observation: a Dict with "
        "action_mask, and for run: ParametricDQN avail_actions; for any other network write an algorithm of your own "
        "(docs/new-algorithm.md)"
    ),
    "model.custom_preprocessor": reject("preprocess observations in the environment, by a gymnasium wrapper"),
    "model.custom_action_dist": reject("the action space decides the distribution"),
    "model.use_attention": reject("there is no attention: recurrent: lstm or gru is the memory here", False),
    "model.no_final_linear": reject("the last layer is always linear", False),
    "model.lstm_use_prev_action": reject("put the last action into the observation, by a gymnasium wrapper", False),
    "model.lstm_use_prev_reward": reject("put the last reward into the observation, by a gymnasium wrapper", False),
    "model.lstm_use_prev_action_reward": reject("put both into the observation, by a gymnasium wrapper", False),
    "model.fcnet_weights_initializer": reject("layers begin with orthogonal or PyTorch's own weights"),
    **ignore_all("it belongs to custom models", "model.custom_model_config", "model.custom_options"),
    **ignore_all("convolutions are followed by relu", "model.conv_activation", "model.post_fcnet_activation"),
    **ignore_all(
        "Atari frames are gray, four of them stacked", "model.grayscale", "model.zero_mean", "model.framestack"
    ),
    "model.free_log_std": ignore("deviations depend on the state in SAC, and in no other algorithm"),
    "model.num_framestacks": move("envConfig", "of Atari games stack_num"),
    "model.no_framestack": move("envConfig", "of Atari games stack_num: 1"),
    "model.state_shape": reject("encoders follow from the observation space"),
    "model.encoder_latent_dim": reject("the last of fcnet_hiddens is what heads see"),
    **ignore_all(
        "it belongs to model.use_attention",
        *("model.attention_dim", "model.attention_head_dim", "model.attention_init_gru_gate_bias"),
        *("model.attention_memory_inference", "model.attention_memory_training", "model.attention_num_heads"),
        *("model.attention_num_transformer_units", "model.attention_position_wise_mlp_dim"),
        *("model.attention_use_n_prev_actions", "model.attention_use_n_prev_rewards"),
    ),
    **ignore_all("there is no counterpart", "model.squash_to_range", "model.fcnet_tag", "model.always_check_shapes"),
}

EVALUATION: dict[str, Rule] = {
    "evaluation_interval": move("evaluation.interval"),
    "evaluation_num_episodes": move("evaluation.episodes"),
    "evaluation_duration_unit": move("evaluation.episodes", "only episodes"),
    "evaluation_config": move("evaluation.deterministic", "explore: false means deterministic: true"),
    "metrics_smoothing_episodes": move("evaluation.episodes", "means of training are of 100 episodes"),
}
"""Evaluation and the means of training."""

ENVIRONMENT: dict[str, Rule] = {
    "env": move("env"),
    "env_config": move("envConfig", "keyword arguments of the environment"),
    "horizon": move("envConfig", "max_episode_steps, as gymnasium.make takes it"),
    "soft_horizon": ignore("an episode that a time limit ends is truncated: its value goes on", False),
    "no_done_at_end": ignore("an episode that a time limit ends is truncated: its value goes on", False),
    "clip_rewards": move("envConfig", "of Atari games reward_clipping; other environments clip theirs themselves"),
    "clip_actions": ignore("actions always stay within the bounds of their space"),
    "normalize_actions": ignore("policies act within the bounds of their space"),
    "observation_filter": rename("normalize_observations", convert=is_normalizing),
    "preprocessor_pref": ignore("ALE's own vector environment does what deepmind means", "deepmind"),
}

REJECTED: dict[str, Rule] = {
    "multiagent": reject("there is one agent: give each its own experiment, or one environment for all", {}),
    "callbacks": reject("there are none: result.json has the numbers of every iteration", {}),
    "custom_eval_function": reject("evaluation in the document says how policies are evaluated"),
    "input": reject("experience is sampled, not read", "sampler"),
    "output": reject("rltrainer rollout --out writes trajectories"),
    "explore": reject("training always explores", True),
    **{
        f"exploration_config.{name}": reject("it belongs to an exploration that is not there")
        for name in ("sub_exploration", "temperature", "initial_stddev", "perturbation")
    },
    **{
        name: reject("environments say what their spaces are")
        for name in ("observation_space", "action_space", "observation_fn", "env_task_fn")
    },
    **{
        name: reject("write an algorithm of your own (docs/new-algorithm.md)")
        for name in (
            *("rl_module_class", "rl_module_spec", "learner_class", "rl_trainer_class", "worker_cls", "env_runner_cls"),
            *("_rl_module_spec", "_learner_class", "sample_collector"),
        )
    },
    **{
        name: reject("there is one agent: give each its own experiment, or one environment for all", {})
        for name in ("policies", "policy_mapping_fn", "policies_to_train", "algorithm_config_overrides_per_module")
    },
    "grad_clip_by": reject("gradients are clipped by their norm", "global_norm"),
    "action_mask_key": reject("the part of an observation that masks actions is action_mask", "action_mask"),
    "_separate_vf_optimizer": reject("policy and critic have one optimizer here", False),
    "use_state_preprocessor": reject("encoders follow from the observation space", False, -1),
}

IGNORED: dict[str, Rule] = {
    **ignore_all(
        "PyTorch is all there is",
        *("framework", "use_pytorch", "eager", "eager_tracing", "eager_max_retraces"),
        *("tf_session_args", "local_tf_session_args", "torch_compile_learner", "torch_compile_worker"),
        *("torch_compile_learner_dynamo_backend", "torch_compile_learner_dynamo_mode", "devices"),
        *("torch_compile_learner_what_to_compile", "torch_compile_worker_dynamo_backend"),
        *("torch_compile_worker_dynamo_mode", "enable_tf1_exec_eagerly", "no_eager_on_workers", "framework_str"),
        no_effect=("torch",),
    ),
    **ignore_all(
        "train.log has the log",
        "log_level",
        "log_sys_usage",
        "logger_config",
        "logger_creator",
        "monitor",
        "write_logs",
    ),
    **ignore_all(
        "rltrainer rollout --video-dir records a trained policy", "record_env", "render_env", no_effect=(False, None)
    ),
    "batch_mode": ignore("fragments are of equal length, and values go on where they end", "truncate_episodes"),
    **ignore_all("the algorithm's strategy says who waits for whom", "sample_async", "synchronize_filters"),
    **ignore_all(
        "every worker normalizes by the statistics of all", "update_worker_filter_stats", "use_worker_filter_stats"
    ),
    **ignore_all("minibatches are always shuffled", "simple_optimizer", "shuffle_sequences", "shuffle_buffer_size"),
    **ignore_all(
        "workers act on CPUs, and cluster in the document says how large pods are",
        *("num_cpus_for_driver", "num_cpus_for_main_process", "num_gpus_per_worker", "num_gpus_per_env_runner"),
        *("num_cpus_for_local_worker", "create_env_on_driver", "create_env_on_local_worker", "local_gpu_idx"),
        *("memory", "memory_per_worker", "object_store_memory", "object_store_memory_per_worker"),
        no_effect=(0,),
    ),
    **ignore_all(
        "cluster in the document says where pods run",
        "custom_resources_per_worker",
        "placement_strategy",
        no_effect=({},),
    ),
    **ignore_all(
        "iterations are counted in steps: timesteps_per_iteration",
        *("min_iter_time_s", "min_time_s_per_iteration", "min_time_s_per_reporting", "collect_metrics_timeout"),
        "min_train_timesteps_per_iteration",
        no_effect=(0, None),
    ),
    **ignore_all(
        "a lost worker is always replaced",
        *("ignore_worker_failures", "recreate_failed_workers", "ignore_env_runner_failures"),
        *("restart_failed_env_runners", "restart_failed_sub_environments"),
    ),
    **ignore_all(
        "evaluations run beside the learner",
        *("evaluation_num_workers", "evaluation_parallel_to_training", "evaluation_sample_timeout_s"),
        *("evaluation_num_env_runners", "enable_async_evaluation", "in_evaluation"),
    ),
    **ignore_all(
        "checkpoints hold the buffer, uncompressed",
        *("compress_observations", "store_buffer_in_checkpoints"),
        no_effect=(False,),
    ),
    **ignore_all(
        "experience is sampled, not read",
        "input_evaluation",
        "postprocess_inputs",
        "off_policy_estimation_methods",
        "ope_split_batch_by_episode",
    ),
    **ignore_all(
        "there is no counterpart",
        *("enable_connectors", "disable_env_checking", "fake_sampler", "remote_env_batch_wait_ms"),
        *("keep_per_episode_custom_metrics", "always_attach_evaluation_results", "auto_wrap_old_gym_envs"),
        *("sampler_perf_stats_ema_coef", "export_native_model_files"),
    ),
    **ignore_all(
        "podTemplate in the document's cluster sets env",
        *("extra_python_environs_for_driver", "extra_python_environs_for_worker"),
        no_effect=({},),
    ),
    **ignore_all(
        "batches go to the GPU as they come", "num_multi_gpu_tower_stacks", "num_data_loader_buffers", no_effect=(1,)
    ),
    **ignore_all(
        "it is a switch between RLlib's own ways, of which there is one here",
        *("enable_rl_module_and_learner", "enable_env_runner_and_connector_v2", "_enable_new_api_stack"),
        *("_enable_rl_module_api", "_enable_learner_api", "_enable_rl_trainer_api", "_disable_execution_plan_api"),
        *("_disable_preprocessor_api", "_disable_action_flattening", "_disable_initialize_loss_from_dummy_batch"),
        *("_tf_policy_handles_more_than_one_loss", "_use_trajectory_view_api", "_prior_exploration_config"),
        *("_AlgorithmConfig__prior_exploration_config", "_rl_trainer_hps", "_learner_hps", "_is_atari", "is_atari"),
        *("_set_off_policy_estimation_methods", "replay_buffer_config._enable_replay_buffer_api"),
        *("model._use_default_native_models", "model._time_major", "model._disable_preprocessor_api"),
        "model._disable_action_flattening",
        no_effect=(None,),
    ),
    "_fake_gpus": ignore("GPUs are those that there are", False),
    "_lr_vf": ignore("it belongs to _separate_vf_optimizer"),
    **ignore_all(
        "a lost worker is replaced, and a late one waited for",
        *("delay_between_worker_restarts_s", "max_num_worker_restarts", "num_consecutive_worker_failures_tolerance"),
        *("worker_health_probe_timeout_s", "worker_restore_timeout_s", "validate_workers_after_construction"),
        *("sync_filters_on_rollout_workers_timeout_s", "metrics_episode_collection_timeout_s"),
    ),
    **ignore_all("it belongs to input", "input_config", "actions_in_input_normalized", "offline_sampling"),
    **ignore_all("it belongs to output", "output_config", "output_compress_columns", "output_max_file_size"),
    **ignore_all(
        "it belongs to multiagent",
        *("count_steps_by", "policy_map_capacity", "policy_map_cache", "policy_states_are_swappable"),
        "checkpoint_trainable_policies_only",
    ),
    "worker_side_prioritization": ignore("Ape-X's workers find the first priorities, nobody else", False),
}

COMMON: dict[str, Rule] = {
    "gamma": keep(),
    "seed": keep(),
    "timesteps_per_iteration": keep(),
    **RESOURCES,
    **MODEL,
    **EVALUATION,
    **ENVIRONMENT,
    **REJECTED,
    **IGNORED,
}
