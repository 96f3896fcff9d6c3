"""Documents that cannot be run, and what is said about them."""

from typing import Any

import pytest
from rloperator.policies import Refusal, Subject, parse, parse_rollout, quantity, refusal

from rltrainer.options import OPTIONS
from rltrainer.spec import ExperimentSpec, RolloutSpec
from tests.unit.operator import builders as b

GROUP = {"name": "cpu", "cpu": 2, "maxReplicas": 2}

REFUSED = [
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
]


def judged(spec: dict[str, Any], storage: Any = b.STORAGE) -> Refusal | None:
    parsed = parse({"run": "PPO", "env": "CartPole-v1", **spec})
    assert isinstance(parsed, ExperimentSpec)
    return refusal(Subject("cartpole", parsed, parsed.storage or storage, None))


@pytest.mark.parametrize(("spec", "reason", "said"), REFUSED, ids=str)
def test_refused(spec: dict[str, Any], reason: str, said: str) -> None:
    found = judged(spec)
    assert found is not None
    assert found.reason == reason
    assert said in found.message


@pytest.mark.parametrize("spec", ACCEPTED, ids=str)
def test_accepted(spec: dict[str, Any]) -> None:
    assert judged(spec) is None


def test_no_storage_anywhere() -> None:
    found = judged({}, storage=None)
    assert found is not None
    assert found.reason == "NoStorage"


@pytest.mark.parametrize("spec", [{"env": ""}, {"stop": {"reward": 1}}, {"storage": {"uri": "/x"}}], ids=str)
def test_a_document_that_is_none_is_refused_with_its_field(spec: dict[str, Any]) -> None:
    found = parse({"run": "PPO", "env": "CartPole-v1", **spec})
    assert isinstance(found, Refusal)
    assert found.reason == "InvalidDocument"
    assert f"spec.{next(iter(spec))}" in found.message


def test_an_unknown_algorithm_is_named_with_those_that_are_known() -> None:
    assert parse({"run": "PP0", "env": "x"}) == Refusal(
        "InvalidDocument",
        'spec: unknown algorithm "PP0". Did you mean "PPO"? '
        f"Known: {', '.join(sorted(OPTIONS))}, or package.module:NAME",
    )


def test_a_rollout_names_an_experiment_or_a_checkpoint() -> None:
    assert isinstance(parse_rollout({"experiment": "cartpole"}), RolloutSpec)
    assert isinstance(parse_rollout({"experiment": "cartpole", "episodes": 0}), Refusal)


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("500m", 0.5), ("1.5", 1.5), ("2Ki", 2048), ("3M", 3e6), ("1Gi", 2**30)]
)
def test_quantity(text: str, value: float) -> None:
    assert quantity(text) == value
