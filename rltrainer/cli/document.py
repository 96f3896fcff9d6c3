"""From the command line of `rltrainer train` to the documents to train."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rltrainer import rllib_compat
from rltrainer.api.base import API_VERSION
from rltrainer.api.documents import Experiment
from rltrainer.cli.common import UsageError, as_json
from rltrainer.rllib_compat.environments import translate_environment
from rltrainer.rllib_compat.metrics import translate_stop

LOCAL_DIR = "~/rltrainer_results"
EXPORTS = ("model", "checkpoint", "onnx")
SCHEDULERS = ("FIFO", "MedianStopping", "AsyncHyperBand", "HyperBand", "PBT")
SEARCHERS = ("HyperOpt", "Optuna")
SCHEDULER_NAMES = (*SCHEDULERS, *SEARCHERS)
"""What --scheduler takes."""

Content = dict[str, Any]
"""A document as YAML has it."""


@dataclass
class Job:
    """A document to train, and what only means something here."""

    experiment: Experiment
    local_dir: str = LOCAL_DIR
    restore: str | None = None
    export_formats: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What to say of it first."""

    @property
    def uses_ray(self) -> bool:
        """Whether it needs Ray."""
        options = self.experiment.spec.options()
        return bool(self.experiment.spec.tune or options.num_workers or options.num_gpus or options.num_learners)


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """What the command line asks for. Raises UsageError, DocumentError or OptionError."""
    return [_job(each, arguments) for each in _documents(arguments)]


def _documents(arguments: argparse.Namespace) -> Iterator[rllib_compat.TranslatedDocument]:
    """The documents of the file, or an empty one."""
    if not arguments.file:
        if not (arguments.run and arguments.env):
            raise UsageError("give a document with -f FILE, or both --run and --env")
        yield rllib_compat.TranslatedDocument({"apiVersion": API_VERSION, "kind": "RLExperiment", "spec": {}})
    elif rllib_compat.is_rllib_document(_yaml(arguments.file)):
        yield from rllib_compat.translate_file(arguments.file)
    else:
        content = Experiment.from_yaml(arguments.file).model_dump(by_alias=True, exclude_unset=True)
        yield rllib_compat.TranslatedDocument(content)


def _yaml(path: str) -> Any:
    """What the file holds, or None where that is not for us to say: from_yaml finds the words."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _job(given: rllib_compat.TranslatedDocument, arguments: argparse.Namespace) -> Job:
    """The document with what the command line says over it."""
    content, notes = given.document, list(given.notes)
    spec: Content = content["spec"]
    if arguments.run:
        spec["run"] = arguments.run
    if arguments.env:
        _put_environment(spec, arguments.env, notes)
    _put_config(spec, as_json(arguments.config, "--config"), notes)
    spec["stop"] = {**spec.get("stop", {}), **translate_stop(as_json(arguments.stop, "--stop"), "command line")}
    _put_checkpoint(spec, arguments)
    _put_search(spec, arguments, notes)
    _put_storage(spec, arguments.upload_dir)
    name = (
        arguments.experiment_name or content.get("metadata", {}).get("name") or default_name(spec["run"], spec["env"])
    )
    content["metadata"] = {**content.get("metadata", {}), "name": name}
    return Job(
        experiment=Experiment.parse(content, where=arguments.file or "command line"),
        local_dir=arguments.local_dir or given.arguments.get("local_dir") or LOCAL_DIR,
        restore=arguments.restore or given.arguments.get("restore"),
        export_formats=arguments.export_formats or given.arguments.get("export_formats") or [],
        notes=notes,
    )


def default_name(run: str, env: str) -> str:
    """A name for a run without a document."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{run}-{env}".lower()).strip("-")
    return plain[:40].rstrip("-")


def _put_environment(spec: Content, name: str, notes: list[str]) -> None:
    """An environment by today's name or by that of RLlib's time."""
    if name.startswith("ALE/"):
        spec["env"] = name
        return
    spec["env"], env_config, said = translate_environment(name, {}, "--env")
    notes += said
    if env_config:
        spec["envConfig"] = {**env_config, **spec.get("envConfig", {})}


