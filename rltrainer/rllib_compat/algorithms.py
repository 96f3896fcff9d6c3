"""The algorithms of the classic RLlib by name."""

from rltrainer.rllib_compat import continuous, policy_gradient, q_learning
from rltrainer.rllib_compat.rows import Classic

RLLIB: dict[str, Classic] = {
    "A2C": policy_gradient.A2C,
    "A3C": policy_gradient.A3C,
    "APEX": q_learning.APEX,
    "APEX_DDPG": continuous.APEX_DDPG,
    "APPO": policy_gradient.APPO,
    "DDPG": continuous.DDPG,
    "DQN": q_learning.DQN,
    "IMPALA": policy_gradient.IMPALA,
    "PG": policy_gradient.PG,
    "PPO": policy_gradient.PPO,
    "SAC": continuous.SAC,
    "SimpleQ": q_learning.SIMPLE_Q,
    "TD3": continuous.TD3,
}
"""By the name that `run` takes there."""
CLASSIC: dict[str, Classic] = {
    **RLLIB,
    "ApexDDPG": continuous.APEX_DDPG,
    "ApexDQN": q_learning.APEX,
    "ParametricDQN": q_learning.PARAMETRIC,
    "Rainbow": q_learning.RAINBOW,
}
"""By that, or by the name that it takes here."""
INSTEAD = {
    "DDPPO": "run PPO with num_learners, whose gradients are averaged in the same way",
    "R2D2": "run PPO, IMPALA or APPO with model.use_lstm",
    "ES": "there are no evolution strategies",
    "ARS": "there are no evolution strategies",
}
"""What to do about algorithms that there are not."""
