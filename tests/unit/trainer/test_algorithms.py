"""The algorithms as values: one's own, those that are others with options set, and what a learner refuses."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrainer.algorithms import ALGORITHMS
from rltrainer.algorithms.on_policy import minibatches
from rltrainer.algorithms.ppo import PPO
from rltrainer.api.options import OPTIONS, PPOOptions
from rltrainer.backend.serial import SerialBackend
from rltrainer.errors import RunError
from rltrainer.runs import train
from tests.unit.trainer.helpers import TOYS, equal, experiment, nothing, quick, serial, small, worker_config

SEEN: list[dict[str, Any]] = []


def spying(learner: Any, batch: Any, cfg: Any) -> dict[str, float]:
    SEEN.append(cfg.custom)
    metrics: dict[str, float] = PPO.update(learner, batch, cfg)
    return metrics


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


def test_an_option_that_ones_own_algorithm_has_not_is_named(tmp_path: Path) -> None:
    given = experiment(run=f"{__name__}:MINE", config=small("PPO", vtrace_clip_rho=1.0))
    with pytest.raises(RunError, match=r"^spec.config.vtrace_clip_rho: there is no such field\.") as caught:
        train.run(given, tmp_path)
    assert caught.value.permanent


def learnt(run: str, env: str = "CartPole-v1", iterations: int = 6, **config: Any) -> dict[str, Tensor]:
    """The networks after some iterations."""
    backend, strategy = serial(worker_config(env, run, **config))
    for _ in range(iterations):
        next(strategy)
    return backend.learner.policy()


RAINBOW = {"dueling": True, "noisy": True, "prioritized": True, "num_atoms": 51, "n_step": 3, "lr": 5e-4}
TD3 = {"twin_q": True, "policy_delay": 2, "target_noise": 0.2}


@pytest.mark.parametrize(
    ("run", "of", "env", "options"),
    [
        ("Rainbow", "DQN", "CartPole-v1", RAINBOW),
        ("ParametricDQN", "DQN", "CartPole-v1", {}),
        ("TD3", "DDPG", "Pendulum-v1", TD3),
    ],
)
def test_some_algorithms_are_others_with_options_set(run: str, of: str, env: str, options: dict[str, Any]) -> None:
    assert equal(learnt(run, env, **small(run)), learnt(of, env, **small(of, **options)))


def test_a3c_of_one_worker_is_a2c() -> None:
    config = small("A2C", grad_clip=0.1, normalize_observations=True, entropy_coeff=0.01)
    assert equal(learnt("A3C", **config), learnt("A2C", **config))


@pytest.mark.parametrize("lambda_", [1.0, 0.7])
@pytest.mark.parametrize("recurrent", [None, "lstm"])
def test_impala_on_policy_is_a2c(lambda_: float, recurrent: str | None) -> None:
    """One request in flight and a batch of one fragment: what is learnt was sampled with the newest weights."""
    config = {**small("A2C"), "lambda": lambda_, "recurrent": recurrent, "entropy_coeff": 0.01, "grad_clip": 0.5}
    config |= {"lr": 7e-4, "env": "Acrobot-v1"}
    mine = learnt("IMPALA", **config, train_batch_size=1, requests_in_flight=1)
    for name, parameter in learnt("A2C", **config).items():
        torch.testing.assert_close(mine[name], parameter, atol=2e-5, rtol=1e-4)


def test_appo_on_policy_with_a_new_target_is_ppo() -> None:
    config = small("PPO", epochs=1, minibatch_size=8, lr=1e-3, entropy_coeff=0.01, grad_clip=0.5, env="Acrobot-v1")
    config |= {"lambda": 0.9}
    mine = learnt("APPO", **config, train_batch_size=1, requests_in_flight=1, target_update_freq=1)
    for name, parameter in learnt("PPO", **config).items():
        torch.testing.assert_close(mine[name], parameter, atol=2e-5, rtol=1e-4)


def test_the_kl_target_steers_the_penalty() -> None:
    def penalty(target: float) -> float:
        _, iterations = serial(worker_config(**quick(lr=0.003, kl_coeff=0.2, kl_target=target)))
        next(iterations)
        return next(iterations).metrics["kl_coeff"]

    assert (penalty(1e-9), penalty(1e9)) == pytest.approx((0.4, 0.1))


@pytest.mark.parametrize(("kl_stop", "epochs"), [(1e-12, 1), (1e3, 8)])
def test_kl_stop_ends_the_epochs(kl_stop: float, epochs: int) -> None:
    _, iterations = serial(worker_config(**quick(lr=0.003, kl_stop=kl_stop, epochs=8)))
    assert next(iterations).metrics["epochs"] == epochs


@pytest.mark.parametrize(("count", "size", "parts"), [(256, 64, [64] * 4), (257, 64, [65, 64, 64, 64]), (10, 64, [10])])
def test_minibatches_are_equal_and_hold_every_sample_once(count: int, size: int, parts: list[int]) -> None:
    columns = {"adv": torch.arange(count)}
    batches = list(minibatches(columns, size, torch.Generator()))
    assert [len(batch["adv"]) for batch in batches] == parts
    assert sorted(torch.cat([batch["adv"] for batch in batches]).tolist()) == list(range(count))


def test_minibatches_of_sequences_hold_every_valid_step_once() -> None:
    length, width = 5, 7
    steps = torch.arange(length * width).view(length, width)
    valid = steps % 4 != 0
    columns = {
        "obs": steps,
        "adv": steps,
        "valid": valid,
        "begins": ~valid,
        "state": {"h": torch.arange(width)[:, None]},
    }
    parts = list(minibatches(columns, 10, torch.Generator()))
    assert [part["obs"].shape[0] for part in parts] == [length] * 4, "whole sequences"
    assert sorted(torch.cat([part["adv"] for part in parts]).tolist()) == steps[valid].tolist()
    for part in parts:
        assert part["obs"][0].tolist() == part["state"]["h"][:, 0].tolist(), "each with its own state"
        assert part["adv"].tolist() == part["obs"][part["valid"]].tolist()


def test_numbers_that_are_none_end_the_run_in_words() -> None:
    backend = SerialBackend(worker_config(**quick()), nothing)
    fragments, _ = backend.sample(backend.weights(0))
    backend.learner.context.groups.flats[""].vector.data.fill_(float("nan"))
    with pytest.raises(RunError, match=r"training diverged: .* A smaller lr") as caught:
        backend.update_from_fragments(fragments, 0)
    assert caught.value.reason == "Diverged"


FROZEN = [
    ("PPO", "CartPole-v1", "policy_body", {}),
    ("PPO", "CartPole-v1", "value_body.0.bias", {}),
    ("PPO", "CartPole-v1", "policy_body.0", {"vf_share_layers": True}),
    ("PPO", TOYS + "IdentityImage", "encoder", {}),
    ("PPO", "CartPole-v1", "memory", {"recurrent": "lstm"}),
    ("A2C", "Pendulum-v1", "policy_head.log_std", {}),
    ("DQN", "CartPole-v1", "body", {"hiddens": [16, 16]}),
    ("DQN", "CartPole-v1", "value", {"dueling": True}),
    ("Rainbow", "CartPole-v1", "advantage", {"num_atoms": 5}),
    ("SAC", "Pendulum-v1", "policy.layers.0", {}),
    ("TD3", "Pendulum-v1", "critic.layers.0", {}),
]


@pytest.mark.parametrize(("run", "env", "part", "config"), FROZEN)
def test_frozen_parameters_stay_and_all_others_learn(run: str, env: str, part: str, config: dict[str, Any]) -> None:
    """As autograd has it: what requires no gradient gets none, a layer, half of one, a cell or a whole encoder."""
    plan = worker_config(env, run, **small(run, **config))
    build = plan.algorithm.nets

    def frozen(spaces: Any, options: Any) -> torch.nn.Module:
        nets = build(spaces, options)
        for name, parameter in nets.named_parameters():
            parameter.requires_grad_(not name.startswith(part))
        return nets

    plan = dataclasses.replace(plan, algorithm=dataclasses.replace(plan.algorithm, nets=frozen))
    backend, iterations = serial(plan)
    parameters = dict(backend.learner.context.nets.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for _ in range(12):
        next(iterations)
    moved = {name for name, parameter in parameters.items() if not torch.equal(parameter, before[name])}
    assert [name for name in before if name.startswith(part)]
    assert moved == {name for name in before if not name.startswith(part)}


@pytest.mark.parametrize(
    ("run", "more"), [("PPO", {}), ("APPO", {"train_batch_size": 1, "timesteps_per_iteration": 0})]
)
def test_a_recurrent_minibatch_of_nothing_but_first_steps_is_left_out(run: str, more: dict[str, Any]) -> None:
    """Fragments have one step, and minibatches one environment, which now and then only begins its next episode."""
    settings: Any = {"recurrent": "lstm", "rollout_fragment_length": 1, "minibatch_size": 1, "num_envs_per_worker": 4}
    backend, strategy = serial(worker_config("CartPole-v1", run, seed=3, epochs=1, **settings, **more))
    begun = 0
    for _ in range(60):
        iteration = next(strategy)
        begun += iteration.timesteps < 4
        assert not iteration.metrics or iteration.metrics["loss"] == iteration.metrics["loss"]
    assert begun > 3, "there were such minibatches"
    assert all(value.isfinite().all() for value in backend.learner.policy().values())
