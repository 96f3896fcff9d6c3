"""`rltrainer list`, `describe` and `validate`: what there is, and whether a document is right."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rltrainer import rllib_compat
from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment, Rollout, read_document, read_documents
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OPTIONS, TASKS, OptionError, Options, Task, for_algorithm, option_names, task_defaults
from rltrainer.api.rollout import RolloutSpec
from rltrainer.cli.common import as_json, complain
from rltrainer.rllib_compat.environments import translate_environment


def describe_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `describe`."""
    sub.add_argument("algorithm", metavar="ALGORITHM", help=f"one of {', '.join(sorted(OPTIONS))}")
    sub.add_argument("--env", help="show the defaults that a run in this environment has")
    sub.add_argument("--env-config", metavar="JSON", help="arguments of that environment")


def validate_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `validate`."""
    sub.add_argument(
        "-f", "--file", required=True, nargs="+", action="extend", metavar="FILE", help="documents, one or several"
    )


def validate(arguments: argparse.Namespace) -> int:
    """Check documents, all of them, and say what each would run."""
    code = 0
    for path in arguments.file:
        try:
            for document, notes in documents(path):
                lines = [f"{path} is valid: {title(document)}", *(f"  {line}" for line in (*plan(document), *notes))]
                sys.stdout.write("\n".join(lines) + "\n")
        except (DocumentError, OptionError) as error:
            code = complain(str(error), 2)
    return code


def documents(path: str) -> Iterator[tuple[Experiment | Rollout, list[str]]]:
    """Read the documents in a file, of RLlib's named experiments each as one, and notes on each.

    Raises DocumentError or OptionError."""
    for file in read_documents(path):
        if not rllib_compat.is_rllib_document(file.content):
            yield read_document(file), []
            continue
        for each in rllib_compat.translate_experiments(file.content, path):
            yield Experiment.parse(each.document, where=path), each.notes


def title(document: Experiment | Rollout) -> str:
    """Name a document in a few words."""
    spec = document.spec
    if isinstance(spec, ExperimentSpec):
        return f"{spec.run} on {spec.env}"
    return f"a rollout of {spec.checkpoint or f'RLExperiment {spec.experiment}, {spec.which}'}"


def plan(document: Experiment | Rollout) -> Iterator[str]:
    """Tell what would be run, line by line."""
    if isinstance(document, Rollout):
        yield from _rollout_plan(document.spec)
    else:
        yield from _training_plan(document.spec)


def _rollout_plan(spec: RolloutSpec) -> Iterator[str]:
    actions = "the best actions" if spec.deterministic else "actions as in training"
    steps = "" if spec.steps is None else f", none begun after {spec.steps:,} steps"
    yield f"episodes     {spec.episodes:,}{steps}, {actions}, seed {spec.seed}"
    if kept := [name for name in ("out", "video") if getattr(spec, name)]:
        yield f"keeps        {' and '.join(kept)}"


def _training_plan(spec: ExperimentSpec) -> Iterator[str]:
    options = spec.options()
    yield f"options      {_options(spec.config) or 'all as they are by default'}"
    yield f"stops at     {' or '.join(_conditions(spec.stop)) or 'nothing: until it is ended'}"
    yield f"samples in   {_samplers(options)}"
    if spec.evaluation is not None:
        yield f"evaluates    {spec.evaluation.episodes} episodes every {spec.evaluation.interval} iterations"
    yield f"checkpoints  {_checkpoints(spec)}"
    if spec.tune is not None:
        yield from _search_plan(spec.tune)


def _search_plan(tune: Any) -> Iterator[str]:
    yield f"trials       {trials(tune)}, by {tune.mode} {tune.metric}"
    yield f"search       {tune.search.name}; scheduler {tune.scheduler.name}"
    for name, domain in tune.space.items():
        yield f"  {name:18} {domain.kind} {json.dumps(domain.arguments)}"


def trials(tune: Any) -> int:
    """Count the trials of a search: numSamples, for each point of its grids."""
    count: int = tune.num_samples
    for domain in tune.space.values():
        count *= len(domain.arguments) if domain.kind == "grid_search" else 1
    return count


def _options(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in config.items())


def _conditions(stop: BaseModel) -> list[str]:
    conditions = stop.model_dump(by_alias=True, exclude_none=True)
    return [
        f"{name} >= {value:,}" if isinstance(value, int) else f"{name} >= {value:g}"
        for name, value in conditions.items()
    ]


def _samplers(options: Options) -> str:
    width = f"{options.num_envs_per_worker} environment" + "s" * (options.num_envs_per_worker > 1)
    if not options.num_workers:
        return f"this process, {width}"
    return f"{options.num_workers} Ray workers, {width} each"


def _checkpoints(spec: ExperimentSpec) -> str:
    kept = spec.checkpoint
    often = [f"every {kept.frequency} iterations"] * bool(kept.frequency) + ["at the end"] * kept.at_end
    where = f", in {spec.storage.uri}" if spec.storage else ""
    if not often:
        return "none"
    which = f"the best {kept.keep} by {kept.score_attribute} and the newest" if kept.keep else "all"
    return f"{' and '.join(often)}; kept are {which}{where}"


def list_algorithms(arguments: argparse.Namespace) -> int:
    """Write one line for each algorithm."""
    for name, options in sorted(OPTIONS.items()):
        sys.stdout.write(f"{name:14} {(options.__doc__ or '').strip()}\n")
    return 0


def describe_algorithm(arguments: argparse.Namespace) -> int:
    """Write every option of an algorithm, with type, default and meaning, its own before those that it shares.

    With --env the defaults are those of its task, and each that the task changes says so.
    """
    options = for_algorithm(arguments.algorithm)
    tasks = None if arguments.env is None else _tasks(arguments.env, arguments.env_config)
    schema = options.model_json_schema(by_alias=True)["properties"]
    sys.stdout.write(f"{arguments.algorithm}: {(options.__doc__ or '').strip()}\n")
    if tasks is not None:
        sys.stdout.write(f"\nDefaults in {arguments.env}: {_task_words(tasks)}.\n")
    for heading, names in groups(options):
        sys.stdout.write(f"\n{heading}\n")
        for name in names:
            entry = schema[name]
            sys.stdout.write(
                f"  {name}  {kind(entry)}, {_default(options, name, tasks)}\n      {entry['description']}\n"
            )
    return 0


def groups(options: type[Options]) -> Iterator[tuple[str, list[str]]]:
    """Return headings and the options below each: the algorithm's own, those of its field groups, those of all."""
    names = {field: name for name, field in option_names(options).items()}
    for owner in (each for each in options.__mro__ if issubclass(each, Options)):
        inherited = {field for base in owner.__bases__ if issubclass(base, Options) for field in base.model_fields}
        own = [names[field] for field in owner.model_fields if field not in inherited]
        if own:
            heading = (owner.__doc__ or "").strip().partition("\n")[0]
            yield "Its own options." if owner is options else heading, own


