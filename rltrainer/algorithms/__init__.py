"""The algorithms by name."""

import importlib

from rltrainer.algorithms.a2c import A2C
from rltrainer.algorithms.a3c import A3C
from rltrainer.algorithms.appo import APPO
from rltrainer.algorithms.ddpg import APEX_DDPG, DDPG, TD3
from rltrainer.algorithms.dqn import APEX_DQN, DQN, PARAMETRIC_DQN, RAINBOW
from rltrainer.algorithms.impala import IMPALA
from rltrainer.algorithms.pg import PG
from rltrainer.algorithms.ppo import PPO
from rltrainer.algorithms.qr_dqn import QR_DQN
from rltrainer.algorithms.sac import SAC
from rltrainer.core.algorithm import Algorithm
from rltrainer.errors import RunError
from rltrainer.foreign import caught

BUILT_IN = (A2C, A3C, APEX_DDPG, APEX_DQN, APPO, DDPG, DQN, IMPALA, PARAMETRIC_DQN, PG, PPO, QR_DQN, RAINBOW, SAC, TD3)
ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in BUILT_IN}


def load(run: str) -> Algorithm:
    """Load the algorithm named `run`, or the Algorithm at package.module:NAME. Raises RunError, permanent."""
    module_name, colon, attribute = run.partition(":")
    if not colon:
        return ALGORITHMS[run]
    try:
        algorithm = getattr(importlib.import_module(module_name), attribute)
    except BaseException as error:
        raise RunError("InvalidOption", caught(error).sentence(f"run: {run} cannot be imported"), True) from error
    if not isinstance(algorithm, Algorithm):
        raise RunError("InvalidOption", f"run: {run} is a {type(algorithm).__name__}, not an rltrainer Algorithm", True)
    return algorithm
