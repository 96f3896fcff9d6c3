"""Documents as files: read once, checked, and each field known by its line."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from rltrainer.api.base import API_VERSION, MAX_NAME, DocumentError, Metadata, Model
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OptionError, describe, parse_options
from rltrainer.api.options.parsing import Keys
from rltrainer.api.rollout import RolloutSpec

STDIN = "-"
"""The path that means standard input."""


class Loader(yaml.SafeLoader):
    """Reads YAML as the API server does: 1e5 is a number, for which YAML 1.1 wants a point in it."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class YamlFile:
    """A document of a file, and where each part of it stands."""

    path: Path
    content: Any
    root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> "list[YamlFile]":
        """Read the documents of the file at `path`, or with - of standard input, once. Raises OSError, and ValueError
        with the file, the line and what is wrong there."""
        try:
            text = sys.stdin.read() if str(path) == STDIN else path.read_text(encoding="utf-8")
            loader, documents = Loader(text), list[YamlFile]()
            while loader.check_node():
                root = loader.get_node()
                _check_distinct(root, path)
                documents.append(cls(path, loader.construct_document(root), root))
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not text in UTF-8") from None
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}:{error.problem_mark.column + 1}" if error.problem_mark else ""
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            raise ValueError(f"{path}{line}: not YAML: {problem}") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from None
        return documents

    def at(self, field: Sequence[str | int]) -> str:
        """Return `file:line` of a field, given as the keys that lead to it, or of its innermost part that is there."""
        node, line = self.root, 0
        for key in field:
            place, node = _below(node, key)
            if place is None:
                break
            line = place.start_mark.line + 1
        return f"{self.path}:{line}" if line else str(self.path)


