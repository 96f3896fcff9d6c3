"""RLlib's files of named experiments as documents."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rltrainer.api.base import API_VERSION, MAX_NAME, DocumentError
from rltrainer.api.options import OptionError
from rltrainer.api.tune import take_grids
from rltrainer.rllib_compat.environments import is_atari, translate_environment
from rltrainer.rllib_compat.fields import FIELD_ALIASES, apply_field
from rltrainer.rllib_compat.metrics import translate_evaluation, translate_stop
from rltrainer.rllib_compat.options import ConfigContext, TranslatedConfig, yaml_value
from rltrainer.rllib_compat.rules import Content
from rltrainer.rllib_compat.search import CoupledOptionsError, translate_searched, with_value_at


@dataclass
class TranslatedDocument:
    """A document made of one of RLlib's named experiments."""

    document: Content
    """As YAML has it: apiVersion, kind, metadata, spec."""
    notes: list[str] = field(default_factory=list)
    """A line for each thing that is called otherwise here, or left out."""
    arguments: Content = field(default_factory=dict)
    """Fields that only the command line has: local_dir, restore, export_formats."""


OUR_PARTS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
"""What a document of ours consists of: a `spec` without its header is no experiment called "spec"."""


def is_rllib_document(content: Any) -> bool:
    """Whether the content of a YAML file is RLlib's: experiments by name, each with `run` or `env`."""
    if not isinstance(content, dict) or not content or OUR_PARTS & content.keys():
        return False
    return all(isinstance(each, dict) and ("run" in each or "env" in each) for each in content.values())


def translate_file(path: Path | str) -> list[TranslatedDocument]:
    """Translate the RLlib file at `path`. Raises DocumentError or OptionError."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{path} is not YAML: {error}") from None
    if not is_rllib_document(content):
        raise DocumentError(f"{path} holds no experiments as RLlib has them: NAME: {{run: PPO, env: CartPole-v1, …}}")
    return translate_experiments(content, str(path))


def translate_experiments(content: Mapping[str, Any], where: str) -> list[TranslatedDocument]:
    """Translate experiments by name. Raises OptionError, or DocumentError for fields other than options."""
    translated: list[TranslatedDocument] = []
    used_names: set[str] = set()
    for title, given in content.items():
        place = f"{where}: {title}"
        named = {FIELD_ALIASES.get(name, name): value for name, value in given.items()}
        for single_env in split_environments(named, place):
            for experiment, config in split_grids(single_env, place):
                document = translate_experiment(experiment, config, place)
                document.document["metadata"] = {"name": unique_name(str(title), used_names)}
                translated.append(document)
    return translated


def unique_name(title: str, used: set[str]) -> str:
    """Make a valid name of `title` that is not in `used`, and add it there."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "experiment"
    plain = plain if plain[0].isalpha() else f"run-{plain}"
    name, number = plain[:MAX_NAME].rstrip("-"), 2
    while name in used:
        name, number = f"{plain[: MAX_NAME - len(str(number)) - 1].rstrip('-')}-{number}", number + 1
    used.add(name)
    return name


def split_environments(experiment: Content, where: str) -> Iterator[Content]:
    """Yield the experiment once for each of its environments. Raises DocumentError unless it has run and env."""
    for name in ("config", "stop"):
        if not isinstance(experiment.get(name), dict | None):
            raise DocumentError(f"{where}.{name}: takes settings by name, got {yaml_value(experiment[name])}")
    env = experiment.get("env") or (experiment.get("config") or {}).get("env")
    if not isinstance(experiment.get("run"), str) or not env:
        raise DocumentError(f"{where}: needs run, an algorithm, and env, an environment")
    for each in env["grid_search"] if isinstance(env, dict) and "grid_search" in env else [env]:
        if not isinstance(each, str):
            raise DocumentError(f"{where}.env: takes a name, got {yaml_value(each)}")
        config = {name: value for name, value in (experiment.get("config") or {}).items() if name != "env"}
        yield {**experiment, "env": each, "config": config}


def split_grids(experiment: Content, where: str) -> Iterator[tuple[Content, TranslatedConfig]]:
    """Yield the experiment with its translated config; once for each value of a grid that no search can express."""
    # images go through convolutions, before which RLlib puts no dense layers
    defaults: Content = {"model.fcnet_hiddens": []} if is_atari(experiment["env"]) else {}
    context = ConfigContext(experiment["run"], f"{where}.config", defaults=defaults)
    try:
        yield experiment, translate_searched(context, experiment["config"])
    except CoupledOptionsError as coupled:
        if not coupled.values:
            raise OptionError(f"{where}.config.{coupled}") from None
        for value in coupled.values:
            config = with_value_at(experiment["config"], coupled.path, value)
            yield from split_grids({**experiment, "config": config}, where)


def translate_experiment(experiment: Content, config: TranslatedConfig, where: str) -> TranslatedDocument:
    """Make the document of one experiment, without its name. Raises DocumentError or OptionError."""
    result = TranslatedDocument({"apiVersion": API_VERSION, "kind": "RLExperiment"}, notes=config.notes)
    spec: Content = {"run": config.run}
    if config.run != experiment["run"]:
        result.notes.insert(0, f"run {experiment['run']} is {config.run} here")
    env_config = dict(config.moved.get("env_config") or {})
    spec["env"], env_config, notes = translate_environment(experiment["env"], env_config, where)
    result.notes += notes
    moved = environment_options(config.moved, spec["env"], f"{where}.config")
    spec["envConfig"], grids = take_grids({**env_config, **moved})
    result.notes += [
        f"{name} is searched over: grid_search {yaml_value(each['grid_search'])}" for name, each in grids.items()
    ]
    spec["config"] = config.config
    spec["stop"] = translate_stop(experiment.get("stop") or {}, where)
    spec["evaluation"] = translate_evaluation(config, spec["stop"], result.notes, f"{where}.config")
    space = {**config.space, **grids}
    spec["tune"] = {"numSamples": 1, "space": space} if space else {}
    fields = {name: value for name, value in experiment.items() if name not in ("run", "env", "config", "stop")}
    for name, value in sorted(fields.items(), key=lambda item: item[0] == "resources_per_trial"):
        note = apply_field(name, value, spec, result.arguments, where)
        result.notes += [note] if note else []
    if spec["tune"] and "maxFailures" in spec:
        spec["tune"]["maxFailures"] = spec.pop("maxFailures")
    result.document["spec"] = {name: value for name, value in spec.items() if value not in ({}, None)}
    return result


def environment_options(options: Content, env: str, where: str) -> Content:
    """Return the environment's keyword arguments that RLlib has as options. Raises OptionError."""
    arguments: Content = {}
    atari = env.startswith("ALE/")
    if options.get("horizon") is not None:
        if atari or ":" in env:
            raise OptionError(f"{where}.horizon: end episodes in the environment, by truncated, and leave horizon out")
        arguments["max_episode_steps"] = options["horizon"]
    if atari and options.get("clip_rewards") is False:
        arguments["reward_clipping"] = False
    elif not atari and options.get("clip_rewards"):
        raise OptionError(f"{where}.clip_rewards: clip rewards in the environment, by a gymnasium wrapper")
    stack = 1 if options.get("model.no_framestack") else options.get("model.num_framestacks")
    if atari and stack:
        arguments["stack_num"] = stack
    if atari and "model.dim" in options:
        arguments |= {"img_height": options["model.dim"], "img_width": options["model.dim"]}
    return arguments
