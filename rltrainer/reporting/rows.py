"""A row of result.json: what one iteration is reported as."""

from typing import Any

Row = dict[str, Any]


def flattened(row: Row) -> Row:
    """A row without nesting: nested names are joined by slashes."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{inner}": found for inner, found in flattened(value).items()}
        else:
            flat[name] = value
    return flat
