"""Domains of a document as Ray Tune has them, and the options of trials that are known beforehand."""

import itertools
from typing import Any

import numpy as np
from ray import tune

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import option_names, parse_options
from rltrainer.api.options.parsing import for_algorithm
from rltrainer.api.tune import Domain, Tune

Chosen = dict[str, Any]
"""Options by name."""


def domain(given: Domain) -> Any:
    """`given` in Ray Tune's own terms; what it calls a grid is a choice here."""
    if given.kind in ("grid_search", "choice"):
        return tune.choice(given.arguments)
    return getattr(tune, given.kind)(*given.arguments)


def draw(search: Tune) -> list[Chosen]:
    """The options of all trials of a random search: each point of the grid, numSamples times."""
    rng = np.random.RandomState(search.search.seed)
    names = list(search.space)
    grids = {name: given.arguments for name, given in search.space.items() if given.kind == "grid_search"}
    domains = {name: domain(given) for name, given in search.space.items() if name not in grids}
    chosen = []
    for _ in range(search.num_samples):
        for point in itertools.product(*grids.values()):
            fixed = dict(zip(grids, point, strict=True))
            drawn = {name: plain(each.sample(random_state=rng)) for name, each in domains.items()}
            chosen.append({name: {**fixed, **drawn}[name] for name in names})
    return chosen


def trial_count(search: Tune) -> int:
    """How many trials a search has."""
    points = 1
    for given in search.space.values():
        points *= len(given.arguments) if given.kind == "grid_search" else 1
    return search.num_samples * points


def checked(spec: ExperimentSpec, options: Chosen) -> Chosen:
    """`options`, if the algorithm takes them together with those of the document. Raises OptionError."""
    parse_options(spec.run, {**spec.config, **options}, where="spec.tune.space")
    return options


def plain(value: Any) -> Any:
    """A drawn value as JSON has it, to 12 digits: multiples of a step come with errors in the last ones."""
    value = value.item() if isinstance(value, np.generic) else value
    return float(f"{value:.12g}") if isinstance(value, float) else value


def mutations(search: Tune) -> dict[str, Any]:
    """What a population-based search changes options within."""
    return {
        name: given.arguments if given.kind in ("grid_search", "choice") else domain(given)
        for name, given in search.space.items()
    }


def clamped(spec: ExperimentSpec, search: Tune, config: dict[str, Any]) -> dict[str, Any]:
    """`config` after a perturbation, with options of the space back within its bounds."""
    result = dict(config)
    for name, given in search.space.items():
        if given.kind in ("grid_search", "choice", "randn", "qrandn"):
            continue
        low, high = given.examples()
        value = min(max(plain(config[name]), low), high)
        result[name] = int(value) if _is_integer(spec, name) else value
    return result


def _is_integer(spec: ExperimentSpec, name: str) -> bool:
    options = for_algorithm(spec.run)
    return options.model_fields[option_names(options)[name]].annotation is int
