"""Environments: found by name, made as vectors, and blamed by name when they fail."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, Space, spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers import vector as vector_wrappers

from rltrainer.core.types import Spaces
from rltrainer.envs import atari
from rltrainer.envs.pool import Pool
from rltrainer.envs.state import layers
from rltrainer.envs.vectorize import How, vectorized
from rltrainer.errors import RunError

REGISTRARS = {"ALE": "ale_py", "MinAtar": "minatar.gym"}
"""The module that brings the environments of a namespace."""
EXTRAS = {
    "ale_py": "atari",
    "envpool": "envpool",
    "gymnasium.envs.box2d": "box2d",
    "gymnasium.envs.mujoco": "mujoco",
    "minatar": "minatar",
}
"""The extra of this package that brings what the environments of a module need."""


@dataclass(frozen=True)
class EnvSource:
    """An environment by name, and the keyword arguments it is made with. Small enough to send to any worker.

    Names: a Gymnasium id, module:id where importing the module registers it, package.module:Class, or envpool:task.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)

    def vector(self, num_envs: int, how: How = "sync", cpus: int = 1) -> VectorEnv[Any, Any, Any]:
        """`num_envs` environments as one: the environment's own vector where it has one, else as `how` says.

        `cpus` is how many CPUs there are for it. Raises RunError, permanent, if there is no such environment or it
        cannot be made.
        """
        with self._blamed("making it"):
            envs = self._own_vector(num_envs)
            if envs is None:
                return vectorized(self.single, num_envs, how, cpus)
        if autoreset_mode(envs) != AutoresetMode.NEXT_STEP:
            envs.close()
            raise RunError(
                "EnvironmentFailed",
                f"environment {self.name} is a vector of autoreset_mode {autoreset_mode(envs).value}, which hides what "
                "episodes end in: it must begin the next episode in the next step (NEXT_STEP, Gymnasium's default)",
                permanent=True,
            )
        if isinstance(envs.single_observation_space, spaces.Dict | spaces.Tuple):
            return vector_wrappers.FlattenObservation(envs)
        return envs

    def _own_vector(self, num_envs: int) -> VectorEnv[Any, Any, Any] | None:
        """The vector that the environment brings, if it brings one."""
        if self._task is not None:
            return Pool(self._task, num_envs, **self.config)
        if self._vector_class is not None:
            return self._vector_class(num_envs=num_envs, **self.config)  # type: ignore[call-arg]
        if self._class is not None or self._spec.vector_entry_point is None:
            return None
        config = self.config
        if atari.is_atari(self._spec):
            atari.check(config)
            config = {**config, "reward_clipping": False}  # whoever learns from them clips them
        return gymnasium.make_vec(self._spec, num_envs, "vector_entry_point", **config)

    def single(self, render_mode: str | None = None) -> Env[Any, Any]:
        """One environment. Raises RunError, permanent, if there is none of that name or it cannot be made."""
        config = self.config if render_mode is None else {**self.config, "render_mode": render_mode}
        with self._blamed("making it"):
            if self._task is not None or self._vector_class is not None:
                return SingleEnvView(EnvSource(self.name, config).vector(1))
            if self._class is not None:
                return flattened(self._class(**config))
            if atari.is_atari(self._spec):
                atari.check(self.config)
                return atari.single(self._spec, self.config, render_mode)
            return flattened(gymnasium.make(self._spec, **config))

    def for_evaluation(self) -> "EnvSource":
        """The environment as it is judged by: an Atari game is played whole, for its own score."""
        return EnvSource(self.name, {**self.config, **atari.SCORED}) if self._is_atari else self

    @property
    def clips_rewards(self) -> bool:
        """Whether its rewards are to be learnt from as -1, 0 or 1: those of Atari games, unless the config says no."""
        return self._is_atari and bool(self.config.get("reward_clipping", True))

    @property
    def _is_atari(self) -> bool:
        with self._blamed("looking it up"):
            return self._task is None and self._class is None and atari.is_atari(self._spec)

    def spaces(self) -> "Spaces":
        """The spaces of one environment, made, reset once and closed for this."""
        env = self.vector(1)
        try:
            env.reset(seed=0)
            return Spaces(env.single_observation_space, env.single_action_space, structure(env))
        except Exception as error:
            raise self._failed("its first reset", error) from error
        finally:
            env.close()

    @property
    def _task(self) -> str | None:
        """EnvPool's name of it, if it is EnvPool's."""
        module_name, _, task = self.name.partition(":")
        if module_name != "envpool":
            return None
        self._import(module_name)
        return task

    @property
    def _vector_class(self) -> type[VectorEnv[Any, Any, Any]] | None:
        """The class, where it is one of vectors."""
        found = self._class
        return found if isinstance(found, type) and issubclass(found, VectorEnv) else None

    @cached_property
    def _class(self) -> Any:
        """The class, where the name is package.module:Class, else None. Gymnasium too has names with a colon."""
        module_name, colon, attribute = self.name.partition(":")
        if not colon:
            return None
        module = self._import(module_name)
        found = getattr(module, attribute, None)
        if found is None and attribute not in gymnasium.registry:
            raise self._not_found(f"module {module_name} has no {attribute}, and registers no environment of that name")
        return found

    @cached_property
    def _spec(self) -> EnvSpec:
        """What Gymnasium knows of it. It travels to other processes, so that what a script registers is known there."""
        namespace, slash, _ = self.name.partition("/")
        if slash and namespace in REGISTRARS:
            module = self._import(REGISTRARS[namespace])
            if not any(known.startswith(namespace + slash) for known in gymnasium.registry):
                module.register_envs()
        return gymnasium.spec(self.name.rpartition(":")[2])

    def _import(self, module_name: str) -> ModuleType:
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            extra = extra_of(module_name)
            if extra is not None:
                raise self._missing(extra) from None
            if error.name and (module_name + ".").startswith(error.name + "."):
                raise self._not_found(f"there is no module {error.name}") from None
            raise self._failed(f"importing {module_name}", error) from error
        except Exception as error:
            raise self._failed(f"importing {module_name}", error) from error

    @contextmanager
    def _blamed(self, doing: str) -> Iterator[None]:
        """Whatever goes wrong within it is a RunError, permanent, that names the environment."""
        try:
            yield
        except RunError:
            raise
        except UnregisteredEnv as error:
            raise self._not_found(str(error)) from None
        except DependencyNotInstalled as error:
            extra = extra_of(str(self._spec.entry_point)) if self._class is None else None
            raise (self._failed(doing, error) if extra is None else self._missing(extra)) from error
        except Exception as error:
            raise self._failed(doing, error) from error

    def _missing(self, extra: str) -> RunError:
        return RunError(
            "EnvironmentNotFound",
            f'environment "{self.name}" needs a package that is not installed: pip install "rl-kubernetes[{extra}]"',
            permanent=True,
        )

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


