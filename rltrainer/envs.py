"""Environments: found by name, made as vectors, and blamed by name when they fail."""

import importlib
import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium
from gymnasium import Env, Space, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rltrainer.errors import RunError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnvSource:
    """An environment by name, and the keyword arguments it is made with. Small enough to send to any worker."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _class(self) -> Any:
        """The class, where the name is package.module:Class, else None. Gymnasium too has names with a colon."""
        module_name, colon, attribute = self.name.partition(":")
        if not colon:
            return None
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name + ".").startswith(error.name + "."):
                raise self._not_found(f"there is no module {error.name}") from None
            raise self._failed(f"importing {module_name}", error) from error
        except Exception as error:
            raise self._failed(f"importing {module_name}", error) from error
        found = getattr(module, attribute, None)
        if found is None and attribute not in gymnasium.registry:
            raise self._not_found(f"module {module_name} has no {attribute}, and registers no environment of that name")
        return found

    def vector(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """`num_envs` environments as one: the environment's own vector where it has one, else stepped one by one.

        Raises RunError, permanent, if there is no such environment or it cannot be made.
        """
        try:
            envs = self._make_vector(num_envs)
        except RunError:
            raise
        except gymnasium.error.UnregisteredEnv as error:
            raise self._not_found(str(error)) from None
        except Exception as error:
            raise self._failed("making it", error) from error
        if autoreset_mode(envs) not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise RunError("EnvironmentFailed", f"environment {self.name} does not reset itself (autoreset_mode)", True)
        return envs

    def _make_vector(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        # copy=False: each observation is copied once, into the fragment, and not before
        options = {"copy": False, "autoreset_mode": AutoresetMode.SAME_STEP}
        if self._class is None:
            spec = gymnasium.spec(self.name)
            if spec.vector_entry_point is not None:
                return gymnasium.make_vec(self.name, num_envs, "vector_entry_point", **self.config)
            return gymnasium.make_vec(
                self.name,
                num_envs,
                "sync",
                vector_kwargs=options,
                wrappers=[flattened],  # type: ignore[list-item]
                **self.config,
            )
        if isinstance(self._class, type) and issubclass(self._class, VectorEnv):
            own: VectorEnv[Any, Any, Any] = self._class(num_envs=num_envs, **self.config)  # type: ignore[call-arg]
            return own
        return SyncVectorEnv([lambda: flattened(self._class(**self.config))] * num_envs, **options)  # type: ignore[arg-type]

    def single(self, render_mode: str | None = None) -> Env[Any, Any]:
        """One environment. Raises RunError, permanent, if there is none of that name or it cannot be made."""
        config = self.config if render_mode is None else {**self.config, "render_mode": render_mode}
        try:
            env = gymnasium.make(self.name, **config) if self._class is None else self._class(**config)
        except gymnasium.error.UnregisteredEnv as error:
            raise self._not_found(str(error)) from None
        except RunError:
            raise
        except Exception as error:
            raise self._failed("making it", error) from error
        return flattened(env)

    def spaces(self) -> "Spaces":
        """The spaces of one environment, made, reset once and closed for this."""
        env = self.vector(1)
        try:
            env.reset(seed=0)
            return Spaces(env.single_observation_space, env.single_action_space)
        except Exception as error:
            raise self._failed("its first reset", error) from error
        finally:
            env.close()

    def _not_found(self, why: str) -> RunError:
        return RunError(
            "EnvironmentNotFound",
            f'environment "{self.name}" not found: {why.rstrip(".")}. '
            "Use a Gymnasium id such as CartPole-v1, or package.module:Class with the package in the image",
            permanent=True,
        )

    def _failed(self, doing: str, error: Exception) -> RunError:
        return RunError(
            "EnvironmentFailed", f"environment {self.name} failed in {doing}: {type(error).__name__}: {error}", True
        )


@dataclass(frozen=True)
class Spaces:
    """What one environment shows and takes."""

    observations: Space[Any]
    actions: Space[Any]


def flattened(env: Env[Any, Any]) -> Env[Any, Any]:
    """`env` with observations of several parts as one vector."""
    if isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
        return gymnasium.wrappers.FlattenObservation(env)
    return env


def autoreset_mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How `envs` begin the next episode. Those that do not say do it in the next step, Gymnasium's default."""
    return AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
