"""Environments by package.module:Class: a class of environments or of vectors, or a function that makes one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.vector import VectorEnv

from rltrainer.envs.failures import import_for, not_found
from rltrainer.envs.kind import EnvConfig, EnvKind


def find(name: str) -> EnvKind | None:
    """Import what the name says; None for a name without a colon, or of an id that the module has registered."""
    module_name, colon, attribute = name.partition(":")
    if not colon:
        return None
    make = getattr(import_for(name, module_name), attribute, None)
    if make is not None:
        return ImportedKind(make)
    if attribute in gymnasium.registry:
        return None
    raise not_found(name, f"module {module_name} has no {attribute}, and registers no environment of that name")


@dataclass(frozen=True)
class ImportedKind(EnvKind):
    """What `make` makes from an environment's config: environments, or vectors if it is a class of these."""

    make: Callable[..., Any]

    def vector(self, num_envs: int, config: EnvConfig) -> VectorEnv[Any, Any, Any] | None:
        """Make a vector, where the class is one of vectors."""
        return self.make(num_envs=num_envs, **config) if self._makes_vectors else None

    def single(self, config: EnvConfig) -> Env[Any, Any] | None:
        """Make one environment, unless the class is one of vectors."""
        return None if self._makes_vectors else self.make(**config)

    @property
    def _makes_vectors(self) -> bool:
        return isinstance(self.make, type) and issubclass(self.make, VectorEnv)
