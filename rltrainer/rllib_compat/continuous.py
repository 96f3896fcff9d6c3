"""The classic RLlib's options of the algorithms with a policy and a critic of actions."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON, activation
from rltrainer.rllib_compat.replay import (
    PRIORITIES,
    REPLAY,
    REPLAY_DEFAULTS,
    SAMPLED,
    SHARDED,
    SHARDED_DEFAULTS,
    SHARDS,
)
from rltrainer.rllib_compat.rows import Classic, Joint, Row, Values, all_dropped, dropped, kept, refused, schedule


def ou_sigma(v: Values) -> float:
    """The noise's deviation as a share of half an action's range: there it is one of the whole range."""
    names = ("ou_sigma", "ou_base_scale", "initial_scale")
    sigma, base, scale = (float(v[f"exploration_config.{name}"]) for name in names)
    return float(f"{2 * sigma * base * scale:.12g}")


def sigma(v: Values) -> float:
    """The deviation of the noise on actions."""
    if noise(v) == "ornstein-uhlenbeck":
        return ou_sigma(v)
    return float(v["exploration_config.stddev"]) * float(v["exploration_config.initial_scale"])


def noise(v: Values) -> str:
    """The kind of noise on actions. Raises ValueError for another one than RLlib's own two."""
    kind = str(v["exploration_config.type"]).rpartition(".")[2].removeprefix("PerWorker")
    kinds = {"OrnsteinUhlenbeckNoise": "ornstein-uhlenbeck", "GaussianNoise": "gaussian"}
    if kind not in kinds:
        raise ValueError(f"there is no {kind}: GaussianNoise and OrnsteinUhlenbeckNoise are known")
    return kinds[kind]


def theta(v: Values) -> Any:
    """How fast the noise returns to 0, where it is correlated in time."""
    return v["exploration_config.ou_theta"] if noise(v) == "ornstein-uhlenbeck" else None


def target_noise(v: Values) -> float:
    """The deviation of the noise on the target's actions; without smoothing there is none."""
    return v["target_noise"] if v["smooth_target_policy"] else 0.0


def entropy(value: Any) -> float | None:
    """The entropy aimed at; auto is what is aimed at anyway."""
    return None if value in (None, "auto") else float(value)


CONTINUOUS: dict[str, Row] = {
    **REPLAY,
    "twin_q": kept(),
    "critic_lr": kept(),
    **all_dropped(
        "policy and critic have layers of their own",
        *("model.fcnet_hiddens", "model.fcnet_activation", "model.vf_share_layers", "model.post_fcnet_hiddens"),
    ),
    "model.use_lstm": refused("it has no memory; A2C, PPO, IMPALA and APPO have", False),
}
ACTOR_RATES = ("optimization.actor_learning_rate", "lr")
CONTINUOUS_RATE = (Joint("lr", ACTOR_RATES, lambda v: v.first(*ACTOR_RATES)), schedule("lr"))
NOISE = tuple(f"exploration_config.{name}" for name in ("type", "stddev", "initial_scale", "ou_sigma", "ou_base_scale"))
DDPG_ROWS: dict[str, Row] = {
    **CONTINUOUS,
    "actor_hiddens": kept("hiddens"),
    "critic_hiddens": kept(),
    "actor_hidden_activation": kept("activation", value=activation),
    "critic_hidden_activation": dropped("the critic's layers have the policy's nonlinearity", "relu"),
    "policy_delay": kept(),
    "target_noise_clip": kept(note="as a share of half an action's range"),
    "use_huber": dropped("the critic's loss is the squared error", False),
    "huber_threshold": dropped("the critic's loss is the squared error"),
    "l2_reg": dropped("weights do not decay", 0, 0.0, None),
}
DDPG_JOINTS = (
    *CONTINUOUS_RATE,
    *PRIORITIES,
    Joint("exploration_noise", NOISE[:1], noise),
    Joint("exploration_sigma", NOISE, sigma, "as a share of half an action's range"),
    Joint("exploration_theta", ("exploration_config.ou_theta", NOISE[0]), theta),
    Joint(
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
DDPG = Classic("DDPG", DDPG_ROWS, (*SAMPLED, *DDPG_JOINTS), DDPG_DEFAULTS)
TD3 = Classic(
    "TD3",
    DDPG_ROWS,
    DDPG.joints,
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
APEX_DDPG = Classic(
    "ApexDDPG",
    {**DDPG_ROWS, **SHARDS},
    (*SHARDED, *DDPG_JOINTS),
    {**DDPG_DEFAULTS, **SHARDED_DEFAULTS},
    judged_greedily=True,
)


def network_rows(group: str, hiddens: str, between: Row) -> dict[str, Row]:
    """The rows of one of SAC's networks."""
    return {
        f"{group}.fcnet_hiddens": kept(hiddens),
        f"{group}.hidden_layer_sizes": kept(hiddens),
        f"{group}.fcnet_activation": between,
        f"{group}.hidden_activation": between,
        f"{group}.post_fcnet_hiddens": refused("hidden layers are those of fcnet_hiddens", []),
        f"{group}.post_fcnet_activation": dropped("all layers have one nonlinearity", None),
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
SAC = Classic(
    "SAC",
    rows={
        **CONTINUOUS,
        **network_rows("policy_model", "hiddens", kept("activation", value=activation)),
        **network_rows(
            "Q_model",
            "critic_hiddens",
            dropped("the critic's layers have the policy's nonlinearity", "relu"),
        ),
        "optimization.critic_learning_rate": kept("critic_lr"),
        "optimization.entropy_learning_rate": kept("alpha_lr"),
        "initial_alpha": kept(),
        "target_entropy": kept(value=entropy),
        "exploration_config.type": dropped("the policy itself explores", "StochasticSampling"),
    },
    joints=(*CONTINUOUS_RATE, *SAMPLED, *PRIORITIES),
    defaults=SAC_DEFAULTS,
)
