"""One `config` of RLlib as options of ours: each option by the rules of its algorithm."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rltrainer.api.options import OptionError, for_algorithm, option_names, parse_options, task_free_defaults
from rltrainer.api.options.parsing import SYNONYMS
from rltrainer.rllib_compat.algorithms import ALGORITHMS, ALTERNATIVES
from rltrainer.rllib_compat.common import ALIASES, AUTO, GROUP_ALIASES
from rltrainer.rllib_compat.rules import AlgorithmRules, Computed, OptionValues, Rule

GROUPS = (
    *("model", "exploration_config", "replay_buffer_config", "optimization", "optimizer"),
    *("Q_model", "policy_model", *GROUP_ALIASES),
)
"""RLlib's options that hold others."""


@dataclass
class TranslatedConfig:
    """A `config` of RLlib as ours."""

    run: str
    config: dict[str, Any] = field(default_factory=dict)
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The domain of each option that is searched over, as spec.tune.space has it."""
    moved: dict[str, Any] = field(default_factory=dict)
    """Options that belong to another part of the document, by RLlib's name."""
    notes: list[str] = field(default_factory=list)
    """A line for each option whose name or value differs here, or that is left out."""
    reward_is_greedy: bool = False


@dataclass(frozen=True)
class ConfigContext:
    """Where a `config` comes from, and what holds for the options that it does not set."""

    run: str
    where: str
    """The place that errors name."""
    over: Mapping[str, Any] = field(default_factory=dict)
    """Our options that a command line's go over, with their defaults."""
    complete: bool = True
    """Whether it is a whole experiment's, so that RLlib's defaults complete it."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults that come before the algorithm's."""
    our_names: Collection[str] = ()
    """Names that are ours, and so mean what they mean here whatever stands beside them."""

    @property
    def algorithm(self) -> AlgorithmRules:
        """The algorithm's rules. Raises OptionError for an unknown algorithm."""
        if self.run in ALTERNATIVES:
            raise OptionError(f'{self.where}: unknown algorithm "{self.run}": {ALTERNATIVES[self.run]}')
        algorithm = ALGORITHMS.get(self.run) or AlgorithmRules(self.run, rules={})
        try:
            for_algorithm(algorithm.run)
        except OptionError as error:
            raise OptionError(f"{self.where}: {error}") from None
        return algorithm


@dataclass(frozen=True)
class ParsedConfig:
    """The options of a `config` under the names that the tables have, and how each was spelled."""

    values: dict[str, Any]
    spellings: dict[str, str]

    def spelling(self, option: str) -> str:
        """Return an option's name as the config spells it."""
        return self.spellings.get(option, option)


