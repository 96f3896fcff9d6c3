"""No option is accepted and ignored: each one, set to something else, changes what an algorithm learns.

The table is checked against the options themselves: a new one that is not in it fails.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rltrainer.api.options import OPTIONS, option_names
from tests.unit.trainer.helpers import TASKS, TOYS, equal, serial, small, worker_config

HERE = Path(__file__).parent
ITERATIONS = 8
CONTINUOUS = ("DDPG", "TD3", "ApexDDPG", "SAC")


class Row(NamedTuple):
    """Another value of an option, and what it takes for the option to mean anything."""

    value: Any
    where: dict[str, Any] = {}  # noqa: RUF012 - read only
    discrete: str | None = None
    continuous: str | None = None


TINY = {"num_envs_per_worker": 1, "rollout_fragment_length": 2}
PRIORITIZED, DISTRIBUTIONAL, TARGET_NOISE = {"prioritized": True}, {"num_atoms": 11}, {"target_noise": 0.2}
ROWS = {
    "adam_eps": Row(1e-2),
    "activation": Row("elu"),
    "alpha": Row(0.5),
    "alpha_lr": Row(0.1),
    "batch_size": Row(8),
    "buffer_size": Row(64),
    "clip": Row(0.001),
    "clip_schedule": Row([[0, 0.001]]),
    "cnn": Row("resnet", TINY, TOYS + "IdentityImage", TASKS + "ReachImage"),
    "critic_hiddens": Row([8]),
    "critic_lr": Row(0.1),
    "double_q": Row(False, {"lr": 0.05, "target_update_freq": 8}, "Acrobot-v1"),
    "dueling": Row(None),
    "entropy_coeff": Row(0.1),
    "entropy_coeff_schedule": Row([[0, 0.1], [100, 0.0]]),
    "epochs": Row(3),
    "epsilon_alpha": Row(0.5, {"noisy": False}),
    "epsilon_base": Row(0.9, {"noisy": False}),
    "epsilon_schedule": Row([[0, 0.0]], {"noisy": False}),
    "exploration_noise": Row("ornstein-uhlenbeck"),
    "exploration_sigma": Row(0.5),
    "exploration_theta": Row(0.9, {"exploration_noise": "ornstein-uhlenbeck"}),
    "gamma": Row(0.5),
    "grad_clip": Row(0.001),
    "hiddens": Row([8]),
    "initial_alpha": Row(0.1),
    "kl_coeff": Row(5.0),
    "kl_stop": Row(1e-9),
    "kl_target": Row(1e-9, {"kl_coeff": 0.2}),
    "lambda": Row(0.5),
    "learning_starts": Row(100),
    "lr": Row(0.01),
    "lr_schedule": Row([[0, 0.01], [100, 0.001]]),
    "minibatch_size": Row(8),
    "n_step": Row(2),
    "noisy": Row(None),
    "noisy_sigma": Row(0.1, {"noisy": True}),
    "normalize_advantages": Row(None),
    "normalize_observations": Row(None),
    "normalize_rewards": Row(None),
    "num_atoms": Row(5),
    "num_envs_per_worker": Row(2),
    "num_quantiles": Row(3),
    "num_workers": Row(2),
    "policy_delay": Row(3),
    "prioritized": Row(None),
    "priority_alpha": Row(0.1, PRIORITIZED),
    "priority_beta": Row(1.0, PRIORITIZED),
    "priority_beta_schedule": Row([[0, 1.0]], PRIORITIZED),
    "priority_epsilon": Row(10.0, PRIORITIZED),
    "recurrent": Row("gru"),
    "recurrent_size": Row(8, {"recurrent": "lstm"}),
    "replay_shards": Row(2, {"num_workers": 2}),
    "requests_in_flight": Row(3, {"train_batch_size": 16}),
    "rollout_fragment_length": Row(4),
    "seed": Row(8),
    "target_entropy": Row(1.0),
    "target_entropy_ratio": Row(0.9, continuous="CartPole-v1"),
    "target_noise": Row(0.9),
    "target_noise_clip": Row(0.01, TARGET_NOISE),
    "target_update_freq": Row(100),
    "tau": Row(0.5),
    "timesteps_per_iteration": Row(100),
    "train_batch_size": Row(128),
    "twin_q": Row(None),
    "updates_per_step": Row(0.5),
    "v_max": Row(20.0, DISTRIBUTIONAL),
    "v_min": Row(-20.0, DISTRIBUTIONAL),
    "vf_clip": Row(0.001),
    "vf_coeff": Row(2.0),
    "vf_share_layers": Row(None),
    "vtrace_clip_c": Row(0.1),
    "vtrace_clip_rho": Row(0.1),
}
"""By the option's name in a document. None turns around what is true or false."""

ELSEWHERE = {
    "cuda_graphs": "test_device.py",
    "custom": "test_algorithms.py",
    "num_cpus_per_worker": "test_ray.py",
    "num_gpus": "test_ray.py",
    "num_learners": "test_learners.py",
    "precision": "test_learners.py",
    "vector_env": "test_sampling.py",
}
"""Options that say where and how, not what is learnt, and the tests that set them."""

EVERY = sorted((run, option) for run, options in OPTIONS.items() for option in option_names(options))


def test_the_tables_name_options_that_there_are() -> None:
    there = {option for _, option in EVERY}
    assert there >= ROWS.keys()
    assert there >= ELSEWHERE.keys()


@pytest.mark.parametrize(("option", "file"), ELSEWHERE.items())
def test_options_of_other_tests_are_set_there(option: str, file: str) -> None:
    assert f"{option}=" in (HERE / file).read_text()


@cache
def learnt(run: str, env: str, config: str) -> dict[str, Any]:
    """The networks after some iterations."""
    backend, iterations = serial(worker_config(env, run, **small(run, **json.loads(config))))
    for _ in range(ITERATIONS):
        next(iterations)
    return backend.learner.policy()


@pytest.mark.parametrize(
    ("run", "option"),
    [each for each in EVERY if each[1] not in ELSEWHERE],
)
def test_every_option_acts(run: str, option: str) -> None:
    row = ROWS[option]
    env = (row.continuous or "Pendulum-v1") if run in CONTINUOUS else (row.discrete or "CartPole-v1")
    known = option_names(OPTIONS[run])
    where = {"lr": 0.003, **{name: value for name, value in row.where.items() if name in known}}
    value = not where.get(option, OPTIONS[run].model_fields[known[option]].default) if row.value is None else row.value
    plain = learnt(run, env, json.dumps(where))
    assert not equal(plain, learnt(run, env, json.dumps({**where, option: value})))
