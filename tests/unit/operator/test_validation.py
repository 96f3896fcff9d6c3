"""Documents that cannot be run, and why."""

from typing import Any

import pytest
from rloperator.decisions import Rejection, parse
from rloperator.experiment.validation import ValidationInput, quantity, validate

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OPTIONS
from rltrainer.api.rollout import RolloutSpec
from tests.unit.operator import builders as b

GROUP = {"name": "cpu", "cpu": 2, "maxReplicas": 2}

REJECTED = [
    ({"config": {"lerning_rate": 1}}, "InvalidOption", "lerning_rate"),
    ({"config": {"gamma": 2}}, "InvalidOption", "gamma"),
    ({"run": "A2C", "config": {"clip": 0.1}}, "InvalidOption", "It belongs to APPO, PPO"),
    ({"config": {"num_workers": 2}}, "NotEnoughCPUs", "they share the head, which has room for 1"),
    ({"config": {"num_workers": 5}, "cluster": {"workers": [GROUP]}}, "NotEnoughCPUs", "have room for 4"),
    ({"config": {"num_workers": 1, "num_cpus_per_worker": 3}, "cluster": {"workers": [GROUP]}},
     "NotEnoughCPUs", "num_workers 1 of 3 CPUs each do not fit"),
    ({"config": {"num_gpus": 1}, "cluster": {"workers": [GROUP]}}, "NoGPUs", "no group"),
    ({"config": {"num_workers": 4, "num_learners": 2}, "cluster": {"workers": [GROUP]}},
     "NotEnoughCPUs", "and 2 learners of 1 do not fit"),
    ({"config": {"num_workers": 2, "num_learners": 2, "num_gpus": 1},
      "cluster": {"workers": [GROUP, GROUP | {"name": "gpu", "gpus": 1, "maxReplicas": 1}]}},
     "NoGPUs", "2 learners with a GPU each do not fit"),
    ({"config": {"num_gpus": 1}, "cluster": {"workers": [GROUP | {"cpu": 1, "maxReplicas": 1, "gpus": 1}]}},
     "NotEnoughCPUs", "num_workers 1 of 1 CPUs each and 1 learners of 1 do not fit"),
    ({"tune": {"space": {"clipp": {"choice": [1]}}}}, "InvalidOption", 'no option "clipp" (in spec.tune.space)'),
    ({"tune": {"space": {"gamma": {"uniform": [0.9, 1.5]}}}}, "InvalidOption", "gamma"),
    ({"tune": {"scheduler": {"name": "PBT"}}}, "InvalidOption", "spec.tune.space, which is empty"),
    ({"tune": {"space": {"lr": {"grid_search": [0.1]}}, "search": {"name": "Optuna"}}}, "InvalidOption", "no grids"),
    ({"tune": {"resourcesPerTrial": {"cpu": 2}}}, "NotEnoughCPUs",
     "2 CPUs fit no pod: without spec.cluster.workers trials share the head, which has at most 1 in one"),
    ({"tune": {"resourcesPerTrial": {"cpu": 3}}, "cluster": {"workers": [GROUP]}}, "NotEnoughCPUs",
     "3 CPUs fit no pod: the groups in spec.cluster.workers have at most 2 in one"),
    ({"tune": {}, "config": {"num_workers": 1}}, "NotEnoughCPUs",
     "one trial takes 2 CPUs, 1 of its own and 1 of its learners and workers, and without spec.cluster.workers trials "
     "share the head, which has 1"),
    ({"tune": {}, "config": {"num_workers": 4}, "cluster": {"workers": [GROUP]}}, "NotEnoughCPUs", "takes 5 CPUs"),
    ({"tune": {"space": {"num_workers": {"choice": [1, 9]}}}, "cluster": {"workers": [GROUP]}}, "NotEnoughCPUs",
     "num_workers 9 of 1 CPUs each do not fit"),
    ({"tune": {}, "config": {"num_gpus": 1}, "cluster": {"workers": [GROUP]}}, "NoGPUs", "no group"),
    ({"tune": {"resourcesPerTrial": {"gpu": 0.6}}, "config": {"num_gpus": 1, "num_workers": 2, "num_learners": 2},
      "cluster": {"workers": [GROUP | {"cpu": 8, "gpus": 1, "maxReplicas": 1}]}},
     "NoGPUs", "2 learners with 0.6 GPUs each do not fit"),
    ({"restoreFrom": {"experiment": "other"}}, "ExperimentNotFound", '"other"'),
    ({"restoreFrom": {"experiment": "cartpole"}}, "RestoreFromItself", "itself"),
]  # fmt: skip

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"config": {"num_workers": 1}},
    {"config": {"num_workers": 4}, "cluster": {"workers": [GROUP]}},
    {"config": {"num_workers": 2, "num_cpus_per_worker": 0.5}},
    {"config": {"num_gpus": 1}, "cluster": {"workers": [GROUP | {"gpus": 1}]}},
    {"run": "mine.algorithms:Own", "config": {"custom": {"anything": [1]}}},
    {"tune": {}},
    {"tune": {"numSamples": 8, "space": {"lr": {"loguniform": [0.0001, 0.01]}}}},
    {"tune": {}, "config": {"num_workers": 3}, "cluster": {"workers": [GROUP]}},
    {"tune": {"resourcesPerTrial": {"cpu": 2}}, "config": {"num_workers": 2}, "cluster": {"workers": [GROUP]}},
    {"tune": {"resourcesPerTrial": {"cpu": 0.5}}, "config": {"num_workers": 1, "num_cpus_per_worker": 0.5}},
    {
        "tune": {"resourcesPerTrial": {"gpu": 0.5}},
        "config": {"num_gpus": 1, "num_workers": 2, "num_learners": 2},
        "cluster": {"workers": [GROUP | {"cpu": 8, "gpus": 1, "maxReplicas": 1}]},
    },
]