class Flattened(gymnasium.wrappers.FlattenObservation[Any, Any, Any]):
    """An environment with observations of several parts as one vector."""

    def observation(self, observation: Any) -> Any:
        """`observation` as one vector. Raises ValueError that names the part that is not as the space says."""
        space = self.env.observation_space
        try:
            vector: Any = flatten(space, observation)
        except Exception as error:
            raise ValueError("; ".join(space_errors(space, observation)) or str(error)) from error
        if np.shape(vector) != self.observation_space.shape:
            raise ValueError("; ".join(space_errors(space, observation)))
        return vector


def flattened(env: Env[Any, Any]) -> Env[Any, Any]:
    """`env`, with observations of several parts as one vector."""
    return Flattened(env) if isinstance(env.observation_space, spaces.Dict | spaces.Tuple) else env


def space_errors(space: Space[Any], obs: Any, path: str = "observation") -> Iterator[str]:
    """Each part of `obs` that is not as `space` says, and how."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict) or obs.keys() != space.spaces.keys():
            has = sorted(obs) if isinstance(obs, dict) else type(obs).__name__
            yield f"{path} has {has}, where its space says {sorted(space.spaces)}"
        else:
            for name, part in space.spaces.items():
                yield from space_errors(part, obs[name], f"{path}.{name}")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            yield f"{path} is {type(obs).__name__}, where its space says a tuple of {len(space.spaces)}"
        else:
            for position, part in enumerate(space.spaces):
                yield from space_errors(part, obs[position], f"{path}.{position}")
    elif np.shape(obs) != (space.shape or ()):
        yield f"{path} has shape {np.shape(obs)}, where its space says {space.shape}"
    elif not space.contains(obs):
        yield f"{path} is {obs}, which is not in {space}"


def structure(envs: VectorEnv[Any, Any, Any]) -> Space[Any] | None:
    """The space of several parts that observations were made one vector of, if they were."""
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, vector_wrappers.FlattenObservation):
            return envs.env.single_observation_space
        envs = envs.env
    for env in getattr(envs, "envs", ()):
        for layer in layers(env):
            if isinstance(layer, Flattened):
                return layer.env.observation_space
    return None


class SingleEnvView(gymnasium.Env[Any, Any]):
    """The one environment of a vector of one."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs, self.metadata, self.render_mode = envs, envs.metadata, envs.render_mode
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        obs, _ = self.envs.reset(seed=seed, options=options)
        return obs[0].copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step."""
        obs, reward, terminated, truncated, _ = self.envs.step(np.asarray(action)[None])
        return obs[0].copy(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """Its picture."""
        frames = self.envs.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Closes the vector."""
        self.envs.close()


def extra_of(module_name: str) -> str | None:
    """The extra that brings what the environments of a module need, if one does."""
    return next((extra for prefix, extra in EXTRAS.items() if (module_name + ".").startswith(prefix + ".")), None)


def autoreset_mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How `envs` begin the next episode. Those that do not say do it in the next step, Gymnasium's default."""
    return AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
