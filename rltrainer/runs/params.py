"""params.json: the document as it is run, with every option and the seed; and what it has been, by iteration."""

import json
import logging
from pathlib import Path
from typing import Any

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import Options
from rltrainer.reporting.rows import Row
from rltrainer.storage.files import finite, write_json
from rltrainer.storage.paths import PARAMS

log = logging.getLogger(__name__)

HISTORY = "history"
"""In params.json, for each document that the run was trained under: the iteration that it holds from, algorithm,
environment, options, and under `given` the names of those options that it gave itself."""
SEARCHED = ("space", "metric", "mode", "scheduler", "search")
"""What of spec.tune says which trials there are, and which is the best."""


def write_params(folder: Path, spec: ExperimentSpec, name: str, options: Options, seed: int | None, start: int) -> None:
    """Write params.json of a run that goes on from iteration `start`. Raises OSError."""
    config = {**options.model_dump(by_alias=True, mode="json"), "seed": seed}
    document = finite({**spec.model_dump(by_alias=True, mode="json", exclude_none=True), "config": config})
    now = {"iteration": start, **_trained(document), "given": sorted(_set_options(spec))}
    before = [each for each in (read_params(folder) or {}).get(HISTORY, []) if each["iteration"] < start]
    if before and {**before[-1], "iteration": start} == now:
        now = before.pop()
    write_json(folder / PARAMS, {"metadata": {"name": name}, **document, HISTORY: [*before, now]})


def read_params(folder: Path) -> Row | None:
    """Read params.json, where there is one that can be read."""
    try:
        content = json.loads((folder / PARAMS).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is not compared with the document: it cannot be read (%s)", folder / PARAMS, error)
        return None
    return content if isinstance(content, dict) else None


def differences(before: Row, spec: ExperimentSpec) -> list[str]:
    """List what `spec` would train otherwise than the document of the params.json `before`, each in a few words.

    An option counts where either of them gives it; a seed that the document leaves out is the one that was drawn.
    """
    options = spec.options().model_dump(by_alias=True, mode="json")
    now = finite({**spec.model_dump(by_alias=True, mode="json"), "config": options})
    names = _set_options(spec) | set((before.get(HISTORY) or [{}])[-1].get("given", ()))
    if spec.options().seed is None:
        names.discard("seed")
    found = [
        (name, old, new)
        for name in ("run", "env")
        if (old := before.get(name)) is not None and old != (new := now[name])
    ]
    if not any(name == "run" for name, *_ in found):  # other algorithms have other options
        found += _changed("", before.get("config", {}), options, names)
    found += _changed("envConfig.", before.get("envConfig", {}), now["envConfig"])
    found += _changed("tune.", before.get("tune", {}), now.get("tune") or {}, set(SEARCHED))
    return [f"{name}: {_short(old)}, now {_short(new)}" for name, old, new in found]


def _trained(document: Row) -> Row:
    return {name: document[name] for name in ("run", "env", "envConfig", "config", "tune") if name in document}


def _set_options(spec: ExperimentSpec) -> set[str]:
    """Return the names of the options that the document gives."""
    fields = type(spec.options()).model_fields
    return {fields[name].alias or name for name in spec.options().model_fields_set if name in fields}


def _changed(prefix: str, old: Row, new: Row, names: set[str] | None = None) -> list[tuple[str, Any, Any]]:
    names = {*old, *new} if names is None else names
    return [(f"{prefix}{name}", old.get(name), new.get(name)) for name in sorted(names) if _differs(old, new, name)]


def _differs(old: Row, new: Row, name: str) -> bool:
    return bool(_without_none(old.get(name)) != _without_none(new.get(name)))


def _without_none(value: Any) -> Any:
    """Drop the fields without a value, which params.json leaves out."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
