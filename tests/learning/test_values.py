"""What the critics come to believe where the truth is known: 1 a step, to 3 steps, at a discount of a half.

An episode that terminates is worth 1 + 1/2 + 1/4, then 1 + 1/2, then 1. One that is truncated would have gone on: it is
worth 2 wherever it is, and whoever takes its end for the end believes the numbers above.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rltrainer.api.options import OPTIONS
from rltrainer.networks import ActorCritic
from rltrainer.networks.continuous import ActorAndCritic, DeterministicActor, DiscreteCritic, SoftActorAndCritic
from rltrainer.networks.q_network import QNetwork
from tests.unit.trainer.helpers import TASKS, serial, worker_config

SHARED = {"seed": 0, "num_envs_per_worker": 8, "hiddens": [32], "gamma": 0.5, "timesteps_per_iteration": 4000}
CRITIC = {**SHARED, "timesteps_per_iteration": 8000, "lr": 0.01, "rollout_fragment_length": 8}
REPLAY = {
    **SHARED,
    "lr": 0.003,
    "learning_starts": 100,
    "buffer_size": 2000,
    "batch_size": 64,
    "updates_per_step": 0.25,
}
Q = {**REPLAY, "target_update_freq": 20}
CONTINUOUS = {**REPLAY, "timesteps_per_iteration": 6000, "tau": 0.05}
CASES = [
    ("A2C", {**CRITIC, "lambda": 0.5}),
    ("A2C", CRITIC),
    ("A3C", CRITIC),
    ("PPO", {**CRITIC, "lr": 0.005, "minibatch_size": 32}),
    ("IMPALA", {**CRITIC, "train_batch_size": 64}),
    ("APPO", {**CRITIC, "train_batch_size": 64, "epochs": 4, "target_update_freq": 4}),
    ("DQN", Q),
    ("DQN", {**Q, "n_step": 2, "dueling": True, "prioritized": True}),
    ("ParametricDQN", {**Q, "double_q": False}),
    ("Rainbow", {**Q, "num_atoms": 31, "v_min": 0, "v_max": 3, "noisy": False}),
    ("QRDQN", {**Q, "num_quantiles": 8}),
    ("ApexDQN", Q),
    ("DDPG", CONTINUOUS),
    ("TD3", {**CONTINUOUS, "n_step": 2}),
    ("ApexDDPG", CONTINUOUS),
    ("SAC", {**CONTINUOUS, "alpha": 1e-6}),
    ("SAC-discrete", {**CONTINUOUS, "alpha": 1e-6}),
]


def believed(nets: nn.Module, obs: Tensor) -> Tensor:
    """The value [N] of observations [N, 1], and of what the policy would do there."""
    if isinstance(nets, ActorCritic):
        v: Tensor = nets(obs)[1]
        return v
    if isinstance(nets, QNetwork):
        q: Tensor = nets(obs)
        return q.max(-1).values
    assert isinstance(nets, ActorAndCritic | SoftActorAndCritic)
    if isinstance(nets.critic, DiscreteCritic):
        a = nets.policy.act(obs).mode()
        every: Tensor = nets.critic(obs)
        return every.mean(0).gather(-1, a[:, None]).squeeze(-1)
    a = nets.policy(obs) if isinstance(nets.policy, DeterministicActor) else nets.policy.act(obs).mode()
    both: Tensor = nets.critic(obs, a)
    return both.mean(0)


def test_every_critic_is_asked() -> None:
    assert {run.split("-")[0] for run, _ in CASES} == OPTIONS.keys() - {"PG"}


@pytest.mark.parametrize(("end", "worth"), [("terminated", [1.75, 1.5, 1.0]), ("truncated", [2.0, 2.0, 2.0])])
@pytest.mark.parametrize(("run", "config"), CASES, ids=lambda each: each if isinstance(each, str) else "")
def test_critics_tell_the_end_from_a_cut(run: str, config: dict[str, Any], end: str, worth: list[float]) -> None:
    run, _, discrete = run.partition("-")
    continuous = run in ("DDPG", "TD3", "ApexDDPG", "SAC") and not discrete
    plan = worker_config(TASKS + "Clock", run, {"end": end, "continuous": continuous}, **config)
    backend, iterations = serial(plan)
    next(iterations)
    with torch.no_grad():
        values = believed(backend.learner.context.nets, torch.tensor([[0.0], [1.0], [2.0]]))
    torch.testing.assert_close(values, torch.tensor(worth), atol=0.1, rtol=0)
