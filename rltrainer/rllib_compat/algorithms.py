"""RLlib's algorithms by name."""

from rltrainer.rllib_compat import continuous, policy_gradient, q_learning
from rltrainer.rllib_compat.rules import AlgorithmRules

RLLIB_ALGORITHMS: dict[str, AlgorithmRules] = {
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
"""By RLlib's name, as its `run` takes it."""
ALGORITHMS: dict[str, AlgorithmRules] = {
    **RLLIB_ALGORITHMS,
    "ApexDDPG": continuous.APEX_DDPG,
    "ApexDQN": q_learning.APEX,
    "ParametricDQN": q_learning.PARAMETRIC,
    "Rainbow": q_learning.RAINBOW,
}
"""By RLlib's name or by ours."""
ALTERNATIVES = {
    "DDPPO": "run PPO with num_learners, whose gradients are averaged in the same way",
    "R2D2": "run PPO, IMPALA or APPO with model.use_lstm",
    "ES": "there are no evolution strategies",
    "ARS": "there are no evolution strategies",
}
"""What to do instead of RLlib's algorithms that are not here."""
