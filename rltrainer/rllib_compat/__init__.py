"""RLlib's YAML files and option names, translated into documents of ours, with a note for each difference.

One table per algorithm family maps each of RLlib's options to our name, to a function that computes our value, or to
the reason why it is left out or rejected: common.py for all algorithms, policy_gradient.py, q_learning.py and
continuous.py, the last two over replay.py. rules.py defines what a table is made of. What is unknown, or would change
a result and cannot be translated, is an error. Imports neither torch nor Ray.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rltrainer.api.options import OptionError, for_algorithm, option_names
from rltrainer.rllib_compat.algorithms import ALGORITHMS
from rltrainer.rllib_compat.experiments import (
    TranslatedDocument,
    is_rllib_document,
    translate_experiments,
    translate_file,
)
from rltrainer.rllib_compat.options import ConfigContext, translate_options, yaml_value
from rltrainer.rllib_compat.search import CoupledOptionsError, translate_searched

__all__ = [
    "ALGORITHMS",
    "TranslatedDocument",
    "is_rllib_document",
    "translate_config",
    "translate_experiments",
    "translate_file",
]


def translate_config(
    run: str, config: Mapping[str, Any], over: Mapping[str, Any] | None = None, where: str = "--config"
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Translate options under our names or RLlib's to (config, space, notes): options, search domains, notes.

    `config` goes over the options `over` of algorithm `run`, by our name of it, or over its defaults. A name that is
    ours has our meaning, whatever stands beside it, and a note says where RLlib's would be another; the others are
    RLlib's. Raises OptionError.
    """
    algorithm = ALGORITHMS.get(run)
    options = for_algorithm(algorithm.run if algorithm else run)
    our_names = option_names(options)
    defaults = {name: options.model_fields[field].default for name, field in our_names.items()}
    context = ConfigContext(run, where, over={**defaults, **(over or {})}, complete=False, our_names=our_names)
    try:
        result = translate_searched(context, config)
    except CoupledOptionsError as coupled:
        raise OptionError(f"{where}.{coupled}") from None
    for name in result.moved:
        field = context.algorithm.rules[name].target
        raise OptionError(f"{where}.{name}: it stands elsewhere in a document, at spec.{field}")
    if "target_update_freq" in result.config.keys() - config.keys() and "updates_per_step" not in (over or {}):
        # it was counted in updates at the default rate, which another task may have otherwise
        result.config.setdefault("updates_per_step", defaults["updates_per_step"])
    is_mixed = not config.keys() <= our_names.keys()
    return result.config, result.space, [*result.notes, *(other_meanings(context, config) if is_mixed else ())]


def other_meanings(context: ConfigContext, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note on each name of ours that RLlib has too, and means another value by."""
    for name, value in config.items():
        if name in context.our_names and not isinstance(value, dict):
            try:
                theirs = translate_options(replace(context, our_names=()), {name: value}).config.get(name, value)
            except OptionError:
                continue  # it is no value of RLlib's
            if theirs != value:
                yield f"{name} {yaml_value(value)} has its meaning here; what RLlib means by it is {yaml_value(theirs)}"
