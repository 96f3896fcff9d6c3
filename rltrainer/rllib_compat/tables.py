"""The tables of docs/migrating.md: `python -m rltrainer.rllib_compat.tables docs/migrating.md` writes them anew."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rltrainer.rllib_compat.algorithms import RLLIB
from rltrainer.rllib_compat.common import ALIASES, GROUP_ALIASES
from rltrainer.rllib_compat.environments import MUJOCO, RENAMED
from rltrainer.rllib_compat.fields import EXPERIMENT
from rltrainer.rllib_compat.judging import METRICS, STOPS

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
Line = tuple[str, str, str]
"""An option there, what it is here, and what to know."""


def main() -> None:
    """Writes the tables anew into the page that is named."""
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(page: str) -> str:
    """The page with the tables of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}{END}{rest.partition(END)[2]}"


def tables() -> str:
    """All tables."""
    environments = {**RENAMED, f"{MUJOCO[0]}-v2, {MUJOCO[1]}-v3 and the like": f"{MUJOCO[0]}-v5, {MUJOCO[1]}-v5"}
    stops = {ours: ", ".join(f"`{name}`" for name in METRICS if METRICS[name] == ours) for ours in sorted(STOPS)}
    parts = (
        ("An experiment's fields", table(("RLlib", "here"), EXPERIMENT.items())),
        ("Stop conditions", table(("here", "RLlib"), stops.items())),
        ("Environments", table(("RLlib", "here"), environments.items())),
        ("Options", table(("RLlib", "here", "what to know", "of"), options(), code=False)),
        ("Other names of options", table(("RLlib", "the same as"), aliases())),
        ("Options that are left out", table(("RLlib", "why"), reasons("dropped"), code=False)),
        ("Options that are refused", table(("RLlib", "why, and what to do"), reasons("refused"), code=False)),
    )
    return "".join(f"\n### {title}\n\n{text}" for title, text in parts) + "\n"


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]], code: bool = True) -> str:
    """A table of Markdown, its first column as code."""
    rows = [" | ".join([f"`{line[0]}`" if code else line[0], *line[1:]]) for line in lines]
    return "".join(f"| {row} |\n" for row in [" | ".join(head), " | ".join(["---"] * len(head)), *rows])


def aliases() -> Iterator[tuple[str, str]]:
    """Names that the same options have had."""
    for name, option in {**ALIASES, **GROUP_ALIASES}.items():
        yield name, f"`{option}`"


def options() -> Iterator[tuple[str, ...]]:
    """Every option that there is in some form, and the algorithms that it is of."""
    owners: dict[Line, list[str]] = {}
    for run in RLLIB:
        for line in lines_of(run):
            owners.setdefault(line, []).append(run)
    for line, runs in sorted(owners.items()):
        yield *line, of(runs)


def lines_of(run: str) -> Iterator[Line]:
    """What becomes of the options of one algorithm."""
    classic = RLLIB[run]
    for name, row in classic.rows.items():
        if row.fate in ("kept", "apart"):
            yield f"`{name}`", f"`spec.{row.ours}`" if row.fate == "apart" else f"`{row.ours or name}`", row.note
    for joint in classic.joints:
        yield ", ".join(f"`{source}`" for source in joint.sources), f"`{joint.ours}`", joint.note


def reasons(fate: str) -> Iterator[tuple[str, str]]:
    """The options of one fate by the reason for it."""
    owners: dict[str, dict[str, list[str]]] = {}
    for run, classic in RLLIB.items():
        for name, row in classic.rows.items():
            if row.fate == fate and row.note:
                owners.setdefault(row.note, {}).setdefault(name, []).append(run)
    for note, names in sorted(owners.items(), key=lambda item: sorted(item[1])):
        some = (f"`{name}`" + ("" if of(runs) == "all" else f" ({of(runs)})") for name, runs in sorted(names.items()))
        yield ", ".join(some), note


def of(runs: list[str]) -> str:
    """Algorithms, `all` where these are all."""
    return "all" if len(runs) == len(RLLIB) else ", ".join(runs)


if __name__ == "__main__":
    main()
