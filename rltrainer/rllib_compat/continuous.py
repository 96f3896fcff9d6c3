"""Rules of RLlib's options for the continuous-control algorithms: DDPG, TD3, Ape-X DDPG, SAC."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON, activation
from rltrainer.rllib_compat.replay import (
    PRIORITIES,
    REPLAY,
    REPLAY_DEFAULTS,
    SHARDED_DEFAULTS,
    SHARDED_RULES,
    SHARDED_UPDATE_INTERVALS,
    UPDATE_INTERVALS,
    n_step_fragment,
)
from rltrainer.rllib_compat.rules import (
    AlgorithmRules,
    Computed,
    OptionValues,
    Rule,
    ignore,
    ignore_all,
    keep,
    reject,
    rename,
    schedule,
)


def ou_noise_sigma(v: OptionValues) -> float:
    """Return the OU noise's deviation as a share of half an action's range; RLlib's is a share of the whole range."""
    names = ("ou_sigma", "ou_base_scale", "initial_scale")
    sigma, base, scale = (float(v[f"exploration_config.{name}"]) for name in names)
    return float(f"{2 * sigma * base * scale:.12g}")


def noise_sigma(v: OptionValues) -> float:
    """Return the standard deviation of the action noise, as a share of half an action's range."""
    if noise_type(v) == "ornstein-uhlenbeck":
        return ou_noise_sigma(v)
    return float(v["exploration_config.stddev"]) * float(v["exploration_config.initial_scale"])


def noise_type(v: OptionValues) -> str:
    """Return the type of action noise. Raises ValueError for any but RLlib's own two."""
    kind = str(v["exploration_config.type"]).rpartition(".")[2].removeprefix("PerWorker")
    kinds = {"OrnsteinUhlenbeckNoise": "ornstein-uhlenbeck", "GaussianNoise": "gaussian"}
    if kind not in kinds:
        raise ValueError(f"there is no {kind}: GaussianNoise and OrnsteinUhlenbeckNoise are known")
    return kinds[kind]


def noise_theta(v: OptionValues) -> Any:
    """Return the rate at which OU noise returns to 0, None for Gaussian noise."""
    return v["exploration_config.ou_theta"] if noise_type(v) == "ornstein-uhlenbeck" else None


def target_noise(v: OptionValues) -> float:
    """Return the standard deviation of the target policy's noise, 0 without smoothing."""
    return v["target_noise"] if v["smooth_target_policy"] else 0.0


CONTINUOUS_RULES: dict[str, Rule] = {
    **REPLAY,
    "twin_q": keep(),
    "critic_lr": keep(),
    **ignore_all(
        "policy and critic have layers of their own",
        *("model.fcnet_hiddens", "model.fcnet_activation", "model.vf_share_layers", "model.post_fcnet_hiddens"),
    ),
    "model.use_lstm": reject("it has no memory; A2C, PPO, IMPALA and APPO have", False),
    "model.lstm_cell_size": ignore("it belongs to model.use_lstm"),
}
ACTOR_RATE_OPTIONS = ("optimization.actor_learning_rate", "lr")
LEARNING_RATES = (Computed("lr", ACTOR_RATE_OPTIONS, lambda v: v.first(*ACTOR_RATE_OPTIONS)), schedule("lr"))
NOISE_OPTIONS = tuple(
    f"exploration_config.{name}" for name in ("type", "stddev", "initial_scale", "ou_sigma", "ou_base_scale")
)
DDPG_RULES: dict[str, Rule] = {
    **CONTINUOUS_RULES,
    "actor_hiddens": rename("hiddens"),
    "critic_hiddens": keep(),
    "actor_hidden_activation": rename("activation", convert=activation),
    "critic_hidden_activation": ignore("the critic's layers have the policy's nonlinearity", "relu"),
    "policy_delay": keep(),
    "random_starts": ignore("actions are random until learning_starts"),
    **ignore_all("noise stays as it begins", "exploration_fraction", "exploration_config.final_epsilon"),
    "target_noise_clip": keep(note="as a share of half an action's range"),
    "use_huber": ignore("the critic's loss is the squared error", False),
    "huber_threshold": ignore("the critic's loss is the squared error"),
    "l2_reg": ignore("weights do not decay", 0, 0.0, None),
}
DDPG_COMPUTED = (
    *LEARNING_RATES,
    *PRIORITIES,
    Computed("exploration_noise", NOISE_OPTIONS[:1], noise_type),
    Computed("exploration_sigma", NOISE_OPTIONS, noise_sigma, "as a share of half an action's range"),
    Computed("exploration_theta", ("exploration_config.ou_theta", NOISE_OPTIONS[0]), noise_theta),
    Computed(
        "target_noise", ("target_noise", "smooth_target_policy"), target_noise, "as a share of half an action's range"
    ),
)
DDPG_DEFAULTS = {
    **REPLAY_DEFAULTS,
    "optimization.actor_learning_rate": 1e-3,
    "critic_lr": 1e-3,
    "tau": 0.002,
    "train_batch_size": 256,
    "rollout_fragment_length": 1,
    "learning_starts": 1500,
    "target_network_update_freq": 0,
    "grad_clip": None,
    "actor_hiddens": [400, 300],
    "critic_hiddens": [400, 300],
    "actor_hidden_activation": "relu",
    "smooth_target_policy": False,
    "target_noise": 0.2,
    "exploration_config.type": "OrnsteinUhlenbeckNoise",
    "exploration_config.ou_base_scale": 0.1,
    "exploration_config.ou_theta": 0.15,
    "exploration_config.ou_sigma": 0.2,
    "exploration_config.initial_scale": 1.0,
    "exploration_config.stddev": 0.1,
}
DDPG = AlgorithmRules("DDPG", DDPG_RULES, (*UPDATE_INTERVALS, *DDPG_COMPUTED), DDPG_DEFAULTS)
TD3 = AlgorithmRules(
    "TD3",
    DDPG_RULES,
    DDPG.computed,
    {
        **DDPG_DEFAULTS,
        "tau": 0.005,
        "train_batch_size": 100,
        "buffer_size": 1_000_000,
        "prioritized_replay": False,
        "learning_starts": 10_000,
        "smooth_target_policy": True,
        "exploration_config.type": "GaussianNoise",
    },
)
APEX_DDPG = AlgorithmRules(
    "ApexDDPG",
    {**DDPG_RULES, **SHARDED_RULES},
    (*SHARDED_UPDATE_INTERVALS, *DDPG_COMPUTED),
    {**DDPG_DEFAULTS, **SHARDED_DEFAULTS},
    reward_is_greedy=True,
)


