"""`grid_search` and the like in a `config` of RLlib: the domain of one option here, each of its values translated."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rltrainer.api.options import OptionError, complaint, for_algorithm, option_names
from rltrainer.api.tune import Domain
from rltrainer.rllib_compat.options import (
    GROUPS,
    ConfigContext,
    TranslatedConfig,
    parse_config,
    translate_options,
    yaml_value,
)

Path = tuple[str, ...]
LISTS = ("grid_search", "choice")
CODE = ("sample_from", "eval")
OPAQUE = ("env_config", "multiagent", "evaluation_config", "custom")
"""Options that are not looked into."""
NUM_ENVS = "num_envs_per_worker"
"""What a file of RLlib may leave open and is then computed from other options: one number for a whole search."""


class CoupledOptionsError(Exception):
    """A search over an option that becomes several here, which would be drawn independently.

    `values` are those of a grid, else empty.
    """

    def __init__(self, path: Path, values: list[Any], targets: list[str]) -> None:
        name = ".".join(path)
        super().__init__(
            f"{name} is {' and '.join(targets)} together here, which a search would draw apart: "
            "write an experiment for each value"
        )
        self.path, self.values = path, values


def translate_searched(context: ConfigContext, config: Mapping[str, Any]) -> TranslatedConfig:
    """Translate a `config`, with the options that are searched over in `space`.

    Raises OptionError and CoupledOptionsError.
    """
    domains = dict(find_domains(config, context.where))
    first = dict(config)
    for path, domain in domains.items():
        first = with_value_at(first, path, domain.examples()[0])
    result = translate_options(context, first)
    num_envs_computed = NUM_ENVS in result.config and NUM_ENVS not in parse_config(first, context.where).values
    base = {**first, NUM_ENVS: result.config[NUM_ENVS]} if num_envs_computed else first
    for path, domain in domains.items():
        examples = [translate_options(context, with_value_at(base, path, value)) for value in domain.examples()]
        add_domain(result, path, domain, examples, context.where)
    for name in result.space:
        result.config.pop(name, None)
    return result


def find_domains(config: Mapping[str, Any], where: str, path: Path = ()) -> Iterator[tuple[Path, Domain]]:
    """Yield each option that is searched over, by its path, with its domain. Raises OptionError."""
    for name, value in config.items():
        here = (*path, name)
        if name in OPAQUE or not isinstance(value, dict | str):
            continue
        if isinstance(value, str):
            if value.startswith(("tune.", "lambda ")):
                raise OptionError(f"{where}.{'.'.join(here)}: {value} is code; {KINDS}")
        elif len(value) == 1 and next(iter(value)) in (*Domain.model_fields, *CODE):
            yield here, parse_domain(value, f"{where}.{'.'.join(here)}")
        elif name in GROUPS:
            yield from find_domains(value, where, here)


KINDS = f"a document has values: {', '.join(Domain.model_fields)}"


def parse_domain(value: dict[str, Any], where: str) -> Domain:
    """Parse a domain. Raises OptionError."""
    (kind,) = value
    if kind in CODE:
        raise OptionError(f"{where}: {kind} is code; {KINDS}")
    try:
        return Domain.model_validate(value)
    except ValidationError as error:
        raise OptionError(complaint(error, where, Domain)) from None


def with_value_at(config: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Copy `config` with another value at `path`."""
    replaced = copy.deepcopy(dict(config))
    inner = replaced
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return replaced


def add_domain(
    result: TranslatedConfig, path: Path, domain: Domain, examples: list[TranslatedConfig], where: str
) -> None:
    """Add the search over the option at `path` to `result`.

    `examples` are translations of the config, one for each of the domain's examples.
    """
    name = ".".join(path)
    targets = differing_options(examples)
    if len(targets) > 1 or any(each.moved != examples[0].moved for each in examples):
        values = domain.arguments if domain.kind == "grid_search" else []
        raise CoupledOptionsError(path, values, targets or sorted(examples[0].moved))
    if not targets:
        result.notes.append(f"{name} is not searched over: here every value of it means the same")
        return
    (target,) = targets
    if target in result.space:
        raise OptionError(f"{where}.{name}: it decides {target} here, as another option searched over does")
    options = for_algorithm(result.run)
    default = options.model_fields[option_names(options)[target]].default
    values = [each.config.get(target, default) for each in examples]
    arguments = values if domain.kind in LISTS else rescale(domain, values, f"{where}.{name}")
    result.space[target] = {domain.kind: arguments}
    result.notes.append(f"{name} is searched over as {target}: {domain.kind} {yaml_value(arguments)}")


def differing_options(examples: list[TranslatedConfig]) -> list[str]:
    """Return our options in which the examples differ."""
    names = {name for each in examples for name in each.config}
    return sorted(
        name for name in names if any(each.config.get(name) != examples[0].config.get(name) for each in examples)
    )


def rescale(domain: Domain, values: list[Any], where: str) -> list[Any]:
    """Convert the arguments of a continuous domain to our units.

    `values` are our values of the domain's examples. Raises OptionError where they are not proportional to these.
    """
    examples = domain.examples()
    factors = {round(value / example, 9) for value, example in zip(values, examples, strict=True) if example}
    if len(factors) != 1 or any(bool(value) != bool(example) for value, example in zip(values, examples, strict=True)):
        raise OptionError(f"{where}: {domain.kind} has no counterpart in the units here: give it a choice of values")
    (factor,) = factors
    return [argument if factor == 1 else argument * factor for argument in domain.arguments]
