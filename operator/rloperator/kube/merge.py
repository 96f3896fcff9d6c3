"""Merging of pod templates, as strategic merge patches do it, as far as our documents need it."""

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


def merge(base: Any, over: Any, field: str = "") -> Any:
    """`over` on top of `base`: objects field by field, the lists named above by their key, all else replaced.

    A null in `over` removes the field.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        merged = {key: value for key, value in base.items() if key not in over}
        kept = {key: merge(base.get(key), value, key) for key, value in over.items() if value is not None}
        return merged | kept
    if isinstance(base, list) and isinstance(over, list) and field in _MERGE_KEYS:
        return _merge_lists(base, over, _MERGE_KEYS[field])
    return over


def _merge_lists(base: list[Any], over: list[Any], key: str) -> list[Any]:
    changes = {item.get(key): item for item in over}
    merged = [merge(item, changes.pop(item[key])) if item.get(key) in changes else item for item in base]
    return merged + list(changes.values())
