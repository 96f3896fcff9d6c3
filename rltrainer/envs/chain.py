"""An environment and the wrappers around it."""

from typing import Any

import gymnasium
from gymnasium.vector import VectorWrapper

EnvState = dict[str, Any]
"""Arrays and JSON values by name."""


class NotRestoredError(Exception):
    """An environment cannot go on from a saved state; the message says why."""


def wrapper_chain(env: Any) -> list[Any]:
    """Return the wrappers of an environment or a vector from the outside in, and the innermost one at the end."""
    chain = [env]
    while isinstance(chain[-1], gymnasium.Wrapper | VectorWrapper):
        chain.append(chain[-1].env)
    return chain