def _put_config(spec: Content, config: Content, notes: list[str]) -> None:
    """Options by our names or RLlib's, and what is searched over."""
    before = spec.get("config", {})
    known = rllib_compat.ALGORITHMS.get(spec["run"])
    options, space, said = rllib_compat.translate_config(spec["run"], config, over=before)
    notes += said
    if known is not None and known.run != spec["run"]:
        notes.append(f"run {spec['run']} is {known.run} here")
        spec["run"] = known.run
    spec["config"] = {**before, **options}
    if space:
        tune = spec.setdefault("tune", {})
        tune["space"] = {**tune.get("space", {}), **space}


def _put_checkpoint(spec: Content, arguments: argparse.Namespace) -> None:
    given = {
        "frequency": arguments.checkpoint_freq,
        "atEnd": arguments.checkpoint_at_end,
        "keep": arguments.keep_checkpoints_num,
        "scoreAttribute": arguments.checkpoint_score_attr,
    }
    over = {name: value for name, value in given.items() if value is not None}
    if over:
        spec["checkpoint"] = {**spec.get("checkpoint", {}), **over}


def _put_search(spec: Content, arguments: argparse.Namespace, notes: list[str]) -> None:
    """spec.tune, where something of the command line asks for a search."""
    resources = as_json(arguments.resources_per_trial, "--resources-per-trial")
    scheduler, options = arguments.scheduler, as_json(arguments.scheduler_config, "--scheduler-config")
    asked = resources or options or scheduler not in (None, "FIFO") or (arguments.num_samples or 1) > 1
    if not asked and "tune" not in spec:
        return
    tune = spec["tune"] = dict(spec.get("tune") or {})
    if arguments.num_samples:
        tune["numSamples"] = arguments.num_samples
    if resources:
        tune["resourcesPerTrial"] = resources
    if arguments.max_failures is not None:
        tune["maxFailures"] = arguments.max_failures
    if scheduler in SEARCHERS:
        tune["search"] = {**tune.get("search", {}), "name": scheduler}
        _put_options(tune, "search", options)
        notes.append(f"--scheduler {scheduler} is a search here: it chooses the options, and FIFO lets each trial end")
    elif scheduler or options:
        tune["scheduler"] = {**tune.get("scheduler", {}), **({"name": scheduler} if scheduler else {})}
        _put_options(tune, "scheduler", options)


NAMES = {"n_initial_points": "random_trials", "random_state_seed": "seed", "n_startup_trials": "random_trials"}
"""Ray Tune's names of what is called otherwise here."""


def _put_options(tune: Content, part: str, options: Content) -> None:
    """What --scheduler-config says: of the scheduler or the search, and what Ray Tune takes beside it."""
    for name, value in options.items():
        if name in ("metric", "mode"):
            tune[name] = value
        elif name == "max_concurrent":
            tune["maxConcurrentTrials"] = value
        elif name == "hyperparam_mutations":
            tune["space"] = {**tune.get("space", {}), **{option: _mutation(each) for option, each in value.items()}}
        else:
            tune[part][NAMES.get(name, name)] = value


def _mutation(values: Any) -> Content:
    """A domain of Ray Tune's population-based search."""
    if isinstance(values, list):
        return {"choice": values}
    if isinstance(values, dict):
        return values
    raise UsageError(f"--scheduler-config: hyperparam_mutations takes a list of values or a domain, got {values!r}")


def _put_storage(spec: Content, upload_dir: str | None) -> None:
    if upload_dir is None:
        return
    if not upload_dir.startswith("s3://"):
        raise UsageError(f"--upload-dir takes an s3:// URI, got {upload_dir}; --local-dir says where the local copy is")
    spec["storage"] = {**(spec.get("storage") or {}), "uri": upload_dir}
