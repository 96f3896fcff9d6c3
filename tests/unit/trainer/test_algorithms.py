"""The algorithms as values: one's own, options that act, and what a learner refuses."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rltrainer import train
from rltrainer.algorithms import ALGORITHMS
from rltrainer.algorithms.actor_critic import minibatches
from rltrainer.algorithms.ppo import PPO
from rltrainer.backend import SerialBackend
from rltrainer.errors import RunError
from rltrainer.options import OPTIONS, PPOOptions
from tests.unit.trainer.helpers import blueprint, experiment, quick

SEEN: list[dict[str, Any]] = []


def spying(learner: Any, batch: Any, cfg: Any) -> dict[str, float]:
    SEEN.append(cfg.custom)
    return PPO.update(learner, batch, cfg)


class MyOptions(PPOOptions):
    epochs: int = 3


MINE = dataclasses.replace(PPO, name="Mine", options=MyOptions, update=spying)


def test_every_algorithm_has_its_options_in_the_document() -> None:
    assert {name: each.options for name, each in ALGORITHMS.items()} == OPTIONS


def test_an_algorithm_of_ones_own_is_a_value_in_a_module(tmp_path: Path) -> None:
    config = {key: value for key, value in quick(custom={"depth": 3}).items() if key != "epochs"}
    given = experiment(run=f"{__name__}:MINE", config=config, stop={"training_iteration": 2})
    result = train.run(given, tmp_path)
    assert SEEN == [{"depth": 3}] * 2
    assert result.row["info"]["learner"]["epochs"] == 3, "its own default"


def once(**config: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Metrics and weights after two iterations."""
    backend = SerialBackend(blueprint(**quick(**config)), lambda: None)
    for timesteps in (0, 64):
        fragments, _ = backend.sample(backend.weights())
        metrics = backend.improve(fragments, timesteps)
    return metrics, backend.learner.policy()


@pytest.mark.parametrize(
    "option",
    [
        {"lr": 0.01},
        {"lr_schedule": [[0, 0.01], [100, 0.001]]},
        {"gamma": 0.5},
        {"lambda": 0.5},
        {"grad_clip": 0.001},
        {"hiddens": [16]},
        {"activation": "relu"},
        {"vf_coeff": 2.0},
        {"vf_share_layers": True},
        {"entropy_coeff": 0.1},
        {"entropy_coeff_schedule": [[0, 0.1], [100, 0.0]]},
        {"normalize_observations": True},
        {"normalize_rewards": True},
        {"clip": 0.001},
        {"clip_schedule": [[0, 0.001]]},
        {"vf_clip": 0.001},
        {"epochs": 5},
        {"minibatch_size": 8},
        {"kl_coeff": 5.0},
        {"kl_stop": 1e-9},
        {"normalize_advantages": False},
        {"num_envs_per_worker": 2},
        {"rollout_fragment_length": 8},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_acts(option: dict[str, Any]) -> None:
    (_, plain), (_, changed) = once(lr=0.003), once(**{"lr": 0.003, **option})
    assert plain.keys() != changed.keys() or any(
        plain[k].shape != changed[k].shape or not torch.equal(plain[k], changed[k]) for k in plain
    )


def test_the_kl_target_steers_the_penalty() -> None:
    low, high = (once(kl_coeff=0.2, kl_target=target)[0]["kl_coeff"] for target in (1e-9, 1e9))
    assert (low, high) == (0.4, 0.1)


def test_kl_stop_ends_the_epochs() -> None:
    assert once(kl_stop=1e-12, epochs=8)[0]["epochs"] == 1
    assert once(kl_stop=1e3, epochs=8)[0]["epochs"] == 8


@pytest.mark.parametrize(("count", "size", "parts"), [(256, 64, [64] * 4), (257, 64, [65, 64, 64, 64]), (10, 64, [10])])
def test_minibatches_are_equal_and_hold_every_sample_once(count: int, size: int, parts: list[int]) -> None:
    columns = {"adv": torch.arange(count)}
    batches = list(minibatches(columns, size, torch.Generator()))
    assert [len(batch["adv"]) for batch in batches] == parts
    assert sorted(torch.cat([batch["adv"] for batch in batches]).tolist()) == list(range(count))


def test_numbers_that_are_none_end_the_run_in_words() -> None:
    backend = SerialBackend(blueprint(**quick()), lambda: None)
    fragments, _ = backend.sample(backend.weights())
    backend.learner.flat.vector.data.fill_(float("nan"))
    with pytest.raises(RunError, match=r"training diverged: .* A smaller lr") as caught:
        backend.improve(fragments, 0)
    assert caught.value.reason == "Diverged"