def parse_config(config: Mapping[str, Any], where: str) -> ParsedConfig:
    """Flatten a `config` and resolve its aliases. Raises OptionError for a group that is no mapping,
    and for an option that has two values under two names.
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name not in GROUPS:
            flat[name] = value
        elif isinstance(value, dict | None):
            flat |= {f"{name}.{key}": each for key, each in (value or {}).items()}
        else:
            raise OptionError(f"{where}.{name}: takes options by name, got {yaml_value(value)}")
    parsed = ParsedConfig({}, {})
    for name, value in flat.items():
        option = canonical_name(name)
        if option in parsed.values and parsed.values[option] != value:
            raise OptionError(f"{where}.{name}: {parsed.spelling(option)} is another name of it: give one of them")
        parsed.values[option], parsed.spellings[option] = value, name
    return parsed


def canonical_name(name: str) -> str:
    """Return the name that the tables have for an option."""
    group, dot, rest = name.partition(".")
    name = f"{GROUP_ALIASES[group]}.{rest}" if dot and group in GROUP_ALIASES else name
    return ALIASES.get(name, name)


def translate_options(context: ConfigContext, config: Mapping[str, Any]) -> TranslatedConfig:
    """Translate a `config` in which nothing is searched over. Raises OptionError that names the option."""
    algorithm, our_names = context.algorithm, option_names(for_algorithm(context.algorithm.run))
    ours = {name: value for name, value in config.items() if name in context.our_names}
    parsed = parse_config({name: value for name, value in config.items() if name not in ours}, context.where)
    check_names(context, algorithm, parsed, our_names)
    defaults = {**algorithm.defaults, **context.defaults}
    over = {name: value for name, value in {**context.over, **ours}.items() if name in our_names}
    result = TranslatedConfig(algorithm.run, reward_is_greedy=algorithm.reward_is_greedy)
    parsed = without_auto(result, algorithm, parsed, OptionValues(parsed.values, defaults, over), context.where)
    values = OptionValues(parsed.values, defaults, over)
    options = {**defaults, **parsed.values} if context.complete else parsed.values
    for name, value in sorted(options.items(), key=lambda item: item[0] in parsed.values):  # set ones over defaults
        if name in algorithm.rules:
            apply_rule(result, name, value, algorithm.rules[name], parsed, context.where)
    for computed in algorithm.computed:
        deciding = computed.sources if context.complete else computed.deciding or computed.sources
        if any(source in options for source in deciding):
            apply_computed(result, computed, values, parsed, context.where)
    if context.complete:
        result.notes += defaults_note(result, algorithm, parsed)
    foreign = {parsed.spelling(name): value for name, value in parsed.values.items() if not algorithm.knows(name)}
    put_ours(result, {**foreign, **ours}, algorithm, parsed, context.where)
    if context.complete:  # RLlib has one default for all tasks
        result.config = {**task_free_options(algorithm.run, result.config), **result.config}
    parse_options(result.run, {**over, **result.config}, context.where)  # some are valid or not only together
    return result


def task_free_options(run: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, by our names, that keep tasks from having other defaults; none that `config` leaves without
    effect."""
    unused = {name.removesuffix("_schedule") for name in config if name.endswith("_schedule")}
    unused |= {"epsilon_schedule"} if config.get("noisy") else set()
    return {name: value for name, value in task_free_defaults(for_algorithm(run)).items() if name not in unused}


def check_names(
    context: ConfigContext, algorithm: AlgorithmRules, parsed: ParsedConfig, our_names: Collection[str]
) -> None:
    """Hold that each name is one of RLlib's or of ours, whatever its value. Raises OptionError."""
    problems = [
        unknown_option(context, algorithm, parsed.spelling(name), value)
        for name, value in parsed.values.items()
        if not algorithm.knows(name) and parsed.spelling(name) not in our_names
    ]
    if problems:
        raise OptionError(problems[0], others=[(problem, ()) for problem in problems[1:]])


def without_auto(
    result: TranslatedConfig, algorithm: AlgorithmRules, parsed: ParsedConfig, values: OptionValues, where: str
) -> ParsedConfig:
    """Replace each of RLlib's options that is "auto" by its value, or leave it open, with a note.

    Raises OptionError for an option that RLlib has no "auto" of.
    """
    kept = dict(parsed.values)
    for name, value in parsed.values.items():
        if value != "auto" or not algorithm.knows(name):
            continue
        spelling = parsed.spelling(name)
        if name not in AUTO:
            raise OptionError(f'{where}.{spelling}: takes a value, got "auto"')
        if name == "rollout_fragment_length":
            kept[name] = algorithm.fragment(values)
            result.notes.append(f'{spelling} "auto" is {kept[name]} here')
        else:
            del kept[name]
            result.notes.append(f'{spelling} "auto" is left to its default here')
    return ParsedConfig(kept, parsed.spellings)


def put_ours(
    result: TranslatedConfig, ours: dict[str, Any], algorithm: AlgorithmRules, parsed: ParsedConfig, where: str
) -> None:
    """Put options that have our names over the translated ones. Raises OptionError where one of RLlib's differs."""
    for name, value in ours.items():
        if result.config.get(name, value) != value:
            rivals = [parsed.spelling(other) for other in algorithm.deciding(name) if other in parsed.values]
            if rivals:
                raise OptionError(f"{where}.{name}: {' and '.join(rivals)} decides it too: give one of them")
        result.config[name] = value


