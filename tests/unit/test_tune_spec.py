"""`spec.tune`: what is read, what is refused, and with which words."""

from typing import Any

import pytest

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment
from rltrainer.api.tune import KINDS, OWNERS, SCHEDULERS, Domain, Scheduler, Tune

LR = {"lr": {"loguniform": [1e-4, 1e-2]}}


def parsed(**spec: Any) -> Experiment:
    return Experiment.parse(
        {"metadata": {"name": "test"}, "spec": {"run": "PPO", "env": "CartPole-v1"} | spec}, where="file.yaml"
    )


def tuned(**tune: Any) -> Tune:
    found = parsed(tune=tune).spec.tune
    assert found is not None
    return found


def test_an_empty_search_is_one_trial_of_the_document_as_it_is() -> None:
    tune = tuned()
    assert (tune.num_samples, tune.space, tune.scheduler.name, tune.search.name) == (1, {}, "FIFO", "Random")


DOMAINS: tuple[tuple[dict[str, Any], str, list[Any], list[Any]], ...] = (
    ({"grid_search": [0.1, 0.2]}, "grid_search", [0.1, 0.2], [0.1, 0.2]),
    ({"choice": [1, "a", [2]]}, "choice", [1, "a", [2]], [1, "a", [2]]),
    ({"uniform": [0, 1]}, "uniform", [0.0, 1.0], [0.0, 1.0]),
    ({"quniform": [0, 1, 0.25]}, "quniform", [0.0, 1.0, 0.25], [0.0, 1.0]),
    ({"loguniform": [0.1, 1]}, "loguniform", [0.1, 1.0], [0.1, 1.0]),
    ({"qloguniform": [0.1, 1, 0.1]}, "qloguniform", [0.1, 1.0, 0.1], [0.1, 1.0]),
    ({"randn": [3, 1]}, "randn", [3.0, 1.0], [3.0]),
    ({"qrandn": [3, 1, 0.5]}, "qrandn", [3.0, 1.0, 0.5], [3.0]),
    ({"randint": [2, 9]}, "randint", [2, 9], [2, 8]),
    ({"lograndint": [2, 9]}, "lograndint", [2, 9], [2, 8]),
    ({"qrandint": [2, 10, 2]}, "qrandint", [2, 10, 2], [2, 10]),
    ({"qlograndint": [2, 10, 2]}, "qlograndint", [2, 10, 2], [2, 10]),
)


@pytest.mark.parametrize(("given", "kind", "arguments", "examples"), DOMAINS, ids=[row[1] for row in DOMAINS])
def test_a_domain(given: dict[str, Any], kind: str, arguments: list[Any], examples: list[Any]) -> None:
    domain = Domain.model_validate(given)
    assert (domain.kind, domain.arguments, domain.examples()) == (kind, arguments, examples)
    assert [type(value) for value in domain.arguments] == [type(value) for value in arguments]


def test_every_domain_is_tried_here_and_known_to_the_rules() -> None:
    assert tuple(Domain.model_fields) == KINDS
    assert {row[1] for row in DOMAINS} == set(KINDS)


