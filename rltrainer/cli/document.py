"""From the command line of `rltrainer train` to the documents to train."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic.alias_generators import to_camel, to_snake

from rltrainer import rllib_compat
from rltrainer.api.base import API_VERSION
from rltrainer.api.documents import At, Experiment, Loader, check_header, default_name, read_documents
from rltrainer.api.experiment import Stop
from rltrainer.api.options import OPTIONS, for_algorithm, option_names
from rltrainer.api.tune import Domain
from rltrainer.cli.common import UsageError, as_json
from rltrainer.rllib_compat.algorithms import ALTERNATIVES
from rltrainer.rllib_compat.environments import translate_environment
from rltrainer.rllib_compat.metrics import translate_stop
from rltrainer.storage.paths import LOCAL_DIR

EXPORTS = ("model", "checkpoint", "onnx")
SCHEDULERS = ("FIFO", "MedianStopping", "AsyncHyperBand", "HyperBand", "PBT")
SEARCHERS = ("HyperOpt", "Optuna")
SCHEDULER_NAMES = (*SCHEDULERS, *SEARCHERS)
"""What --scheduler takes."""
RLLIBS = {*rllib_compat.ALGORITHMS, *ALTERNATIVES}
"""The algorithms that RLlib's rules know."""
CONDITIONS = frozenset(each.alias or name for name, each in Stop.model_fields.items())
"""What --stop takes."""

Content = dict[str, Any]
"""A document, or a part of it, as YAML has it."""


@dataclass
class Job:
    """A document to train, and what only means something here."""

    experiment: Experiment
    local_dir: str = LOCAL_DIR
    restore: str | None = None
    export_formats: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Lines to print before it is trained."""
    numbered: bool = False
    """Whether its name is nobody's choice, so that it may get a number."""

    @property
    def uses_ray(self) -> bool:
        """Whether it needs Ray."""
        options = self.experiment.spec.options()
        return bool(self.experiment.spec.tune or options.num_workers or options.num_gpus or options.num_learners)


@dataclass
class Draft:
    """A document before it is checked, with what the command line puts over it."""

    content: Content
    written_at: At = lambda keys: "command line"
    """Says where a field stands that the command line has not put there."""
    notes: list[str] = field(default_factory=list)
    arguments: Content = field(default_factory=dict)
    """What a file of RLlib's has for the command line."""
    flags: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    """The argument that put a field, by the keys that lead to it."""

    @property
    def spec(self) -> Content:
        """The spec, to be read; empty where it is no object."""
        spec = self.content.get("spec")
        return spec if isinstance(spec, dict) else {}

    def put(self, flag: str, values: Content, *section: str) -> None:
        """Put `values`, which argument `flag` gives, over those of `section`, given as the keys that lead there."""
        if not values:
            return
        inner = self.content
        for depth, key in enumerate(section, 1):
            value = _taken(inner, key)
            if not isinstance(value, dict):
                self.flags[section[:depth]] = flag
            inner[key] = dict(value) if isinstance(value, dict) else {}
            inner = inner[key]
        for name, value in values.items():
            _taken(inner, name)
            inner[name] = value
            self.flags[*section, name] = flag

    def at(self, keys: Sequence[str | int]) -> str:
        """Where a field was written: the argument of the command line, or `file:line`."""
        paths = (tuple(keys[:length]) for length in range(len(keys), 0, -1))
        return next((self.flags[path] for path in paths if path in self.flags), self.written_at(keys))


