"""Observations of several parts, Dict or Tuple, as one vector: how they are flattened, and where each part lies."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium import Env, Space, spaces
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers import vector as vector_wrappers
from torch import Tensor

from rltrainer.envs.chain import wrapper_chain
from rltrainer.envs.observations import check_observation
from rltrainer.errors import RunError

ACTION_MASK = "action_mask"
"""Key of a Dict observation that says which actions are legal: 1 where one is, 0 where it is not."""
AVAIL_ACTIONS = "avail_actions"
"""Key of a Dict observation that describes each action by a row of features."""


@dataclass(frozen=True)
class Part:
    """One leaf of a Dict or Tuple space. Discrete leaves lie in the vector as one-hot vectors."""

    path: tuple[str, ...]
    """Keys of Dicts and positions in Tuples that lead to it."""
    space: Space[Any]
    elements: slice
    """Its elements of the vector."""

    @property
    def size(self) -> int:
        """Number of its elements, n."""
        return int(self.elements.stop - self.elements.start)

    def of(self, obs: Tensor) -> Tensor:
        """Return its elements [..., n] of observations [..., N]."""
        return obs[..., self.elements]


def layout(structure: Space[Any]) -> list[Part]:
    """Return the leaves of a Dict or Tuple, nested ones too, in the order in which Gymnasium's `flatten` puts them.

    Raises RunError, permanent, for a leaf that has no fixed number of elements.
    """
    parts: list[Part] = []
    stop = 0
    for path, leaf in _leaves(structure, ()):
        start, stop = stop, stop + flatdim(leaf)
        parts.append(Part(path, leaf, slice(start, stop)))
    return parts


def find_part(structure: Space[Any] | None, name: str) -> Part | None:
    """Return the leaf `name` at the top of a Dict; None where there is none. Raises RunError where it has parts."""
    if not isinstance(structure, spaces.Dict) or name not in structure.spaces:
        return None
    for part in layout(structure):
        if part.path == (name,):
            return part
    raise RunError(
        "InvalidOption", f"{name} in the observation space must be one array, not {structure[name]}", permanent=True
    )


def unsupported_space(space: Space[Any]) -> RunError:
    """Return the error for an observation space that no network here can read."""
    return RunError(
        "InvalidOption",
        f"the observation space {space} is not supported: use Box, Discrete, MultiDiscrete or MultiBinary, "
        "or a Dict or Tuple of these",
        permanent=True,
    )


def _leaves(space: Space[Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Space[Any]]]:
    match space:
        case spaces.Dict():
            for name, inner in space.spaces.items():
                yield from _leaves(inner, (*path, name))
        case spaces.Tuple():
            for position, inner in enumerate(space.spaces):
                yield from _leaves(inner, (*path, str(position)))
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            yield path, space
        case _:
            raise unsupported_space(space)


def flattened(env: Env[Any, Any]) -> Env[Any, Any]:
    """Return `env`, with observations of several parts flattened to one vector [N].

    Raises RunError, permanent, for a space that is not supported.
    """
    layout(env.observation_space)  # raises where nothing here can read it
    return FlattenedEnv(env) if isinstance(env.observation_space, spaces.Dict | spaces.Tuple) else env


def flat_space(structure: Space[Any]) -> spaces.Box:
    """Return the space of a Dict or Tuple flattened to one vector [N], in the smallest type that holds its arrays.

    One-hot vectors and bits fit into bytes: beside an image of bytes they do not make integers of it.
    """
    leaves = [leaf for _, leaf in _leaves(structure, ())]
    dtype = np.result_type(*(leaf.dtype if isinstance(leaf, spaces.Box) else np.uint8 for leaf in leaves))
    flat = cast("spaces.Box", flatten_space(structure))
    return spaces.Box(flat.low.astype(dtype), flat.high.astype(dtype), dtype=dtype.type)


def flattened_vector(envs: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Return `envs`, with observations of several parts flattened to vectors [B, N].

    Raises RunError, permanent, for a space that is not supported.
    """
    layout(envs.single_observation_space)  # raises where nothing here can read it
    return FlattenedVectorEnv(envs) if isinstance(envs.single_observation_space, spaces.Dict | spaces.Tuple) else envs


def structure_of(envs: VectorEnv[Any, Any, Any]) -> Space[Any] | None:
    """Return the Dict or Tuple space that observations were flattened from; None where they were not."""
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, vector_wrappers.FlattenObservation):
            return envs.env.single_observation_space
        envs = envs.env
    for env in getattr(envs, "envs", ()):
        for wrapper in wrapper_chain(env):
            if isinstance(wrapper, FlattenedEnv):
                return wrapper.env.observation_space
    return None


class FlattenedEnv(FlattenObservation[Any, Any, Any]):
    """An environment whose observations of several parts are flattened to one vector."""

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = flat_space(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Flatten `observation`. Raises Failure that names the part that is not as the space says."""
        check_observation(self.env.observation_space, observation)
        vector: Any = flatten(self.env.observation_space, observation)
        return vector.astype(self.observation_space.dtype, copy=False)


class FlattenedVectorEnv(vector_wrappers.FlattenObservation):
    """A vector of one's own, whose observations of several parts are flattened to vectors [B, N]."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(envs)
        self.single_observation_space = flat_space(envs.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)

    def observations(self, observations: Any) -> Any:
        """Flatten `observations`. Raises Failure that names the part that is not as the space says."""
        check_observation(self.env.single_observation_space, observations, (self.num_envs,))
        return super().observations(observations).astype(self.observation_space.dtype, copy=False)