def _tasks(env: str, env_config: str | None) -> tuple[Task, ...]:
    """Return the kinds of task that an environment is, under our name or RLlib's; it is made for this."""
    from rltrainer.envs.source import EnvSource  # noqa: PLC0415 - imports PyTorch, for which nothing else here has a use
    from rltrainer.runs.build import tasks_of  # noqa: PLC0415 - the same

    name, config, _ = translate_environment(env, as_json(env_config, "--env-config"), "--env")
    return tasks_of(EnvSource(name, config).spaces())


def _task_words(tasks: tuple[Task, ...]) -> str:
    """Tell what defaults depend on in an environment."""
    known = "; ".join(TASKS[task] for task in tasks)
    return f"a task with {known}" if known else "of no kind of task that defaults depend on"


def _default(options: type[Options], name: str, tasks: tuple[Task, ...] | None) -> str:
    """Tell the default of an option in tasks of these kinds; of no kind in particular, and of each, where None."""
    field = option_names(options)[name]
    general = options.model_fields[field].get_default(call_default_factory=True)
    if tasks is not None:
        value = task_defaults(options, (), tasks).get(field, general)
        return _value(value) + (f" for this task ({_value(general)} otherwise)" if value != general else "")
    changed = {task: values[field] for task, values in options.by_task.items() if field in values}
    return _value(general) + "".join(f"; with {TASKS[task]}: {json.dumps(value)}" for task, value in changed.items())


def _value(value: Any) -> str:
    return "default unset" if value is None else f"default {json.dumps(value)}"


def kind(entry: dict[str, Any]) -> str:
    """Tell an option's type in words, with its bounds."""
    if "enum" in entry:
        return "one of " + ", ".join(entry["enum"])
    if "anyOf" in entry:
        return " or ".join(kind(each) for each in entry["anyOf"] if each.get("type") != "null")
    if entry.get("type") == "array":
        return f"list of {kind(entry['items'])}" if "items" in entry else "list"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {entry[key]:g}" for key, sign in signs.items() if key in entry]
    return " ".join([entry.get("type", "any"), *bounds])
