"""One classic `config` as options here."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rltrainer.api.options import OptionError, for_algorithm, option_names, parse_options
from rltrainer.rllib_compat.algorithms import CLASSIC, INSTEAD
from rltrainer.rllib_compat.common import ALIASES, GROUP_ALIASES
from rltrainer.rllib_compat.rows import Classic, Joint, Row, Values

GROUPS = (
    *("model", "exploration_config", "replay_buffer_config", "optimization", "optimizer"),
    *("Q_model", "policy_model", *GROUP_ALIASES),
)
"""Classic options that hold others."""


@dataclass
class Outcome:
    """What a `config` is here."""

    run: str
    config: dict[str, Any] = field(default_factory=dict)
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options searched over, and where their values come from, as spec.tune.space has them."""
    apart: dict[str, Any] = field(default_factory=dict)
    """What belongs elsewhere in a document, by its classic name."""
    notes: list[str] = field(default_factory=list)
    judged_greedily: bool = False


@dataclass(frozen=True)
class Reading:
    """How a `config` is read: where it stands, and what stands for what it leaves open."""

    run: str
    where: str
    over: Mapping[str, Any] = field(default_factory=dict)
    """Our options that it goes over, on a command line."""
    complete: bool = True
    """Whether it is a whole experiment's, so that RLlib's defaults complete it."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Other defaults than the algorithm's."""
    ours: bool = False
    """Whether its names are ours already."""

    @property
    def classic(self) -> Classic:
        """The algorithm. Raises OptionError if there is none of that name."""
        if self.run in INSTEAD:
            raise OptionError(f'{self.where}: unknown algorithm "{self.run}": {INSTEAD[self.run]}')
        found = CLASSIC.get(self.run) or Classic(self.run, rows={})
        try:
            for_algorithm(found.run)
        except OptionError as error:
            raise OptionError(f"{self.where}: {error}") from None
        return Classic(found.run, rows={}) if self.ours else found


@dataclass(frozen=True)
class Given:
    """What a `config` says: options by the names that the tables have, and how each was called there."""

    values: dict[str, Any]
    called: dict[str, str]

    def name(self, option: str) -> str:
        """An option as it is called there."""
        return self.called.get(option, option)