def test_every_option_of_a_scheduler_has_an_owner() -> None:
    assert set(OWNERS) == set(Scheduler.model_fields) - {"name", "time_attr"}
    assert OWNERS["max_t"] == ["AsyncHyperBand", "HyperBand"]


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_takes_what_is_its_own_and_nothing_else(name: str) -> None:
    values = {"time_attr": "timesteps_total", "quantile_fraction": 0.5, "resample_probability": 0.5}
    for option in Scheduler.model_fields.keys() - {"name"}:
        given = {"name": name, option: values.get(option, 2)}
        if option in SCHEDULERS[name] or option == "time_attr":
            assert getattr(Scheduler.model_validate(given), option) == given[option]
        else:
            with pytest.raises(ValueError, match=f"{name} takes no .*: it belongs to {OWNERS[option][0]}"):
                Scheduler.model_validate(given)


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"space": {"lr": {}}}, "spec.tune.space.lr: takes exactly one of grid_search, choice"),
    ({"space": {"lr": {"choice": [1], "uniform": [0, 1]}}}, "not choice and uniform"),
    ({"space": {"lr": {"unifrm": [0, 1]}}}, "spec.tune.space.lr.unifrm"),
    ({"space": {"lr": {"choice": []}}}, "spec.tune.space.lr.choice"),
    ({"space": {"lr": {"uniform": [1]}}}, "spec.tune.space.lr.uniform"),
    ({"space": {"lr": {"quniform": [0, 1]}}}, "spec.tune.space.lr.quniform"),
    ({"space": {"lr": {"uniform": [1, 1]}}}, "uniform takes [low, high] with low below high, got [1.0, 1.0]"),
    ({"space": {"lr": {"uniform": [0, float("inf")]}}}, "with low below high"),
    ({"space": {"lr": {"loguniform": [0, 1]}}}, "loguniform needs a low above 0, got 0"),
    ({"space": {"epochs": {"randint": [1, 2.5]}}}, "randint takes integers, got [1.0, 2.5]"),
    ({"space": {"learning_rate": {"uniform": [0, 1]}}}, 'Did you mean "lr"?'),
    ({"space": {"gamma": {"uniform": [0.9, 1.1]}}}, "spec.tune.space.gamma"),
    ({"space": {"epochs": {"uniform": [1, 2]}}, "numSamples": 0}, "spec.tune.numSamples"),
    ({"space": {"activation": {"choice": ["tanh", "tan"]}}}, "spec.tune.space.activation"),
    ({"space": {"lr": {"grid_search": [0.1]}}, "search": {"name": "HyperOpt"}}, "HyperOpt knows no grids: give lr a"),
    ({"search": {"name": "Optuna"}}, "spec.tune.search Optuna searches in spec.tune.space, which is empty"),
    ({"search": {"name": "Bayes"}}, "spec.tune.search.name"),
    ({"search": {"randomTrials": 4}}, "Random takes no randomTrials"),
    ({"scheduler": {"name": "PBT"}}, "spec.tune.scheduler PBT changes the options in spec.tune.space, which is empty"),
    ({"scheduler": {"maxT": 4}}, "FIFO takes no maxT: it belongs to AsyncHyperBand and HyperBand"),
    ({"scheduler": {"name": "HyperBand", "reductionFactor": 1}}, "spec.tune.scheduler.reductionFactor"),
    ({"resourcesPerTrial": {"gpu": 0.5}}, "spec.tune.resourcesPerTrial.gpu needs spec.config.num_gpus: 1"),
    ({"metric": "reward"}, "spec.tune.metric"),
    ({"metric": "evaluation/episode_reward_mean"}, "tune.metric evaluation/episode_reward_mean needs evaluation"),
    ({"maxConcurrent": 1}, "spec.tune.maxConcurrent"),
)  # fmt: skip


@pytest.mark.parametrize(("tune", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_wrong_search_is_refused_with_its_field(tune: dict[str, Any], said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parsed(tune=tune)
    assert said in str(caught.value)
    assert str(caught.value).startswith("file.yaml: ")


def test_an_option_is_held_against_the_document_that_it_is_searched_in() -> None:
    """num_learners 3 is right by itself, and wrong beside num_workers 4."""
    space = {"num_learners": {"choice": [2, 3]}}
    with pytest.raises(DocumentError, match="num_learners 3 does not divide num_workers 4"):
        parsed(config={"num_workers": 4}, tune={"space": space})
    parsed(config={"num_workers": 6}, tune={"space": space})


def test_what_is_accepted() -> None:
    tune = tuned(
        numSamples=8,
        space={**LR, "epochs": {"randint": [2, 9]}, "hiddens": {"choice": [[64, 64], [256]]}},
        mode="min",
        scheduler={"name": "PBT", "timeAttr": "timesteps_total", "perturbationInterval": 1000},
        search={"name": "Random", "seed": 3},
        maxConcurrentTrials=2,
        resourcesPerTrial={"cpu": 0.5},
        maxFailures=0,
    )
    assert tune.space["hiddens"].arguments == [[64, 64], [256]]
    assert tune.resources_per_trial.cpu == 0.5
