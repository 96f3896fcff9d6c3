"""What a kind of environment is: how environments of some names are made."""

from collections.abc import Mapping
from typing import Any, Protocol

from gymnasium import Env
from gymnasium.vector import VectorEnv

EnvConfig = Mapping[str, Any]
"""Keyword arguments that an environment is made with."""


class EnvKind(Protocol):
    """How to make the environments of one name. A kind says only what differs from the defaults here."""

    @property
    def module(self) -> str:
        """Module or entry point of its code, by which a missing package is told; "" where none can be missing."""
        return ""

    @property
    def evaluation_config(self) -> EnvConfig:
        """Options with which whole episodes are played for the environment's own score."""
        return {}

    def clips_rewards(self, config: EnvConfig) -> bool:
        """Return whether rewards are to be clipped to [-1, 1] before they are learned from."""
        return False

    def vector(self, num_envs: int, config: EnvConfig) -> VectorEnv[Any, Any, Any] | None:
        """Make `num_envs` environments as the vector that comes with them; None where none does."""
        return None

    def single(self, config: EnvConfig) -> Env[Any, Any] | None:
        """Make one environment; None where there are vectors alone."""
