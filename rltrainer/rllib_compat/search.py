"""`grid_search` and the like in a classic `config`: the values of one option here, each translated by itself."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rltrainer.api.options import OptionError, complaint, for_algorithm, option_names
from rltrainer.api.tune import Domain
from rltrainer.rllib_compat.config import GROUPS, Outcome, Reading, read, spoken, translated

Path = tuple[str, ...]
LISTED = ("grid_search", "choice")
CODE = ("sample_from", "eval")
LITERAL = ("env_config", "multiagent", "evaluation_config")
"""Options whose contents are nobody's business here."""
PINNED = "num_envs_per_worker"
"""What RLlib's users leave open and we reckon from other options: one number for a whole search."""


class Coupled(Exception):
    """A search over an option that becomes several here, which would be drawn apart. `values` are those of a grid."""

    def __init__(self, path: Path, values: list[Any], ours: list[str]) -> None:
        name = ".".join(path)
        super().__init__(
            f"{name} is {' and '.join(ours)} together here, which a search would draw apart: "
            "write an experiment for each value"
        )
        self.path, self.values = path, values


def with_search(reading: Reading, config: Mapping[str, Any]) -> Outcome:
    """What `config` is here, the options that are searched over in `space`. Raises OptionError, and Coupled."""
    domains = dict(searched(config, reading.where))
    first = dict(config)
    for path, domain in domains.items():
        first = replaced(first, path, domain.examples()[0])
    outcome = translated(reading, first)
    reckoned = PINNED in outcome.config and PINNED not in read(first, reading.where).values
    base = {**first, PINNED: outcome.config[PINNED]} if reckoned else first
    for path, domain in domains.items():
        several = [translated(reading, replaced(base, path, value)) for value in domain.examples()]
        add(outcome, path, domain, several, reading.where)
    for name in outcome.space:
        outcome.config.pop(name, None)
    return outcome


def searched(config: Mapping[str, Any], where: str, path: Path = ()) -> Iterator[tuple[Path, Domain]]:
    """Each option whose value is to be searched for, and where its values come from. Raises OptionError."""
    for name, value in config.items():
        here = (*path, name)
        if name in LITERAL or not isinstance(value, dict | str):
            continue
        if isinstance(value, str):
            if value.startswith(("tune.", "lambda ")):
                raise OptionError(f"{where}.{'.'.join(here)}: {value} is code; {KINDS}")
        elif len(value) == 1 and next(iter(value)) in (*Domain.model_fields, *CODE):
            yield here, domain_of(value, f"{where}.{'.'.join(here)}")
        elif name in GROUPS:
            yield from searched(value, where, here)


KINDS = f"a document has values: {', '.join(Domain.model_fields)}"


def domain_of(value: dict[str, Any], where: str) -> Domain:
    """Where the values of an option come from. Raises OptionError."""
    (kind,) = value
    if kind in CODE:
        raise OptionError(f"{where}: {kind} is code; {KINDS}")
    try:
        return Domain.model_validate(value)
    except ValidationError as error:
        raise OptionError(complaint(error, where, Domain)) from None


def replaced(config: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """`config` with another value at `path`."""
    found = copy.deepcopy(dict(config))
    inner = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return found


def add(outcome: Outcome, path: Path, domain: Domain, several: list[Outcome], where: str) -> None:
    """Adds to `outcome` the search over the option at `path`, of which `several` are what its examples become."""
    name = ".".join(path)
    ours = changed(several)
    if len(ours) > 1 or any(each.apart != several[0].apart for each in several):
        raise Coupled(path, domain.arguments if domain.kind == "grid_search" else [], ours or sorted(several[0].apart))
    if not ours:
        outcome.notes.append(f"{name} is not searched over: here every value of it means the same")
        return
    if ours[0] in outcome.space:
        raise OptionError(f"{where}.{name}: it decides {ours[0]} here, as another option searched over does")
    known = for_algorithm(outcome.run)
    default = known.model_fields[option_names(known)[ours[0]]].default
    values = [each.config.get(ours[0], default) for each in several]
    arguments = values if domain.kind in LISTED else scaled(domain, values, f"{where}.{name}")
    outcome.space[ours[0]] = {domain.kind: arguments}
    outcome.notes.append(f"{name} is searched over as {ours[0]}: {domain.kind} {spoken(arguments)}")


def changed(several: list[Outcome]) -> list[str]:
    """Our options in which they differ."""
    names = {name for each in several for name in each.config}
    return sorted(
        name for name in names if any(each.config.get(name) != several[0].config.get(name) for each in several)
    )


def scaled(domain: Domain, values: list[Any], where: str) -> list[Any]:
    """The arguments of a continuous domain, in our units. Raises OptionError where these are not proportional."""
    examples = domain.examples()
    factors = {round(value / example, 9) for value, example in zip(values, examples, strict=True) if example}
    if len(factors) != 1 or any(bool(value) != bool(example) for value, example in zip(values, examples, strict=True)):
        raise OptionError(f"{where}: {domain.kind} has no counterpart in the units here: give it a choice of values")
    (factor,) = factors
    return [argument if factor == 1 else argument * factor for argument in domain.arguments]