def _taken(content: Content, key: str) -> Any:
    """The value of `key`, taken out under either of the names that a document may have for it."""
    value = content.pop(to_snake(key), None)
    return content.pop(key, value)


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Read what the command line asks for. Raises UsageError, DocumentError or OptionError."""
    return [_job(draft, arguments) for draft in _drafts(arguments)]


def _drafts(arguments: argparse.Namespace) -> Iterator[Draft]:
    """The documents of the file, or an empty one."""
    if not arguments.file:
        if not (arguments.run and arguments.env):
            raise UsageError("give a document with -f FILE, or both --run and --env")
        yield Draft({"apiVersion": API_VERSION, "kind": "RLExperiment", "spec": {}})
        return
    files = read_documents(arguments.file)
    if arguments.experiment_name and len(files) > 1:
        raise UsageError(f"--experiment-name names one run, and {arguments.file} holds {len(files)} documents")
    for file in files:
        if not rllib_compat.is_rllib_document(file.content):
            check_header(file)
            yield Draft(file.content, file.at)
            continue
        for each in rllib_compat.translate_experiments(file.content, arguments.file):
            yield Draft(each.document, lambda keys: str(arguments.file), list(each.notes), each.arguments)


def _job(draft: Draft, arguments: argparse.Namespace) -> Job:
    """The checked document, with what the command line says over it."""
    if arguments.run:
        draft.put("--run", {"run": arguments.run}, "spec")
    if arguments.env:
        _put_environment(draft, arguments.env)
    draft.put("--env-config", as_json(arguments.env_config, "--env-config"), "spec", "envConfig")
    _put_config(draft, as_json(arguments.config, "--config"))
    _put_stop(draft, as_json(arguments.stop, "--stop"))
    _put_checkpoint(draft, arguments)
    _put_search(draft, arguments)
    _put_storage(draft, arguments.upload_dir)
    for flag, name, value in (
        ("--eval-interval", "interval", arguments.eval_interval),
        ("--eval-episodes", "episodes", arguments.eval_episodes),
    ):
        draft.put(flag, {} if value is None else {name: value}, "spec", "evaluation")
    for assignment in arguments.set:
        _put_field(draft, assignment)
    if arguments.experiment_name:
        draft.put("--experiment-name", {"name": arguments.experiment_name}, "metadata")
    elif not arguments.file:
        draft.put("command line", {"name": default_name(draft.spec["run"], draft.spec["env"])}, "metadata")
    return Job(
        experiment=Experiment.parse(draft.content, at=draft.at),
        local_dir=arguments.local_dir or draft.arguments.get("local_dir") or LOCAL_DIR,
        restore=arguments.restore or draft.arguments.get("restore"),
        export_formats=arguments.export_formats or draft.arguments.get("export_formats") or [],
        notes=draft.notes,
        numbered=not (arguments.file or arguments.experiment_name),
    )


def _put_environment(draft: Draft, name: str) -> None:
    """An environment by today's name or by that of RLlib's time, whose keyword arguments go below the document's."""
    if name.startswith("ALE/"):
        env, env_config, notes = name, Content(), list[str]()
    else:
        env, env_config, notes = translate_environment(name, {}, "--env")
    draft.notes += notes
    draft.put("--env", {"env": env}, "spec")
    known = draft.spec.get("envConfig", draft.spec.get("env_config")) or {}
    draft.put("--env", {key: value for key, value in env_config.items() if key not in known}, "spec", "envConfig")


def _put_config(draft: Draft, config: Content) -> None:
    """Options, and what is searched over. Where a name is RLlib's, all are, whose units differ: they are translated."""
    run = draft.spec.get("run")
    if not isinstance(run, str) or not (run in OPTIONS or ":" in run or run in RLLIBS):
        return  # what is wrong with it is told with the line where it stands
    if _is_ours(run, config):
        space = {name: value for name, value in config.items() if _is_searched(name, value)}
        options = {name: value for name, value in config.items() if name not in space}
    else:
        before = draft.spec.get("config")
        options, space, notes = rllib_compat.translate_config(run, config, over=before)
        draft.notes += notes
    rllibs = rllib_compat.ALGORITHMS.get(run)
    if rllibs is not None and rllibs.run != run:
        draft.notes.append(f"run {run} is {rllibs.run} here")
        draft.put("--run", {"run": rllibs.run}, "spec")
    draft.put("--config", options, "spec", "config")
    draft.put("--config", space, "spec", "tune", "space")


def _is_ours(run: str, config: Content) -> bool:
    """Whether algorithm, options and what is searched over have our names, and so our meaning."""
    if run not in OPTIONS and ":" not in run:
        return False
    known = option_names(for_algorithm(run))
    searched = (value for name, value in config.items() if _is_searched(name, value))
    return config.keys() <= known.keys() and all(value.keys() <= Domain.model_fields.keys() for value in searched)


def _is_searched(name: str, value: Any) -> bool:
    """Whether the values of an option are searched for: no other option than `custom` takes an object."""
    return isinstance(value, dict) and name != "custom"


