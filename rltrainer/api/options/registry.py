"""The options of each algorithm that comes with rltrainer."""

from typing import Any

from pydantic import create_model

from rltrainer.api.options.base import Options
from rltrainer.api.options.off_policy import (
    ApexDDPGOptions,
    ApexDQNOptions,
    DDPGOptions,
    DQNOptions,
    ParametricDQNOptions,
    QRDQNOptions,
    RainbowOptions,
    SACOptions,
    TD3Options,
)
from rltrainer.api.options.on_policy import (
    A2COptions,
    A3COptions,
    APPOOptions,
    IMPALAOptions,
    PGOptions,
    PPOOptions,
)

OPTIONS: dict[str, type[Options]] = {
    "A2C": A2COptions,
    "A3C": A3COptions,
    "APPO": APPOOptions,
    "ApexDDPG": ApexDDPGOptions,
    "ApexDQN": ApexDQNOptions,
    "DDPG": DDPGOptions,
    "DQN": DQNOptions,
    "IMPALA": IMPALAOptions,
    "PG": PGOptions,
    "PPO": PPOOptions,
    "ParametricDQN": ParametricDQNOptions,
    "QRDQN": QRDQNOptions,
    "Rainbow": RainbowOptions,
    "SAC": SACOptions,
    "TD3": TD3Options,
}
"""By the name that `run` takes."""

_EVERY: dict[str, Any] = {
    name: (field.annotation, field)
    for options in OPTIONS.values()
    for name, field in options.model_fields.items()
    if name not in Options.model_fields
}
VOCABULARY: type[Options] = create_model("VOCABULARY", __base__=Options, **_EVERY)
"""Every option of every algorithm: what one's own may have. Which it has is known only where it can be imported, and
its defaults too."""
