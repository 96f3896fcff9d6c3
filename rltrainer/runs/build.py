"""What a document asks to be trained: an algorithm with its options, in an environment."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from gymnasium import spaces as gym_spaces
from pydantic import ValidationError

from rltrainer import algorithms
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OPTIONS, Options, Task, complaint, options_for_task, options_going_on
from rltrainer.core.types import Spaces
from rltrainer.envs.layout import layout
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.networks.encoders import is_image
from rltrainer.sampling.worker import WorkerConfig

CONTROL_SIZE = 8
"""Numbers of an observation from which on a task with continuous actions is one of control, as MuJoCo's are."""


def worker_config(spec: ExperimentSpec) -> WorkerConfig:
    """Return what workers and a learner are built of, all but the seed. Raises RunError for what cannot be trained."""
    algorithm = algorithms.load(spec.run)
    checked(algorithm.options, spec.config, ())  # before an environment is made
    source = EnvSource(spec.env, spec.env_config)
    spaces = source.spaces()
    options = checked(algorithm.options, spec.config, tasks_of(spaces))
    try:
        algorithm.nets(spaces, options)  # raises where the algorithm cannot act in these spaces
    except RunError as error:
        if "action space" not in error.message:
            raise
        message = f"{spec.run} in {spec.env}: {error.message}{_others(spaces)}"
        raise RunError(error.reason, message, error.permanent) from None
    return WorkerConfig(algorithm, source, spaces, options, seed=0)


def _others(spaces: Spaces) -> str:
    """Name the algorithms that act in these spaces."""
    able = [name for name in sorted(OPTIONS) if _acts(name, spaces)]
    return f". These actions are taken by {', '.join(able)}" if able else ""


def _acts(name: str, spaces: Spaces) -> bool:
    algorithm = algorithms.load(name)
    try:
        algorithm.nets(spaces, options_for_task(algorithm.options, {}, tasks_of(spaces)))
    except (RunError, ValidationError):
        return False
    return True


def going_on(config: WorkerConfig, spec: ExperimentSpec, trained: Mapping[str, Any]) -> WorkerConfig:
    """Return `config` of the document `spec` for a run that goes on from a checkpoint, which says `trained` of its own.

    Of the same algorithm, a default is what it was there, so that the networks fit, and a run changes none in between.
    """
    if trained["run"] != spec.run:
        return config
    options = options_going_on(config.options, spec.config, trained)
    config.algorithm.nets(config.spaces, options)
    return replace(config, options=options)


def checked(options: type[Options], config: Mapping[str, Any], tasks: tuple[Task, ...]) -> Options:
    """Return the options of a document, completed by the defaults of its kinds of task. Raises RunError, permanent."""
    try:
        return options_for_task(options, config, tasks)  # one's own algorithm may have defaults of its own
    except ValidationError as error:
        raise RunError("InvalidOption", complaint(error, "spec.config", options), permanent=True) from None


def tasks_of(spaces: Spaces) -> tuple[Task, ...]:
    """Return the kinds of task that an environment of these spaces is."""
    return tuple(_tasks(spaces))


def _tasks(spaces: Spaces) -> Iterator[Task]:
    observed = [part.space for part in layout(spaces.structure)] if spaces.structure else [spaces.observations]
    images, continuous = any(map(is_image, observed)), isinstance(spaces.actions, gym_spaces.Box)
    if images:
        yield "images"
    if continuous:
        yield "continuous"
        if not images and prod(spaces.observations.shape or ()) >= CONTROL_SIZE:
            yield "control"
