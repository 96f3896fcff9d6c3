"""Where the parts of a Dict or Tuple observation lie in the one vector that it is stored as."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gymnasium import Space, spaces
from gymnasium.spaces.utils import flatdim
from torch import Tensor

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
    where: slice
    """Its elements of the vector."""

    def of(self, obs: Tensor) -> Tensor:
        """Its elements [..., n] of observations [..., N]."""
        return obs[..., self.where]


def layout(structure: Space[Any]) -> list[Part]:
    """The leaves of a Dict or Tuple, nested ones too, in the order in which gymnasium's `flatten` puts them.

    Raises RunError, permanent, for a leaf that has no fixed number of numbers.
    """
    parts: list[Part] = []
    stop = 0
    for path, leaf in _leaves(structure, ()):
        start, stop = stop, stop + flatdim(leaf)
        parts.append(Part(path, leaf, slice(start, stop)))
    return parts


def find(structure: Space[Any] | None, name: str) -> Part | None:
    """The part `name` at the top of a Dict; None where there is none. Raises RunError where it has parts itself."""
    if not isinstance(structure, spaces.Dict) or name not in structure.spaces:
        return None
    for part in layout(structure):
        if part.path == (name,):
            return part
    raise RunError(
        "InvalidOption", f"{name} in the observation space must be one array, not {structure[name]}", permanent=True
    )


def unsupported(space: Space[Any]) -> RunError:
    """The error for an observation space that no network here can read."""
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
            raise unsupported(space)
