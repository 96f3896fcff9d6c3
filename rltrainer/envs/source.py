"""An environment by name: which kind it is of, and single environments and vectors of it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gymnasium import Env
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.vector import VectorEnv

from rltrainer.core.types import Spaces
from rltrainer.envs import atari_envs, envpool_envs, given_envs, gymnasium_envs, imported_envs
from rltrainer.envs.failures import close, extra_of, failed, missing_extra, not_found
from rltrainer.envs.kind import EnvKind
from rltrainer.envs.layout import flattened, flattened_vector, structure_of
from rltrainer.envs.observations import check_finite, check_observation
from rltrainer.envs.vectorize import SingleEnvView, VectorMode, check_autoreset, vectorized
from rltrainer.errors import RunError

KINDS: tuple[Callable[[str], EnvKind | None], ...] = (
    given_envs.find,
    envpool_envs.find,
    imported_envs.find,
    atari_envs.find,
    gymnasium_envs.find,
)
"""The kinds, in the order in which a name is looked up; the last one knows every other name, or raises."""


@dataclass(frozen=True)
class EnvSource:
    """An environment by name, and the keyword arguments it is made with. Small enough to send to any worker.

    Names: a Gymnasium id, module:id where importing the module registers it, package.module:Class, or envpool:task.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)

    def vector(self, num_envs: int, mode: VectorMode = "sync", cpus: int = 1) -> VectorEnv[Any, Any, Any]:
        """Make `num_envs` environments as one: the vector that comes with them, else one of `mode` on `cpus` CPUs.

        Observations of several parts are flattened to one vector. Raises RunError, permanent, if there is no such
        environment or it cannot be made.
        """
        with self._naming_errors("making it"):
            envs = self.kind.vector(num_envs, copy.deepcopy(self.config))
            if envs is None:
                return vectorized(self.single, num_envs, mode, cpus)
        check_autoreset(self.name, envs)
        return flattened_vector(envs)

    def single(self, render_mode: str | None = None) -> Env[Any, Any]:
        """Make one environment. Raises RunError, permanent, if there is none of that name or it cannot be made."""
        config = self.config if render_mode is None else {**self.config, "render_mode": render_mode}
        with self._naming_errors("making it"):
            env = self.kind.single(copy.deepcopy(config))  # its own: it may change what it is made with
            return SingleEnvView(replace(self, config=config).vector(1)) if env is None else flattened(env)

    def for_evaluation(self) -> "EnvSource":
        """Return the environment that policies are scored in: an Atari game is played whole, for its own score."""
        with self._naming_errors("looking it up"):
            config = self.kind.evaluation_config
        return replace(self, config={**self.config, **config}) if config else self

    @property
    def clips_rewards(self) -> bool:
        """Whether rewards are clipped to [-1, 1] before they are learned from: Atari's, unless the config says no."""
        with self._naming_errors("looking it up"):
            return self.kind.clips_rewards(self.config)

    def spaces(self) -> Spaces:
        """Return the spaces of one environment, made, reset once and closed for this.

        Raises RunError, permanent, where that fails, or what it shows is not as its space says.
        """
        env = self.vector(1)
        try:
            obs, _ = env.reset(seed=0)
            check_observation(env.single_observation_space, obs, batch=(1,))
            check_finite(obs)
            return Spaces(env.single_observation_space, env.single_action_space, structure_of(env))
        except BaseException as error:
            raise failed(self.name, "its first reset", error) from error
        finally:
            close(env.close, self.name)

    @cached_property
    def kind(self) -> EnvKind:
        """How it is made. It travels with the source to other processes."""
        return next(kind for find in KINDS if (kind := find(self.name)) is not None)

    @contextmanager
    def _naming_errors(self, doing: str) -> Iterator[None]:
        """Raise what goes wrong within it as a RunError, permanent, that names the environment."""
        try:
            yield
        except RunError:
            raise
        except UnregisteredEnv as error:
            raise not_found(self.name, str(error)) from None
        except DependencyNotInstalled as error:
            extra = extra_of(self.kind.module)
            raise (failed(self.name, doing, error) if extra is None else missing_extra(self.name, extra)) from error
        except BaseException as error:
            raise failed(self.name, doing, error) from error
