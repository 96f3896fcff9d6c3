"""A YAML file, and the line that each field stands in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class YamlFile:
    """What is in a file, and where."""

    path: Path
    content: Any
    root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> "YamlFile":
        """Reads `path`. Raises OSError, and ValueError with the file, the line and what is wrong there."""
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            root = loader.get_single_node()
            _check_distinct(root, path)
            return cls(path, None if root is None else loader.construct_document(root), root)
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not text in UTF-8") from None
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}:{error.problem_mark.column + 1}" if error.problem_mark else ""
            what = ", ".join(part for part in (error.context, error.problem) if part)
            raise ValueError(f"{path}{line}: not YAML: {what}") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from None

    def at(self, field: Sequence[str | int]) -> str:
        """`file:line` of a field, given as the keys that lead to it, or of the innermost part of it that is there."""
        node, line = self.root, 0
        for key in field:
            place, node = _below(node, key)
            if place is None:
                break
            line = place.start_mark.line + 1
        return f"{self.path}:{line}" if line else str(self.path)


def _below(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Where `key` is written in a mapping or list, and what stands under it."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None, None


def _check_distinct(node: yaml.Node | None, path: Path) -> None:
    """Raises ValueError where a key is given twice: YAML's own reader takes the last one and says nothing."""
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
