"""The tables of docs/migrating.md: `python -m rltrainer.rllib_compat.tables docs/migrating.md` updates them."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rltrainer.rllib_compat.algorithms import RLLIB_ALGORITHMS
from rltrainer.rllib_compat.common import ALIASES, GROUP_ALIASES
from rltrainer.rllib_compat.environments import MUJOCO, RENAMED
from rltrainer.rllib_compat.fields import FIELD_NAMES
from rltrainer.rllib_compat.metrics import METRICS, STOP_METRICS

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
OptionLine = tuple[str, str, str]
"""RLlib's option or options, ours, and the note."""


def main() -> None:
    """Update the tables of the page that the command line names."""
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Replace what stands between the page's marks by the current tables."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}{END}{rest.partition(END)[2]}"


def tables() -> str:
    """Write all tables."""
    environments = {**RENAMED, f"{MUJOCO[0]}-v2, {MUJOCO[1]}-v3 and the like": f"{MUJOCO[0]}-v5, {MUJOCO[1]}-v5"}
    stop = {ours: ", ".join(f"`{name}`" for name in METRICS if METRICS[name] == ours) for ours in sorted(STOP_METRICS)}
    sections = (
        ("An experiment's fields", table(("RLlib", "here"), FIELD_NAMES.items())),
        ("Stop conditions", table(("here", "RLlib"), stop.items())),
        ("Environments", table(("RLlib", "here"), environments.items())),
        ("Options", table(("RLlib", "here", "what to know", "of"), option_lines(), code=False)),
        ("Other names of options", table(("RLlib", "the same as"), aliases())),
        ("Options that are left out", table(("RLlib", "why"), reasons("ignore"), code=False)),
        ("Options that are refused", table(("RLlib", "why, and what to do"), reasons("reject"), code=False)),
    )
    return "".join(f"\n### {title}\n\n{text}" for title, text in sections) + "\n"


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]], code: bool = True) -> str:
    """Write a Markdown table; with `code` its first column is set as code."""
    rows = [" | ".join([f"`{line[0]}`" if code else line[0], *line[1:]]) for line in lines]
    return "".join(f"| {row} |\n" for row in [" | ".join(head), " | ".join(["---"] * len(head)), *rows])


def aliases() -> Iterator[tuple[str, str]]:
    """Yield each alias and the option that it stands for."""
    for name, option in {**ALIASES, **GROUP_ALIASES}.items():
        yield name, f"`{option}`"


def option_lines() -> Iterator[tuple[str, ...]]:
    """Yield a line for each translated option, with the algorithms that have it."""
    algorithms: dict[OptionLine, list[str]] = {}
    for run in RLLIB_ALGORITHMS:
        for line in algorithm_lines(run):
            algorithms.setdefault(line, []).append(run)
    for line, runs in sorted(algorithms.items()):
        yield *line, names_of(runs)


def algorithm_lines(run: str) -> Iterator[OptionLine]:
    """Yield a line for each translated option of one algorithm."""
    algorithm = RLLIB_ALGORITHMS[run]
    for name, rule in algorithm.rules.items():
        if rule.kind in ("keep", "move"):
            yield f"`{name}`", f"`spec.{rule.target}`" if rule.kind == "move" else f"`{rule.target or name}`", rule.note
    for computed in algorithm.computed:
        yield ", ".join(f"`{source}`" for source in computed.sources), f"`{computed.target}`", computed.note


def reasons(kind: str) -> Iterator[tuple[str, str]]:
    """Yield the options whose rule is of one kind, grouped by the reason."""
    algorithms: dict[str, dict[str, list[str]]] = {}
    for run, algorithm in RLLIB_ALGORITHMS.items():
        for name, rule in algorithm.rules.items():
            if rule.kind == kind and rule.note:
                algorithms.setdefault(rule.note, {}).setdefault(name, []).append(run)
    for note, options in sorted(algorithms.items(), key=lambda item: sorted(item[1])):
        names = (
            f"`{name}`" + ("" if names_of(runs) == "all" else f" ({names_of(runs)})")
            for name, runs in sorted(options.items())
        )
        yield ", ".join(names), note


def names_of(runs: list[str]) -> str:
    """List algorithms; "all" for all of them."""
    return "all" if len(runs) == len(RLLIB_ALGORITHMS) else ", ".join(runs)


if __name__ == "__main__":
    main()