def read(config: Mapping[str, Any], where: str) -> Given:
    """What `config` says; what is `auto` is left open. Raises OptionError for a group that is none."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name not in GROUPS:
            flat[name] = value
        elif isinstance(value, dict | None):
            flat |= {f"{name}.{key}": each for key, each in (value or {}).items()}
        else:
            raise OptionError(f"{where}.{name}: takes options by name, got {spoken(value)}")
    given = Given({}, {})
    for name, value in flat.items():
        if value != "auto":
            option = canonical(name)
            given.values[option], given.called[option] = value, name
    return given


def canonical(name: str) -> str:
    """The name that the tables have for an option."""
    group, dot, rest = name.partition(".")
    name = f"{GROUP_ALIASES[group]}.{rest}" if dot and group in GROUP_ALIASES else name
    return ALIASES.get(name, name)


def translated(reading: Reading, config: Mapping[str, Any]) -> Outcome:
    """What `config`, in which nothing is searched over, is here. Raises OptionError that names the option."""
    classic, given = reading.classic, read(config, reading.where)
    if reading.ours:
        given = Given(dict(config), {})
    defaults = {**classic.defaults, **reading.defaults}
    every = {**defaults, **given.values} if reading.complete else given.values
    values = Values(given.values, defaults, reading.over)
    outcome = Outcome(classic.run, judged_greedily=classic.judged_greedily)
    own, plainly_ours = option_names(for_algorithm(classic.run)), dict[str, Any]()
    for name, value in sorted(every.items(), key=lambda item: item[0] in given.values):  # those over defaults
        if name in classic.rows:
            with_row(outcome, name, value, classic.rows[name], given, reading.where)
        elif name not in classic.sources and given.name(name) in own:
            plainly_ours[given.name(name)] = value
        elif name not in classic.sources and not name.rpartition(".")[2].startswith("_"):
            raise OptionError(unknown(reading, classic, given.name(name), value))
    for joint in classic.joints:
        if any(source in every for source in joint.sources):
            with_joint(outcome, joint, values, given, reading.where)
    outcome.config |= plainly_ours
    if reading.complete:
        outcome.notes += completed(outcome, classic, given)
    over = {name: value for name, value in reading.over.items() if name in own}
    parse_options(outcome.run, {**over, **outcome.config}, reading.where)  # some are right or wrong only together
    return outcome


def with_row(outcome: Outcome, name: str, value: Any, row: Row, given: Given, where: str) -> None:
    """Adds what becomes of one option, and says so where it was given. Raises OptionError."""
    called = given.name(name)
    if value in row.harmless and row.fate != "kept":
        return
    if row.fate == "refused":
        raise OptionError(f"{where}.{called}: {row.note}")
    if row.fate == "apart":
        outcome.apart[name] = value
        if row.note and value:
            outcome.notes.append(f"{called} is spec.{row.ours} here: {row.note}")
        return
    found = worked_out(lambda: row.value(value), f"{where}.{called}")
    ours = row.ours or name
    if row.fate == "kept":
        outcome.config[ours] = found
    if name not in given.values:
        return
    if row.fate == "dropped":
        outcome.notes.append(f"{called} is left out: {row.note}")
    elif ours != called or found != value:
        outcome.notes.append(is_here([(called, value)], ours, found, row.note))


def with_joint(outcome: Outcome, joint: Joint, values: Values, given: Given, where: str) -> None:
    """Adds one of our options that several classic ones make, and says so where any was given. Raises OptionError."""
    sources = [source for source in joint.sources if source in given.values]
    found = worked_out(lambda: joint.value(values), f"{where}.{given.name(sources[0]) if sources else joint.ours}")
    if found is None:
        return
    outcome.config[joint.ours] = found
    theirs = [(given.name(source), given.values[source]) for source in sources]
    if theirs and theirs != [(joint.ours, found)]:
        outcome.notes.append(is_here(theirs, joint.ours, found, joint.note, together=len(joint.sources) > 1))


def is_here(theirs: list[tuple[str, Any]], ours: str, found: Any, note: str, together: bool = False) -> str:
    """The line that says what options are here, maybe `together` with others; values are said where they change."""
    if [value for _, value in theirs] == [found]:
        return f"{theirs[0][0]} is {ours} here"
    given = " and ".join(f"{name} {spoken(value)}" for name, value in theirs)
    verb = "is" if not together else "gives" if len(theirs) == 1 else "give"
    return f"{given} {verb} {ours} {spoken(found)} here" + (f": {note}" if note else "")


def worked_out(value: Any, where: str) -> Any:
    """What `value()` gives; what it finds wrong as an OptionError that says where."""
    try:
        return value()
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where}: {error}") from None


def completed(outcome: Outcome, classic: Classic, given: Given) -> list[str]:
    """What to say of the options that RLlib's defaults decide alone."""
    said = given.values.keys()
    decided = {row.ours or name for name, row in classic.rows.items() if name in said and row.fate == "kept"}
    decided |= {joint.ours for joint in classic.joints if said & set(joint.sources)}
    left = [f"{name} {spoken(value)}" for name, value in outcome.config.items() if name not in decided | said]
    return [f"left open, and as RLlib has it: {', '.join(left)}"] if left else []


def unknown(reading: Reading, classic: Classic, name: str, value: Any) -> str:
    """What is said of an option that neither RLlib nor we know of this algorithm."""
    near = difflib.get_close_matches(name, [*classic.rows, *classic.sources], n=1, cutoff=0.8)
    if near:
        return f'{reading.run} has no option "{name}" (in {reading.where}). Did you mean "{near[0]}"?'
    try:
        parse_options(classic.run, {name: value}, reading.where)
    except OptionError as error:
        return str(error)
    return f'{reading.run} has no option "{name}" (in {reading.where})'


def spoken(value: Any) -> str:
    """A value as a document writes it."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str)
