"""The types of what `import rltrainer` offers: of `train` the options of each algorithm, from the options' models."""

import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

import rltrainer
from rltrainer.api.experiment import Checkpoint, CredentialsKeys, Evaluation, Stop, Storage
from rltrainer.api.options import OPTIONS, Options

HEAD = """\
# Generated from rltrainer/api/options by `make generate`: what mypy and editors know of rltrainer.
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, Unpack, overload

"""
RUN = """
class _Run(TypedDict, total=False):
    env_config: dict[str, Any] | None
    stop: _Stop | None
    checkpoint: _Checkpoint | None
    evaluation: _Evaluation | None
    storage: _Storage | None
    name: str | None
    local_dir: str | Path
    restore: str | Path | Result | None
    resume: bool
    overwrite: bool
    max_failures: int
    export_formats: Sequence[Literal["model", "checkpoint", "onnx"]]
"""
TRAIN = """
@overload
def train(algorithm: {algorithm}, env: str | Callable[..., Any]{default}, **options: Unpack[{options}]) -> Result: ...
"""


def stub() -> str:
    """Return rltrainer/__init__.pyi."""
    names = sorted((module, name) for name, module in rltrainer.PUBLIC.items() if name != "train")
    parts = [HEAD, *(f"from {module} import {name} as {name}\n" for module, name in names)]
    parts += ["__version__: str\nPUBLIC: dict[str, str]\n", _functional(Stop)]
    parts += [_section(model) for model in (Checkpoint, Evaluation, CredentialsKeys, Storage)]
    parts += [RUN, _options("_Options", Options, "_Run", set())]
    common = set(Options.model_fields)
    parts += [_options(f"_{name}", options, "_Options", common) for name, options in sorted(OPTIONS.items())]
    parts += [_overload(f'Literal["{name}"]', f"_{name}") for name in sorted(OPTIONS)]
    parts += [_overload("str", "_Options"), _overload("Experiment", "_Run", " | None = None")]
    return formatted("".join(parts))


def formatted(source: str) -> str:
    """Return the source of a stub as `ruff format` has it."""
    program = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "stub.pyi", "-"]
    return subprocess.run(program, input=source, capture_output=True, text=True, check=True).stdout


def _overload(algorithm: str, options: str, default: str = "") -> str:
    """Return `train` of one algorithm. Of one that is not known here, the options are those that all have."""
    return TRAIN.format(algorithm=algorithm, options=options, default=default)


def _options(name: str, options: type[Options], base: str, inherited: set[str]) -> str:
    fields = {field: info for field, info in options.model_fields.items() if field not in inherited}
    body = [f"    {field}: {type_of(info.annotation)}" for field, info in fields.items()] or ["    pass"]
    return f"\nclass {name}({base}, total=False):\n" + "\n".join(body) + "\n"


def _section(model: type[BaseModel]) -> str:
    """Return a part of a document as a TypedDict."""
    body = [f"    {name}: {_field(info)}" for name, info in model.model_fields.items()]
    return f"\nclass _{model.__name__}(TypedDict, total=False):\n" + "\n".join(body) + "\n"


def _functional(model: type[BaseModel]) -> str:
    """Return a part of a document some of whose names are no identifiers."""
    body = [f'        "{info.alias or name}": {_field(info)},' for name, info in model.model_fields.items()]
    name = f"_{model.__name__}"
    return f'\n{name} = TypedDict(\n    "{name}",\n    {{\n' + "\n".join(body) + "\n    },\n    total=False,\n)\n"


def _field(info: Any) -> str:
    kind = type_of(info.annotation)
    return f"Required[{kind}]" if info.is_required() else kind


def type_of(annotation: Any) -> str:
    """Return the annotation as source, without bounds: any sequence for a list, a TypedDict for a document's part."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(_quoted(value) for value in arguments)}]"
    if origin in (Union, types.UnionType):
        return " | ".join(_parts(arguments))
    if origin is list:
        return f"Sequence[{type_of(arguments[0])}]"
    if origin is dict:
        return f"dict[{', '.join(_parts(arguments))}]"
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"_{annotation.__name__}"
    return str(getattr(annotation, "__name__", annotation)).removeprefix("typing.")


def _parts(arguments: tuple[Any, ...]) -> Iterator[str]:
    return (type_of(each) for each in arguments)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
