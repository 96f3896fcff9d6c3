"""The translation tables, and the page that shows them."""

import subprocess
import sys
from pathlib import Path

import pytest

from rltrainer.api.options import OPTIONS, option_names
from rltrainer.rllib_compat import (
    ALGORITHMS,
)
from rltrainer.rllib_compat.tables import with_tables

PAGE = Path(__file__).parents[3] / "docs" / "migrating.md"


@pytest.mark.parametrize("run", ALGORITHMS)
def test_the_tables_name_existing_options(run: str) -> None:
    algorithm = ALGORITHMS[run]
    our_names = option_names(OPTIONS[algorithm.run])
    targets = {rule.target or name for name, rule in algorithm.rules.items() if rule.kind == "keep"}
    assert targets | {computed.target for computed in algorithm.computed} <= our_names.keys()
    assert algorithm.defaults.keys() <= algorithm.rules.keys() | algorithm.sources


def test_the_page_on_migrating_has_the_current_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "run `python -m rltrainer.rllib_compat.tables docs/migrating.md`"


def test_translating_imports_neither_torch_nor_ray() -> None:
    code = "import sys, rltrainer.rllib_compat; print({'torch', 'ray', 'numpy', 'gymnasium'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"
