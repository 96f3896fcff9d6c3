"""A row of result.json: what one iteration is reported as."""

from typing import Any

Row = dict[str, Any]


def flattened(row: Row) -> Row:
    """Flatten a row: nested names are joined by slashes."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{inner}": nested for inner, nested in flattened(value).items()}
        else:
            flat[name] = value
    return flat
