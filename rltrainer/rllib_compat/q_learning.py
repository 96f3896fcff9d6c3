"""The classic RLlib's options of the algorithms that value discrete actions."""

from typing import Any

from rltrainer.rllib_compat.common import activation
from rltrainer.rllib_compat.replay import (
    PRIORITIES,
    REPLAY,
    REPLAY_DEFAULTS,
    SAMPLED,
    SHARDED,
    SHARDED_DEFAULTS,
    SHARDS,
)
from rltrainer.rllib_compat.rows import (
    Classic,
    Joint,
    Row,
    Values,
    all_dropped,
    constant,
    dropped,
    kept,
    refused,
    schedule,
)


def epsilon_schedule(v: Values) -> list[list[float]] | None:
    """The share of random actions over time; noisy networks explore without."""
    if v["noisy"]:
        return None
    begin = v["exploration_config.warmup_timesteps"] or 0
    first, last = v["exploration_config.initial_epsilon"], v["exploration_config.final_epsilon"]
    over = round(v["exploration_config.epsilon_timesteps"] * (v["exploration_fraction"] or 1))
    return [[begin, first], [begin + over, last]] if over > 0 else [[begin, last]]


def q_layers(v: Values) -> tuple[list[int], str]:
    """Widths and nonlinearity of a Q-network: the model's layers, and then those of the value and the advantages.

    Here all have one nonlinearity. Linear layers before others add nothing to them, and are left out.
    """
    body, heads, between = v["model.fcnet_hiddens"], v["hiddens"] or [], activation(v["model.fcnet_activation"])
    if not heads:
        return list(body), between
    if between == "linear":
        return list(heads), "relu"
    return [*body, *heads], between if v.has("model.fcnet_activation") else "relu"


def greedy(kind: Any) -> Any:
    """The exploration of DQN. Raises ValueError for another one than EpsilonGreedy."""
    if str(kind).rpartition(".")[2] not in ("EpsilonGreedy", "PerWorkerEpsilonGreedy"):
        raise ValueError(f"there is no {kind}: EpsilonGreedy explores, or noisy: true")
    return kind


EPSILON = (
    "exploration_config.initial_epsilon",
    "exploration_config.final_epsilon",
    "exploration_config.epsilon_timesteps",
    "exploration_config.warmup_timesteps",
    "exploration_fraction",
    "noisy",
)
Q_LEARNING: dict[str, Row] = {
    **REPLAY,
    **{name: kept() for name in ("num_atoms", "v_min", "v_max", "noisy", "dueling", "double_q")},
    "sigma0": kept("noisy_sigma"),
    "exploration_config.type": Row("dropped", value=greedy, harmless=("EpsilonGreedy", "PerWorkerEpsilonGreedy")),
    "model.use_lstm": refused("Q-networks have no memory; A2C, PPO, IMPALA and APPO have", False),
    "model.vf_share_layers": dropped("it belongs to algorithms with a policy"),
    "parameter_noise": refused("there is none: noisy: true explores by noise on the weights", False),
}
NETWORK = ("model.fcnet_hiddens", "model.fcnet_activation", "hiddens")
Q_NETWORK = (
    Joint("hiddens", NETWORK, lambda v: q_layers(v)[0], "the model's layers, and then those of the heads"),
    Joint("activation", NETWORK, lambda v: q_layers(v)[1]),
)
RATE = (constant("lr"), schedule("lr"))
Q_DEFAULTS = {
    **REPLAY_DEFAULTS,
    "lr": 5e-4,
    "train_batch_size": 32,
    "rollout_fragment_length": 4,
    "learning_starts": 1000,
    "target_network_update_freq": 500,
    "grad_clip": 40.0,
    "hiddens": [256],
    "dueling": True,
    "double_q": True,
    "model.fcnet_hiddens": [256, 256],
    "model.fcnet_activation": "tanh",
    "exploration_config.initial_epsilon": 1.0,
    "exploration_config.final_epsilon": 0.02,
    "exploration_config.epsilon_timesteps": 10_000,
}
EXPLORATION = Joint("epsilon_schedule", EPSILON, epsilon_schedule)
DQN = Classic("DQN", Q_LEARNING, joints=(*RATE, *SAMPLED, *PRIORITIES, *Q_NETWORK, EXPLORATION), defaults=Q_DEFAULTS)
SIMPLE_Q = Classic(
    "DQN",
    DQN.rows,
    DQN.joints,
    {**Q_DEFAULTS, "hiddens": [], "dueling": False, "double_q": False, "prioritized_replay": False},
)
PARAMETRIC = Classic("ParametricDQN", DQN.rows, DQN.joints, DQN.defaults)
RAINBOW = Classic("Rainbow", DQN.rows, DQN.joints, {**DQN.defaults, "num_atoms": 51, "noisy": True, "n_step": 3})
APEX = Classic(
    "ApexDQN",
    rows={
        **Q_LEARNING,
        **SHARDS,
        **all_dropped("every environment has an epsilon of its own: epsilon_base", *EPSILON[:-1]),
    },
    joints=(*RATE, *SHARDED, *PRIORITIES, *Q_NETWORK),
    defaults={
        **{name: value for name, value in Q_DEFAULTS.items() if not name.startswith("exploration")},
        **SHARDED_DEFAULTS,
    },
    judged_greedily=True,
)