def network_rules(group: str, hiddens: str, activation_rule: Rule) -> dict[str, Rule]:
    """Return the rules of one of SAC's networks."""
    return {
        f"{group}.fcnet_hiddens": rename(hiddens),
        f"{group}.hidden_layer_sizes": rename(hiddens),
        f"{group}.fcnet_activation": activation_rule,
        f"{group}.hidden_activation": activation_rule,
        f"{group}.post_fcnet_hiddens": reject("hidden layers are those of fcnet_hiddens", []),
        f"{group}.post_fcnet_activation": ignore("all layers have one nonlinearity", None),
        f"{group}.custom_model": COMMON["model.custom_model"],
        f"{group}.custom_model_config": COMMON["model.custom_model_config"],
    }


SAC_DEFAULTS = {
    **REPLAY_DEFAULTS,
    "optimization.actor_learning_rate": 3e-4,
    "optimization.critic_learning_rate": 3e-4,
    "optimization.entropy_learning_rate": 3e-4,
    "tau": 0.005,
    "initial_alpha": 1.0,
    "train_batch_size": 256,
    "rollout_fragment_length": 1,
    "learning_starts": 1500,
    "buffer_size": 1_000_000,
    "prioritized_replay": False,
    "target_network_update_freq": 0,
    "grad_clip": None,
    "timesteps_per_iteration": 100,
    "policy_model.fcnet_hiddens": [256, 256],
    "policy_model.fcnet_activation": "relu",
    "Q_model.fcnet_hiddens": [256, 256],
}
SAC = AlgorithmRules(
    "SAC",
    rules={
        **CONTINUOUS_RULES,
        **network_rules("policy_model", "hiddens", rename("activation", convert=activation)),
        **network_rules(
            "Q_model",
            "critic_hiddens",
            ignore("the critic's layers have the policy's nonlinearity", "relu"),
        ),
        "optimization.critic_learning_rate": rename("critic_lr"),
        "optimization.entropy_learning_rate": rename("alpha_lr"),
        "initial_alpha": keep(),
        "target_entropy": keep(),
        "gumbel_softmax_temperature": ignore("discrete actions are drawn from the policy's own distribution"),
        "_use_beta_distribution": reject("the policy's distribution is a squashed normal one", False),
        "_deterministic_loss": reject("actions of the loss are drawn", False),
        "exploration_config.type": ignore("the policy itself explores", "StochasticSampling"),
    },
    computed=(*LEARNING_RATES, *UPDATE_INTERVALS, *PRIORITIES),
    defaults=SAC_DEFAULTS,
    fragment=n_step_fragment,
)