def apply_rule(result: TranslatedConfig, name: str, value: Any, rule: Rule, parsed: ParsedConfig, where: str) -> None:
    """Add one option to `result`, with a note where the config sets it. Raises OptionError."""
    spelling = parsed.spelling(name)
    if value in rule.no_effect and rule.kind != "keep":
        return
    if rule.kind == "reject":
        raise OptionError(f"{where}.{spelling}: {rule.note}")
    if rule.kind == "move":
        result.moved[name] = value
        if rule.note and value:
            result.notes.append(f"{spelling} is spec.{rule.target} here: {rule.note}")
        return
    converted = evaluate(lambda: rule.convert(value), f"{where}.{spelling}")
    target = rule.target or name
    if rule.kind == "keep":
        result.config[target] = converted
    if name not in parsed.values:
        return
    if rule.kind == "ignore":
        result.notes.append(f"{spelling} is left out: {rule.note}")
    elif target != spelling or converted != value:
        result.notes.append(translation_note([(spelling, value)], target, converted, rule.note))


def apply_computed(
    result: TranslatedConfig, computed: Computed, values: OptionValues, parsed: ParsedConfig, where: str
) -> None:
    """Add a computed option to `result`, with a note where the config sets any of its sources. Raises OptionError."""
    target = computed.target
    sources = [source for source in computed.sources if source in parsed.values]
    value = evaluate(lambda: computed.value(values), f"{where}.{parsed.spelling(sources[0]) if sources else target}")
    if value is None:
        return
    result.config[target] = value
    theirs = [(parsed.spelling(source), parsed.values[source]) for source in sources]
    if theirs and theirs != [(target, value)]:
        together = len(computed.sources) > 1
        result.notes.append(translation_note(theirs, target, value, computed.note, together))


def translation_note(
    theirs: list[tuple[str, Any]], target: str, value: Any, reason: str, together: bool = False
) -> str:
    """The note on RLlib's options that are `target` here, maybe `together` with others; with values that change."""
    if [their_value for _, their_value in theirs] == [value]:
        return f"{theirs[0][0]} is {target} here"
    sources = " and ".join(f"{name} {yaml_value(their_value)}" for name, their_value in theirs)
    verb = "is" if not together else "gives" if len(theirs) == 1 else "give"
    return f"{sources} {verb} {target} {yaml_value(value)} here" + (f": {reason}" if reason else "")


def evaluate(convert: Callable[[], Any], where: str) -> Any:
    """Return `convert()`; its TypeError or ValueError becomes an OptionError that names the place."""
    try:
        return convert()
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where}: {error}") from None


def defaults_note(result: TranslatedConfig, algorithm: AlgorithmRules, parsed: ParsedConfig) -> list[str]:
    """The note on options that come from RLlib's defaults alone, if there are any."""
    names = parsed.values.keys()
    from_config = {
        rule.target or name for name, rule in algorithm.rules.items() if name in names and rule.kind == "keep"
    }
    from_config |= {computed.target for computed in algorithm.computed if names & set(computed.sources)}
    defaults = [
        f"{name} {yaml_value(value)}" for name, value in result.config.items() if name not in from_config | names
    ]
    return [f"left open, and as RLlib has it: {', '.join(defaults)}"] if defaults else []


def unknown_option(context: ConfigContext, algorithm: AlgorithmRules, name: str, value: Any) -> str:
    """The message about an option that is neither RLlib's nor ours."""
    near = difflib.get_close_matches(name, [*algorithm.rules, *algorithm.sources], n=1, cutoff=0.8)
    if near and name not in SYNONYMS:
        return f'{context.run} has no option "{name}" (in {context.where}). Did you mean "{near[0]}"?'
    try:
        parse_options(algorithm.run, {name: value}, context.where)
    except OptionError as error:
        return str(error)
    return f'{context.run} has no option "{name}" (in {context.where})'


def yaml_value(value: Any) -> str:
    """Format a value as a document writes it."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str)
