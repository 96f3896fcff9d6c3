"""Domains of a document as Ray Tune has them, and the options of trials that are known beforehand."""

import itertools
from typing import Any

import numpy as np
from ray import tune

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import option_names, parse_options
from rltrainer.api.options.parsing import for_algorithm
from rltrainer.api.tune import INTEGERS, Domain, Tune, algorithm_options, with_env_values

OptionValues = dict[str, Any]
"""Options by name."""


def tune_domain(domain: Domain) -> Any:
    """Return `domain` in Ray Tune's own terms; what it calls a grid is a choice here."""
    if domain.kind in ("grid_search", "choice"):
        return tune.choice(domain.arguments)
    return getattr(tune, domain.kind)(*domain.arguments)


def draw(search: Tune) -> list[OptionValues]:
    """Draw the options of all trials of a random search: each point of the grid, numSamples times."""
    rng = np.random.RandomState(search.search.seed)
    names = list(search.space)
    grids = {name: domain.arguments for name, domain in search.space.items() if domain.kind == "grid_search"}
    domains = {name: tune_domain(domain) for name, domain in search.space.items() if name not in grids}
    trials = []
    for _ in range(search.num_samples):
        for point in itertools.product(*grids.values()):
            fixed = dict(zip(grids, point, strict=True))
            drawn = {name: plain(each.sample(random_state=rng)) for name, each in domains.items()}
            trials.append({name: {**fixed, **drawn}[name] for name in names})
    return trials


def trial_count(search: Tune) -> int:
    """Return how many trials a search has."""
    points = 1
    for domain in search.space.values():
        points *= len(domain.arguments) if domain.kind == "grid_search" else 1
    return search.num_samples * points


def checked(spec: ExperimentSpec, options: OptionValues) -> OptionValues:
    """Return `options` if the algorithm takes them together with those of the document. Raises OptionError."""
    parse_options(spec.run, {**spec.config, **algorithm_options(options)}, where="spec.tune.space")
    return options


def trial_spec(spec: ExperimentSpec, options: OptionValues) -> ExperimentSpec:
    """Return the spec of the one trial that has these of the values searched over."""
    config = {**spec.config, **algorithm_options(options)}
    return spec.model_copy(
        update={"config": config, "env_config": with_env_values(spec.env_config, options), "tune": None}
    )


def plain(value: Any) -> Any:
    """Return a drawn value as JSON has it, to 12 digits: multiples of a step come with errors in the last ones."""
    value = value.item() if isinstance(value, np.generic) else value
    return float(f"{value:.12g}") if isinstance(value, float) else value


def mutations(search: Tune) -> dict[str, Any]:
    """Return what a population-based search changes options within."""
    return {
        name: domain.arguments if domain.kind in ("grid_search", "choice") else tune_domain(domain)
        for name, domain in search.space.items()
    }


def clamped(spec: ExperimentSpec, search: Tune, config: dict[str, Any]) -> dict[str, Any]:
    """Return `config` after a perturbation, with the values of the space back within its bounds."""
    result = dict(config)
    for name, domain in search.space.items():
        if domain.kind in ("grid_search", "choice", "randn", "qrandn"):
            continue
        low, high = domain.examples()
        value = min(max(plain(config[name]), low), high)
        result[name] = int(value) if domain.kind in INTEGERS or _is_integer(spec, name) else value
    return result


def _is_integer(spec: ExperimentSpec, name: str) -> bool:
    options = for_algorithm(spec.run)
    field = option_names(options).get(name)  # none of a value of the environment
    return field is not None and options.model_fields[field].annotation is int
