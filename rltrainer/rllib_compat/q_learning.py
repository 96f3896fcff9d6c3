"""Rules of RLlib's options for the Q-learning algorithms: SimpleQ, DQN, Rainbow, Parametric DQN, Ape-X."""

from dataclasses import replace
from typing import Any

from rltrainer.rllib_compat.common import activation
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
    constant,
    ignore,
    ignore_all,
    keep,
    reject,
    rename,
    schedule,
)


def epsilon_schedule(v: OptionValues) -> list[list[float]] | None:
    """Return the schedule of epsilon, None for noisy networks, which explore without."""
    if v["noisy"]:
        return None
    start = v["exploration_config.warmup_timesteps"] or 0
    first, last = v["exploration_config.initial_epsilon"], v["exploration_config.final_epsilon"]
    duration = v["exploration_config.epsilon_timesteps"]
    if v.has("schedule_max_timesteps", "exploration_fraction") and not v.has("exploration_config.epsilon_timesteps"):
        duration = round(v["schedule_max_timesteps"] * v["exploration_fraction"])
    return [[start, first], [start + duration, last]] if duration > 0 else [[start, last]]


def q_network(v: OptionValues) -> tuple[list[int], str]:
    """Return a Q-network's (hiddens, activation): the model's layers, then those of the dueling heads.

    Here all layers have one activation. Linear layers before others add nothing, and are left out.
    """
    body, heads = v["model.fcnet_hiddens"], v["hiddens"] or []
    body_activation = activation(v["model.fcnet_activation"])
    if not heads:
        return list(body), body_activation
    if body_activation == "linear":
        return list(heads), "relu"
    return [*body, *heads], body_activation if v.has("model.fcnet_activation") else "relu"


def epsilon_greedy(kind: Any) -> Any:
    """Return the exploration's type. Raises ValueError for any but epsilon-greedy."""
    if str(kind).rpartition(".")[2] not in ("EpsilonGreedy", "PerWorkerEpsilonGreedy"):
        raise ValueError(f"there is no {kind}: EpsilonGreedy explores, or noisy: true")
    return kind


EPSILON_OPTIONS = (
    "exploration_config.initial_epsilon",
    "exploration_config.final_epsilon",
    "exploration_config.epsilon_timesteps",
    "exploration_config.warmup_timesteps",
    "schedule_max_timesteps",
    "exploration_fraction",
    "noisy",
)
IGNORED_BY_APEX = tuple(name for name in EPSILON_OPTIONS if name not in ("schedule_max_timesteps", "noisy"))
Q_LEARNING: dict[str, Rule] = {
    **REPLAY,
    **{name: keep() for name in ("num_atoms", "v_min", "v_max", "noisy", "dueling", "double_q")},
    "sigma0": rename("noisy_sigma"),
    "exploration_config.type": Rule(
        "ignore", convert=epsilon_greedy, no_effect=("EpsilonGreedy", "PerWorkerEpsilonGreedy")
    ),
    "model.use_lstm": reject("Q-networks have no memory; A2C, PPO, IMPALA and APPO have", False),
    "model.vf_share_layers": ignore("it belongs to algorithms with a policy"),
    "model.lstm_cell_size": ignore("it belongs to model.use_lstm"),
    "parameter_noise": reject("there is none: noisy: true explores by noise on the weights", False, -1),
    "soft_q": reject("there is no SoftQ: EpsilonGreedy explores, or noisy: true", False, -1),
    "softmax_temp": ignore("it belongs to soft_q", -1),
    "per_worker_exploration": reject("an epsilon for each environment is what run: APEX has", False, -1),
    "td_error_loss_fn": reject("the loss is Huber's", "huber"),
    "categorical_distribution_temperature": reject("there is no temperature: EpsilonGreedy explores", 1, 1.0),
    "model.post_fcnet_hiddens": reject("hidden layers are those of fcnet_hiddens, and then of hiddens", []),
}
NETWORK_OPTIONS = ("model.fcnet_hiddens", "model.fcnet_activation", "hiddens")
Q_NETWORK = (
    Computed(
        "hiddens",
        NETWORK_OPTIONS,
        lambda v: q_network(v)[0],
        "the model's layers, and then those of the heads",
        deciding=NETWORK_OPTIONS[:1],
    ),
    Computed("activation", NETWORK_OPTIONS, lambda v: q_network(v)[1], deciding=NETWORK_OPTIONS[1:2]),
)
LEARNING_RATE = (constant("lr"), schedule("lr"))
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
    "exploration_fraction": 0.1,
}
EXPLORATION = Computed("epsilon_schedule", EPSILON_OPTIONS, epsilon_schedule)
DQN = AlgorithmRules(
    "DQN",
    Q_LEARNING,
    computed=(*LEARNING_RATE, *UPDATE_INTERVALS, *PRIORITIES, *Q_NETWORK, EXPLORATION),
    defaults=Q_DEFAULTS,
    fragment=n_step_fragment,
)
SIMPLE_Q = AlgorithmRules(
    "DQN",
    DQN.rules,
    DQN.computed,
    {**Q_DEFAULTS, "hiddens": [], "dueling": False, "double_q": False, "prioritized_replay": False},
    fragment=n_step_fragment,
)
PARAMETRIC = replace(DQN, run="ParametricDQN")
RAINBOW = replace(DQN, run="Rainbow", defaults={**DQN.defaults, "num_atoms": 51, "noisy": True, "n_step": 3})
APEX = AlgorithmRules(
    "ApexDQN",
    rules={
        **Q_LEARNING,
        **SHARDED_RULES,
        **ignore_all("every environment has an epsilon of its own: epsilon_base", *IGNORED_BY_APEX),
    },
    computed=(*LEARNING_RATE, *SHARDED_UPDATE_INTERVALS, *PRIORITIES, *Q_NETWORK),
    defaults={
        **{name: value for name, value in Q_DEFAULTS.items() if not name.startswith("exploration")},
        **SHARDED_DEFAULTS,
    },
    reward_is_greedy=True,
    fragment=n_step_fragment,
)