def _below(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Find where `key` is written in a mapping or list, and what stands under it."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None, None


def _check_distinct(node: yaml.Node | None, path: Path) -> None:
    """Raise ValueError where a key is given twice: YAML's own reader takes the last one and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_distinct(item, path)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value in seen:
                raise ValueError(f"{path}:{name.start_mark.line + 1}: {name.value} is given twice")
            seen.add(name.value if isinstance(name, yaml.ScalarNode) else None)
            _check_distinct(value, path)


At = Callable[[Sequence[str | int]], str]
"""From the keys that lead to a field to where it is written."""


def read_documents(path: str | os.PathLike[str]) -> list[YamlFile]:
    """Read the documents in the file at `path`, each an object; - is standard input. Raises DocumentError."""
    try:
        files = YamlFile.read(Path(path))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None
    documents = [file for file in files if file.content is not None]  # --- at an end begins an empty one
    if not documents or not all(isinstance(file.content, dict) for file in documents):
        raise DocumentError(f"{path} holds no document: one begins with apiVersion: {API_VERSION}")
    return documents


def read_yaml(path: str | os.PathLike[str]) -> YamlFile:
    """Read the file at `path`, which holds one object. Raises DocumentError."""
    documents = read_documents(path)
    if len(documents) > 1:
        raise DocumentError(
            f"{path} holds {len(documents)} documents, and one is taken here: give it a file of its own"
        )
    return documents[0]


def check_header(file: YamlFile) -> None:
    """Hold that a file says what it is, as the API server asks too: what else has `spec` is not read as ours by guess.

    Raises DocumentError that names what is missing."""
    missing = [name for name in ("apiVersion", "kind") if name not in file.content]
    if missing and any(isinstance(each, dict) and "n_timesteps" in each for each in file.content.values()):
        raise DocumentError(
            f"{file.path} looks like one of rl-zoo3's files, whose options have other names: name what to train, as in "
            "rltrainer train --run PPO --env CartPole-v1 --config '{\"lr\": 0.001}'; of a name of theirs it says ours"
        )
    if missing:
        raise DocumentError(
            f"{file.path}: {' and '.join(missing)} missing: a document begins with apiVersion: {API_VERSION} and "
            f"kind: {' or '.join(KINDS)}. A file of RLlib's has its experiments by name: "
            "NAME: {run: PPO, env: CartPole-v1, config: {…}}"
        )


def _field(problem: Any) -> Sequence[str | int]:
    """Return the keys that lead to a problem of pydantic's; an error about an option has its own."""
    error = problem.get("ctx", {}).get("error")
    keys: Sequence[str | int] = error.field if isinstance(error, OptionError) else problem["loc"]
    return keys


def _lines(problem: Any, place: At, model: type[BaseModel]) -> list[str]:
    """Tell a problem of pydantic's, or each of an OptionError, with the place where it was written."""
    error = problem.get("ctx", {}).get("error")
    if isinstance(error, OptionError) and not problem["loc"]:
        return [f"{place(keys)}: {message}" for message, keys in error.problems]
    return [describe(problem, f"{place(_field(problem))}: ", model)]


class Document(Model):
    """A document of ours as a person writes it: what an Experiment and a Rollout share."""

    api_version: Literal["rltrainer.io/v1alpha1"] = Field("rltrainer.io/v1alpha1", alias="apiVersion")
    metadata: Metadata

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Self:
        """Read the document in file `path`. Raises DocumentError with the file, the line and the field."""
        file = read_yaml(path)
        check_header(file)
        return cls.parse(file.content, at=file.at)

    @classmethod
    def parse(cls, document: dict[str, Any], where: str = "document", at: At | None = None) -> Self:
        """Check a document; a `status` in it is not read. `at` says where a field stands, else it is `where`.

        Raises DocumentError that names the field."""
        place = at or (lambda field: where)
        kind = document.get("kind")
        if isinstance(kind, str) and KINDS.get(kind, cls) is not cls:
            raise DocumentError(f"{place(('kind',))}: it is an {kind}, which {COMMANDS[kind]} takes")
        try:
            parsed = cls.model_validate({key: value for key, value in document.items() if key != "status"})
        except ValidationError as error:
            lines = [line for problem in error.errors() for line in _lines(problem, place, cls)]
            more = (f"{place(keys)}: {message}" for message, keys in cls.option_problems(document))
            raise DocumentError("\n".join(dict.fromkeys([*lines, *more]))) from None
        return parsed

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Check what the schema alone cannot say. Raises OptionError."""

    @classmethod
    def option_problems(cls, document: dict[str, Any]) -> list[tuple[str, Keys]]:
        """Return what is wrong with the options of a document whose other fields are wrong too, and where it stands."""
        return []


class Experiment(Document):
    """An RLExperiment as a person writes it."""

    kind: Literal["RLExperiment"] = "RLExperiment"
    spec: ExperimentSpec

    def check(self) -> None:
        """Hold options, and those searched over, against the algorithm named. Raises OptionError."""
        self.spec.options()
        if self.spec.tune is not None:
            self.spec.tune.check(self.spec.run, self.spec.config)

    @classmethod
    def option_problems(cls, document: dict[str, Any]) -> list[tuple[str, Keys]]:
        """Return what is wrong with spec.config, as far as its algorithm is known."""
        spec = document.get("spec")
        run, config = (spec.get("run"), spec.get("config")) if isinstance(spec, dict) else (None, None)
        if not isinstance(run, str) or not isinstance(config, dict):
            return []
        try:
            parse_options(run, config)
        except OptionError as error:
            return [problem for problem in error.problems if problem[1][:2] == ("spec", "config")]
        return []


class Rollout(Document):
    """An RLRollout as a person writes it."""

    kind: Literal["RLRollout"] = "RLRollout"
    spec: RolloutSpec


def default_name(run: str, env: str) -> str:
    """Return a name for an experiment that nobody has named: of its algorithm and its environment."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{run}-{env}".lower()).strip("-")
    return plain[:MAX_NAME].rstrip("-")


KINDS: dict[Any, type[Experiment | Rollout]] = {"RLExperiment": Experiment, "RLRollout": Rollout}


COMMANDS = {"RLExperiment": "rltrainer train -f", "RLRollout": "rltrainer rollout -f"}
"""The command that runs each kind."""


def read_document(file: YamlFile) -> Experiment | Rollout:
    """Check the document in `file`, of the kind that it names. Raises DocumentError."""
    check_header(file)
    kind = file.content["kind"]
    if kind not in KINDS:
        raise DocumentError(f"{file.at(('kind',))}: kind {kind} is none of {', '.join(KINDS)}")
    return KINDS[kind].parse(file.content, at=file.at)
