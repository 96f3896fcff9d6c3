"""The classic RLlib's files and option names, translated: units and all, with a line for each thing translated.

What is not known, or would change a result and cannot be kept, is refused in words. Imports neither torch nor Ray.
"""

from collections.abc import Mapping
from typing import Any

from rltrainer.api.options import OptionError, for_algorithm, option_names
from rltrainer.rllib_compat.algorithms import CLASSIC
from rltrainer.rllib_compat.config import Reading
from rltrainer.rllib_compat.experiments import Translated, documents, is_classic, translate
from rltrainer.rllib_compat.search import Coupled, with_search

__all__ = ["CLASSIC", "Translated", "documents", "is_classic", "translate", "translate_config"]


def translate_config(
    run: str, config: Mapping[str, Any], over: Mapping[str, Any] | None = None, where: str = "--config"
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Options by either vocabulary as (config, space, notes): ours, what is searched over, and what to say of it.

    `config` goes over the options `over` of algorithm `run`, by our name of it, or over its defaults. Where every name
    in it is ours, so is its meaning; else it is read as RLlib's, whose options may have the same names and other units.
    Raises OptionError.
    """
    classic = CLASSIC.get(run)
    options = for_algorithm(classic.run if classic else run)
    known = option_names(options)
    defaults = {name: options.model_fields[field].default for name, field in known.items()}
    every_name_ours = all(name in known for name in config)
    reading = Reading(run, where, over={**defaults, **(over or {})}, complete=False, ours=every_name_ours)
    try:
        outcome = with_search(reading, config)
    except Coupled as coupled:
        raise OptionError(f"{where}.{coupled}") from None
    for name in outcome.apart:
        place = reading.classic.rows[name].ours
        raise OptionError(f"{where}.{name}: it stands elsewhere in a document, at spec.{place}")
    return outcome.config, outcome.space, outcome.notes
