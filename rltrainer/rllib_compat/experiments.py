"""The classic RLlib's files of named experiments as documents."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rltrainer.api.base import API_VERSION, MAX_NAME, DocumentError
from rltrainer.api.options import OptionError
from rltrainer.rllib_compat.config import Outcome, Reading, spoken
from rltrainer.rllib_compat.environments import environment, is_atari
from rltrainer.rllib_compat.fields import put
from rltrainer.rllib_compat.judging import evaluation, stops
from rltrainer.rllib_compat.search import Coupled, replaced, with_search

Settings = dict[str, Any]


@dataclass
class Translated:
    """A document made of a named experiment."""

    document: Settings
    """As YAML has it: apiVersion, kind, metadata, spec."""
    notes: list[str] = field(default_factory=list)
    """A line for each thing that is called otherwise here, or left out."""
    arguments: Settings = field(default_factory=dict)
    """What only means something to the command line: local_dir, restore, export_formats."""


def is_classic(content: Any) -> bool:
    """Whether what a YAML file holds are named experiments of the classic RLlib."""
    if not isinstance(content, dict) or not content or {"apiVersion", "kind"} & content.keys():
        return False
    return all(isinstance(each, dict) and ("run" in each or "env" in each) for each in content.values())


def documents(path: Path | str) -> list[Translated]:
    """The documents of the classic file `path`. Raises DocumentError or OptionError."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{path} is not YAML: {error}") from None
    if not is_classic(content):
        raise DocumentError(f"{path} holds no experiments as RLlib has them: NAME: {{run: PPO, env: CartPole-v1, …}}")
    return translate(content, str(path))


def translate(content: Mapping[str, Any], where: str) -> list[Translated]:
    """The documents of named experiments. Raises OptionError, or DocumentError for what is no option."""
    found: list[Translated] = []
    taken: set[str] = set()
    for title, given in content.items():
        place = f"{where}: {title}"
        several = [each for variant in over_environments(given, place) for each in variants(variant, place)]
        for experiment, outcome in several:
            made = document(experiment, outcome, place)
            made.document["metadata"] = {"name": name_of(str(title), taken)}
            found.append(made)
    return found


def name_of(title: str, taken: set[str]) -> str:
    """A valid name like `title` that is not `taken` yet, and takes it."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "experiment"
    plain = plain if plain[0].isalpha() else f"run-{plain}"
    name, number = plain[:MAX_NAME].rstrip("-"), 2
    while name in taken:
        name, number = f"{plain[: MAX_NAME - len(str(number)) - 1].rstrip('-')}-{number}", number + 1
    taken.add(name)
    return name


def over_environments(experiment: Settings, where: str) -> Iterator[Settings]:
    """The experiment for each of its environments. Raises DocumentError unless run and env are there."""
    for name in ("config", "stop"):
        if not isinstance(experiment.get(name), dict | None):
            raise DocumentError(f"{where}.{name}: takes settings by name, got {spoken(experiment[name])}")
    env = experiment.get("env") or (experiment.get("config") or {}).get("env")
    if not isinstance(experiment.get("run"), str) or not env:
        raise DocumentError(f"{where}: needs run, an algorithm, and env, an environment")
    for each in env["grid_search"] if isinstance(env, dict) and "grid_search" in env else [env]:
        if not isinstance(each, str):
            raise DocumentError(f"{where}.env: takes a name, got {spoken(each)}")
        config = {name: value for name, value in (experiment.get("config") or {}).items() if name != "env"}
        yield {**experiment, "env": each, "config": config}


def variants(experiment: Settings, where: str) -> Iterator[tuple[Settings, Outcome]]:
    """The experiment and what its config is here; one for each value of a grid that no search can have."""
    # pictures are read by convolutions, before which RLlib puts no layers
    pictures: Settings = {"model.fcnet_hiddens": []} if is_atari(experiment["env"]) else {}
    reading = Reading(experiment["run"], f"{where}.config", defaults=pictures)
    try:
        yield experiment, with_search(reading, experiment["config"])
    except Coupled as coupled:
        if not coupled.values:
            raise OptionError(f"{where}.config.{coupled}") from None
        for value in coupled.values:
            yield from variants({**experiment, "config": replaced(experiment["config"], coupled.path, value)}, where)


def document(experiment: Settings, outcome: Outcome, where: str) -> Translated:
    """The document of one experiment, without its name. Raises DocumentError or OptionError."""
    made = Translated({"apiVersion": API_VERSION, "kind": "RLExperiment"}, notes=outcome.notes)
    spec: Settings = {"run": outcome.run}
    if outcome.run != experiment["run"]:
        made.notes.insert(0, f"run {experiment['run']} is {outcome.run} here")
    spec["env"], env_config, said = environment(experiment["env"], dict(outcome.apart.get("env_config") or {}), where)
    made.notes += said
    spec["envConfig"] = {**env_config, **of_the_environment(outcome.apart, spec["env"], f"{where}.config")}
    spec["config"] = outcome.config
    spec["stop"] = stops(experiment.get("stop") or {}, where)
    spec["evaluation"] = evaluation(outcome, spec["stop"], made.notes, f"{where}.config")
    spec["tune"] = {"numSamples": 1, "space": outcome.space} if outcome.space else {}
    others = {name: value for name, value in experiment.items() if name not in ("run", "env", "config", "stop")}
    for name, value in sorted(others.items(), key=lambda item: item[0] == "resources_per_trial"):
        note = put(name, value, spec, made.arguments, where)
        made.notes += [note] if note else []
    if spec["tune"] and "maxFailures" in spec:
        spec["tune"]["maxFailures"] = spec.pop("maxFailures")
    made.document["spec"] = {name: value for name, value in spec.items() if value not in ({}, None)}
    return made


def of_the_environment(given: Settings, env: str, where: str) -> Settings:
    """Keyword arguments of the environment that RLlib has as options. Raises OptionError."""
    found: Settings = {}
    atari = env.startswith("ALE/")
    if given.get("horizon") is not None:
        if atari or ":" in env:
            raise OptionError(f"{where}.horizon: end episodes in the environment, by truncated, and leave horizon out")
        found["max_episode_steps"] = given["horizon"]
    if atari and given.get("clip_rewards") is False:
        found["reward_clipping"] = False
    elif not atari and given.get("clip_rewards"):
        raise OptionError(f"{where}.clip_rewards: clip rewards in the environment, by a gymnasium wrapper")
    if atari and "model.dim" in given:
        found |= {"img_height": given["model.dim"], "img_width": given["model.dim"]}
    return found
