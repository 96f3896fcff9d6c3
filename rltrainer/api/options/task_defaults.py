"""The options of a run once its task is known: a default may depend on the environment's spaces.

A table, `by_task`, stands at each algorithm's options. What a document sets is never touched.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from rltrainer.api.options.base import TASKS, Options, Task

AnyOptions = TypeVar("AnyOptions", bound=Options)


def options_for_task(options: type[AnyOptions], config: Mapping[str, Any], tasks: Collection[Task]) -> AnyOptions:
    """Return `config`, options as a document sets them, completed by the defaults of these kinds of task.

    Raises pydantic's ValidationError.
    """
    said = options.model_validate(config)
    return options.model_validate({**dict(config), **task_defaults(options, said.model_fields_set, tasks)})


def task_defaults(options: type[Options], said: Collection[str], tasks: Collection[Task]) -> dict[str, Any]:
    """Return the defaults, by field, that these kinds of task change. What is `said` has none, nor has its schedule,
    which would replace it."""
    merged: dict[str, Any] = {}
    for task in TASKS:
        merged |= options.by_task.get(task, {}) if task in tasks else {}
    return {name: value for name, value in merged.items() if name not in said and _replaced(name) not in said}


def task_free_defaults(options: type[Options]) -> dict[str, Any]:
    """Return the options of a document, by their names there, for which no task has other defaults than any.

    A schedule that is unset for most tasks is held off by the option that it would replace.
    """
    names = {name for values in options.by_task.values() for name in values}
    unset = {name for name in names if options.model_fields[name].default is None}
    fields = {name: options.model_fields[name] for name in sorted(names - unset | {_replaced(name) for name in unset})}
    return {field.alias or name: field.default for name, field in fields.items()}


def _replaced(name: str) -> str:
    """Return the option that `name` replaces, if it is a schedule."""
    return name.removesuffix("_schedule")


def options_of_checkpoint(options: type[AnyOptions], trained: Mapping[str, Any]) -> AnyOptions:
    """Return the options that a checkpoint was trained with.

    `trained` is what it says of its run: all of them are under "options", where it has that. Checkpoints of before hold
    under "config" those that the document set: all others had their defaults, as they were then.
    """
    if "options" in trained:
        return options.model_validate(trained["options"])
    return options.model_validate({**former_defaults(options, trained["config"]), **trained["config"]})


def former_defaults(options: type[Options], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of `options`, by field, that have changed since, but those that `config` sets."""
    said = options.model_validate(config).model_fields_set
    return {name: value for name, value in options.former.items() if name not in said}


def options_going_on(current: AnyOptions, document: Mapping[str, Any], trained: Mapping[str, Any]) -> AnyOptions:
    """Return the options of a run that goes on from a checkpoint of its algorithm, which says `trained` of its own.

    What the `document` sets holds. A default is what it was there, whatever it has become since; an option that the
    document set then and leaves out now has the default of today, which `current` has.
    """
    options = type(current)
    before = options_of_checkpoint(options, trained)
    said = {
        name for config in (document, trained["config"]) for name in options.model_validate(config).model_fields_set
    }
    kept = {name: getattr(before, name) for name in options.model_fields if name not in said}
    return options.model_validate({**dict(current), **kept})
