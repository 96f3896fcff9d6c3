"""Environments of Gymnasium's registry, by id, or by module:id where importing the module registers it."""

import re
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rltrainer.envs.failures import import_for, not_found
from rltrainer.envs.kind import EnvConfig, EnvKind

REGISTRARS = {"ALE": "ale_py", "MinAtar": "minatar.gym"}
"""The module that registers the environments of a namespace."""


def find(name: str) -> EnvKind:
    """Return how the registered environment is made. Raises RunError, or UnregisteredEnv where there is none."""
    return GymnasiumKind(spec_of(name))


def spec_of(name: str) -> EnvSpec:
    """Look up the registered environment, with the module that registers its namespace imported."""
    namespace, slash, _ = name.partition("/")
    if slash and namespace in REGISTRARS:
        module = import_for(name, REGISTRARS[namespace])
        if not any(known.startswith(namespace + slash) for known in gymnasium.registry):
            module.register_envs()
    plain = name.rpartition(":")[2]
    if versions := [known for known in gymnasium.registry if re.fullmatch(re.escape(plain) + r"-v\d+", known)]:
        newest = max(versions, key=lambda known: int(known.rpartition("-v")[2]))
        raise not_found(name, f'it has a version: "{newest}"')
    return gymnasium.spec(plain)


@dataclass(frozen=True)
class GymnasiumKind(EnvKind):
    """A registered environment."""

    spec: EnvSpec
    """It travels to other processes, so that what a script registers is known there."""

    @property
    def module(self) -> str:
        """Entry point of its code."""
        return str(self.spec.entry_point)

    def vector(self, num_envs: int, config: EnvConfig) -> VectorEnv[Any, Any, Any] | None:
        """Make the vector that is registered beside the environment, if one is."""
        if self.spec.vector_entry_point is None:
            return None
        return gymnasium.make_vec(self.spec, num_envs, "vector_entry_point", **config)

    def single(self, config: EnvConfig) -> Env[Any, Any]:
        """Make one environment."""
        return gymnasium.make(self.spec, **config)
