"""Every random state of a run from its one seed."""

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """Who draws. Different roles and indices never share a stream."""

    NETWORKS = 0
    LEARNER = 1
    ACTIONS = 2
    ENVIRONMENT = 3
    REPLAY = 4
    EVALUATION = 5


def derived_seed(seed: int, role: Role, index: int = 0, generation: int = 0) -> int:
    """A seed of 31 bits for `role` number `index`; `generation` tells its replacements and restarts apart."""
    sequence = np.random.SeedSequence([seed, role, index, generation])
    return int(sequence.generate_state(1)[0]) & 0x7FFFFFFF