def _put_stop(draft: Draft, stop: Content) -> None:
    """When to stop, by our names or by those that RLlib had for them."""
    draft.put("--stop", stop if stop.keys() <= CONDITIONS else translate_stop(stop, "command line"), "spec", "stop")


def _put_checkpoint(draft: Draft, arguments: argparse.Namespace) -> None:
    for flag, name, value in (
        ("--checkpoint-freq", "frequency", arguments.checkpoint_freq),
        ("--checkpoint-at-end", "atEnd", arguments.checkpoint_at_end),
        ("--keep-checkpoints-num", "keep", arguments.keep_checkpoints_num),
        ("--checkpoint-score-attr", "scoreAttribute", arguments.checkpoint_score_attr),
    ):
        if value is not None:
            draft.put(flag, {name: value}, "spec", "checkpoint")


def _put_search(draft: Draft, arguments: argparse.Namespace) -> None:
    """spec.tune, where something of the command line asks for a search."""
    resources = as_json(arguments.resources_per_trial, "--resources-per-trial")
    scheduler, options = arguments.scheduler, as_json(arguments.scheduler_config, "--scheduler-config")
    is_search = resources or options or scheduler not in (None, "FIFO") or (arguments.num_samples or 1) > 1
    if not is_search and draft.spec.get("tune") is None:
        return
    if arguments.num_samples:
        draft.put("--num-samples", {"numSamples": arguments.num_samples}, "spec", "tune")
    if resources:
        draft.put("--resources-per-trial", {"resourcesPerTrial": resources}, "spec", "tune")
    if arguments.max_failures is not None:
        draft.put("--max-failures", {"maxFailures": arguments.max_failures}, "spec", "tune")
    part = "search" if scheduler in SEARCHERS else "scheduler"
    if scheduler:
        draft.put("--scheduler", {"name": scheduler}, "spec", "tune", part)
    if scheduler in SEARCHERS:
        draft.notes.append(
            f"--scheduler {scheduler} is a search here: it chooses the options, and FIFO lets each trial end"
        )
    for name, value in options.items():
        _put_option(draft, part, name, value)


def _put_field(draft: Draft, assignment: str) -> None:
    """One field of the document, as --set has it: the keys that lead to it and its value in YAML. Raises UsageError."""
    path, equals, text = assignment.partition("=")
    *section, name = path.split(".")
    example = "--set takes a field of the document and its value, as in --set spec.evaluation.interval=2"
    if not equals or not all((*section, name)) or (section[:1] not in (["spec"], ["metadata"])):
        raise UsageError(f"{example}, and got {assignment}")
    try:
        value = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UsageError(f"--set {path}: {text} is not YAML: {' '.join(str(error).split())}") from None
    draft.put(f"--set {path}", {name: value}, *section)


NAMES = {"n_initial_points": "random_trials", "random_state_seed": "seed", "n_startup_trials": "random_trials"}
"""Ray Tune's names of what is called otherwise here."""


def _put_option(draft: Draft, part: str, name: str, value: Any) -> None:
    """One option of --scheduler-config: of the scheduler or the search, or what Ray Tune takes beside it."""
    flag = "--scheduler-config"
    if name in ("metric", "mode"):
        draft.put(flag, {name: value}, "spec", "tune")
    elif name == "max_concurrent":
        draft.put(flag, {"maxConcurrentTrials": value}, "spec", "tune")
    elif name == "hyperparam_mutations":
        draft.put(flag, {option: _mutation(each) for option, each in value.items()}, "spec", "tune", "space")
    else:
        draft.put(flag, {to_camel(NAMES.get(name, name)): value}, "spec", "tune", part)


def _mutation(values: Any) -> Content:
    """A domain of Ray Tune's population-based search."""
    if isinstance(values, list):
        return {"choice": values}
    if isinstance(values, dict):
        return values
    raise UsageError(f"--scheduler-config: hyperparam_mutations takes a list of values or a domain, got {values!r}")


def _put_storage(draft: Draft, upload_dir: str | None) -> None:
    if upload_dir is None:
        return
    if not upload_dir.startswith("s3://"):
        raise UsageError(f"--upload-dir takes an s3:// URI, got {upload_dir}; --local-dir says where the local copy is")
    draft.put("--upload-dir", {"uri": upload_dir}, "spec", "storage")