def validated(spec: dict[str, Any], storage: Any = b.STORAGE) -> Rejection | None:
    parsed = parse(ExperimentSpec, {"run": "PPO", "env": "CartPole-v1", **spec})
    assert isinstance(parsed, ExperimentSpec)
    return validate(ValidationInput("cartpole", parsed, parsed.storage or storage, None))


@pytest.mark.parametrize(("spec", "reason", "message"), REJECTED, ids=str)
def test_rejected(spec: dict[str, Any], reason: str, message: str) -> None:
    rejection = validated(spec)
    assert rejection is not None
    assert rejection.reason == reason
    assert message in rejection.message


@pytest.mark.parametrize("spec", ACCEPTED, ids=str)
def test_accepted(spec: dict[str, Any]) -> None:
    assert validated(spec) is None


@pytest.mark.parametrize("config", [{}, {"num_workers": 2}, {"num_gpus": 1},
                                    {"num_workers": 4, "num_learners": 2, "num_gpus": 1}], ids=str)  # fmt: skip
def test_a_trial_takes_the_cpus_that_the_trainer_reserves(config: dict[str, Any]) -> None:
    """One CPU less than its bundles have, and it does not fit."""
    from rltrainer.tune.driver import bundles

    tune: dict[str, Any] = {"resourcesPerTrial": {"cpu": 2}}
    spec = ExperimentSpec.model_validate({"run": "PPO", "env": "CartPole-v1", "config": config, "tune": tune})
    assert spec.tune is not None
    cpus = int(sum(bundle["CPU"] for bundle in bundles(spec.tune, spec.options())))

    def with_cpus(cpu: int) -> Rejection | None:
        return validated({"tune": tune, "config": config, "cluster": {"workers": [
            {"name": "one", "cpu": cpu, "gpus": 2, "maxReplicas": 1}]}})  # fmt: skip

    assert with_cpus(cpus) is None
    rejection = with_cpus(cpus - 1)
    assert rejection is not None
    assert rejection.reason == "NotEnoughCPUs"


def test_no_storage_anywhere() -> None:
    rejection = validated({}, storage=None)
    assert rejection is not None
    assert rejection.reason == "NoStorage"


@pytest.mark.parametrize("spec", [{"env": ""}, {"stop": {"reward": 1}}, {"storage": {"uri": "/x"}}], ids=str)
def test_a_document_that_is_none_is_rejected_with_its_field(spec: dict[str, Any]) -> None:
    rejection = parse(ExperimentSpec, {"run": "PPO", "env": "CartPole-v1", **spec})
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "InvalidDocument"
    assert f"spec.{next(iter(spec))}" in rejection.message


def test_an_unknown_algorithm_is_named_with_those_that_are_known() -> None:
    assert parse(ExperimentSpec, {"run": "PP0", "env": "x"}) == Rejection(
        "InvalidDocument",
        'spec: unknown algorithm "PP0". Did you mean "PPO"? '
        f"Known: {', '.join(sorted(OPTIONS))}, or package.module:NAME",
    )


def test_a_rollout_names_an_experiment_or_a_checkpoint() -> None:
    assert isinstance(parse(RolloutSpec, {"experiment": "cartpole"}), RolloutSpec)
    assert isinstance(parse(RolloutSpec, {"experiment": "cartpole", "episodes": 0}), Rejection)


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("500m", 0.5), ("1.5", 1.5), ("2Ki", 2048), ("3M", 3e6), ("1Gi", 2**30)]
)
def test_quantity(text: str, value: float) -> None:
    assert quantity(text) == value
