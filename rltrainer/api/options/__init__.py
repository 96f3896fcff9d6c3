"""The options of every algorithm: one vocabulary, typed, bounded and documented once.

An option has one name, one type and one meaning in every algorithm; only its default differs. The CRD holds their
union, the command line and the operator check the exact set of the algorithm named. Imports neither torch nor Ray.
"""

from rltrainer.api.base import Natural
from rltrainer.api.options.base import TASKS, Count, Options, Task
from rltrainer.api.options.groups import ReplayBuffer
from rltrainer.api.options.on_policy import A2COptions, ActorCriticOptions, PPOOptions
from rltrainer.api.options.parsing import OptionError, complaint, describe, for_algorithm, option_names, parse_options
from rltrainer.api.options.registry import OPTIONS
from rltrainer.api.options.task_defaults import (
    options_for_task,
    options_going_on,
    options_of_checkpoint,
    task_defaults,
    task_free_defaults,
)

__all__ = [
    "OPTIONS",
    "TASKS",
    "A2COptions",
    "ActorCriticOptions",
    "Count",
    "Natural",
    "OptionError",
    "Options",
    "PPOOptions",
    "ReplayBuffer",
    "Task",
    "complaint",
    "describe",
    "for_algorithm",
    "option_names",
    "options_for_task",
    "options_going_on",
    "options_of_checkpoint",
    "parse_options",
    "task_defaults",
    "task_free_defaults",
]
