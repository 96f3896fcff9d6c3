"""Environments that Python code hands over, as a class or a function, under a name of this process."""

import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from rltrainer.envs.failures import not_found
from rltrainer.envs.imported_envs import ImportedKind
from rltrainer.envs.kind import EnvKind

MakeEnv = Callable[..., Any]
"""A class of environments or of vectors, or a function that makes an environment from keyword arguments."""

_given: dict[str, MakeEnv] = {}
"""What was handed over, by name."""


def name_of(make: object) -> str:
    """Return the name by which runs, checkpoints and workers know `make`.

    That is module:Class where any process can import it. Else `make` is noted here under a name with a bracket in it,
    which no other process knows by itself: workers are sent what it makes. Raises TypeError for what makes nothing.
    """
    if isinstance(make, gymnasium.Env | VectorEnv):
        known = f'its name, "{make.spec.id}", its' if make.spec else "its"
        raise TypeError(
            f"env is an environment, {make}, of which several are needed: give {known} class, or a function that makes "
            "one, as in env=lambda: MyEnv(size=3)"
        )
    if not callable(make):
        raise TypeError(f"env takes a name, a class or a function that makes an environment, not {make!r}")
    module = getattr(make, "__module__", None) or type(make).__module__
    name = getattr(make, "__qualname__", None) or type(make).__qualname__
    if getattr(sys.modules.get(module), name, None) is make:
        return f"{module}:{name}"
    return _noted(f"{module}:{name}" if "<" in name else f"{module}:<{name}>", make)


def _noted(name: str, make: MakeEnv) -> str:
    """Note `make` under `name`, or under that with a number where it is another's."""
    for number in count(1):
        numbered = name if number == 1 else f"{name}-{number}"
        if _given.setdefault(numbered, make) is make:
            return numbered
    raise AssertionError


def is_given(name: str) -> bool:
    """Return whether `name` is one that only the process knows which was handed the environment."""
    return "<" in name


def is_known(name: str) -> bool:
    """Return whether environments of `name` may be made here."""
    return not is_given(name) or name in _given


def find(name: str) -> EnvKind | None:
    """Return how an environment that was handed over is made; None for any other name. Raises RunError."""
    if not is_given(name):
        return None
    if name not in _given:
        raise not_found(
            name, "it is a class or a function of the process that was given it. In Python, give it again, as env"
        )
    return ImportedKind(_given[name])
