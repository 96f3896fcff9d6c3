"""Merging of pod templates, as strategic merge patches do it, as far as our documents need it; and comparing."""

from collections.abc import Iterator
from typing import Any

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
_BESIDE_ONE = {"env": {"name"}, "volumes": {"name"}, "preStop": set[str](), "postStart": set[str]()}
"""Objects that have one field of several, and the fields beside it: a variable its value or where that comes from, a
volume its source, a hook its handler. Another one takes the place of the one that was there."""


def merge(base: Any, over: Any, field: str = "") -> Any:
    """`over` on top of `base`: objects field by field, the lists named above by their key, all else replaced.

    A null in `over` removes the field. `over` has no malformed lists.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        base = _without_rivals(base, over, field)
        merged = {key: value for key, value in base.items() if key not in over}
        kept = {key: merge(base.get(key), value, key) for key, value in over.items() if value is not None}
        return merged | kept
    if isinstance(base, list) and isinstance(over, list) and field in _MERGE_KEYS:
        return _merge_lists(base, over, field)
    return over


def _without_rivals(base: dict[str, Any], over: dict[str, Any], field: str) -> dict[str, Any]:
    beside = _BESIDE_ONE.get(field)
    if beside is None or {key for key, value in over.items() if value is not None} <= {*base, *beside}:
        return base
    return {key: value for key, value in base.items() if key in beside}


def _merge_lists(base: list[Any], over: list[Any], field: str) -> list[Any]:
    key = _MERGE_KEYS[field]
    changes = {item[key]: item for item in over}
    merged = [merge(item, changes.pop(item[key]), field) if item.get(key) in changes else item for item in base]
    return merged + list(changes.values())


def covers(there: Any, wanted: Any) -> bool:
    """Return whether an object has all that is wanted of it; fields that others have added are no matter."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        return all(covers(there.get(key), value) for key, value in wanted.items())
    if isinstance(there, list) and isinstance(wanted, list):
        return len(there) == len(wanted) and all(map(covers, there, wanted))
    return bool(there == wanted)


def malformed(template: dict[str, Any]) -> str | None:
    """Say which part of a pod template cannot be merged, by its path, and what it must be; None where all can be."""
    return next(_malformed(template, "podTemplate"), None)


def _malformed(template: dict[str, Any], path: str) -> Iterator[str]:
    for key in ("metadata", "spec"):
        if not isinstance(template.get(key, {}), dict):
            yield f"{path}.{key} must be an object"
            return
    metadata = template.get("metadata", {})
    if not isinstance(metadata.get("labels") or {}, dict):
        yield f"{path}.metadata.labels must be an object"
    if "containers" in template.get("spec", {}) and template["spec"]["containers"] is None:
        yield f"{path}.spec.containers must be a list of objects with a name"
    yield from _malformed_lists(template, path)


def _malformed_lists(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _malformed_lists(item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    for field, item in value.items():
        key = _MERGE_KEYS.get(field)
        if key and item is not None and not _is_keyed(item, key):
            yield f"{path}.{field} must be a list of objects, each with another {key}"
        else:
            yield from _malformed_lists(item, f"{path}.{field}")


def _is_keyed(items: Any, key: str) -> bool:
    """Whether this is a list of objects that `key` tells apart."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return False
    keys = [item.get(key) for item in items]
    return all(isinstance(each, str | int) for each in keys) and (key != "name" or len(set(keys)) == len(keys))
