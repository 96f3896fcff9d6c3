"""Environments that fail: errors that name the environment, and the package that would bring one that cannot be had."""

import importlib
import logging
from collections.abc import Callable
from types import ModuleType

from rltrainer.errors import RunError, install
from rltrainer.foreign import caught

log = logging.getLogger(__name__)

EXTRAS = {
    "ale_py": "atari",
    "envpool": "envpool",
    "gymnasium.envs.box2d": "box2d",
    "gymnasium.envs.mujoco": "mujoco",
    "minatar": "minatar",
}
"""The extra of this package that installs what the environments of a module need."""


def extra_of(module: str) -> str | None:
    """Return the extra that installs what environments of `module`, or of an entry point in it, need; None if none."""
    return next((extra for prefix, extra in EXTRAS.items() if (module + ".").startswith(prefix + ".")), None)


def import_for(env: str, module: str) -> ModuleType:
    """Import the module that brings environment `env`. Raises RunError, permanent, where that fails."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = extra_of(module)
        if extra is not None:
            raise missing_extra(env, extra) from None
        if error.name and (module + ".").startswith(error.name + "."):
            raise not_found(env, f"there is no module {error.name}") from None
        raise failed(env, f"importing {module}", error) from error
    except BaseException as error:
        raise failed(env, f"importing {module}", error) from error


def missing_extra(env: str, extra: str) -> RunError:
    """Return the error for an environment whose package is not installed."""
    return RunError(
        "EnvironmentNotFound",
        f'environment "{env}" needs a package that is not installed: {install(extra)}',
        permanent=True,
    )


def not_found(env: str, why: str) -> RunError:
    """Return the error for a name that no environment has."""
    return RunError(
        "EnvironmentNotFound",
        f'environment "{env}" not found: {why.rstrip(".")}. '
        "Use a Gymnasium id such as CartPole-v1, or package.module:Class with the package in the image",
        permanent=True,
    )


def failed(env: str, doing: str, error: BaseException) -> RunError:
    """Return the error for an environment that raised `error` before it took its first step.

    Raises `error` again where it is none of the environment's.
    """
    message = caught(error).sentence(f"environment {env} failed in {doing}")
    return RunError("EnvironmentFailed", message, permanent=True)


def close(close_envs: Callable[[], None], env: str, place: str = "") -> None:
    """Close environments of the name `env`. One that fails in it is logged: nothing more is asked of it."""
    try:
        close_envs()
    except BaseException as error:
        log.warning("%s", caught(error).sentence(f"environment {env} failed in close()", place))
