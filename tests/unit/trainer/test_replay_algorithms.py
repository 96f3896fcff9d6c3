"""The mathematics of DQN, Ape-X, DDPG, TD3 and SAC, against the papers' formulas and slow transcriptions."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rltrainer.algorithms import ddpg, dqn, sac
from rltrainer.api.options.off_policy import ApexDQNOptions, DDPGOptions, DQNOptions, SACOptions
from rltrainer.backend.base import make_learner
from rltrainer.core.algorithm import ActContext
from rltrainer.learning.update_context import UpdateContext
from rltrainer.networks.parameters import module_state
from rltrainer.ops.distributions import Categorical, SquashedGaussian, masked
from rltrainer.ops.exploration import standard_normal
from rltrainer.replay.buffer import Transitions
from rltrainer.sampling.worker import Worker
from tests.unit.trainer.helpers import TASKS, small, worker_config


def batch(obs: Tensor, a: Tensor, rng: torch.Generator) -> Transitions:
    """Transitions between random observations like `obs` [N, *shape], of which every third terminated."""
    count = len(obs)
    discount = torch.where(torch.arange(count) % 3 == 0, 0.0, 0.9)
    return Transitions(
        obs=obs,
        a=a,
        r=torch.randn(count, generator=rng),
        discount=discount,
        next_obs=torch.randn(obs.shape, generator=rng),
        weight=torch.ones(count),
        index=np.arange(count),
    )


def cartpole(run: str = "DQN", **config: Any) -> tuple[UpdateContext, Transitions]:
    """A learner whose networks and targets differ, and a batch."""
    subject = make_learner(worker_config(run=run, **small(run, **config))).context
    rng = torch.Generator().manual_seed(1)
    for flat in (*subject.groups.flats.values(), *subject.groups.target_flats.values()):
        flat.vector.data += torch.randn(flat.vector.shape, generator=rng)
    a = torch.randint(2, (32,), generator=rng)
    return subject, batch(torch.randn(32, 4, generator=rng), a, rng)


@pytest.mark.parametrize("double_q", [False, True])
def test_the_goal_of_q_learning(double_q: bool) -> None:
    """r + discount max Q_target, or with double Q-learning the target's value of what the network itself would do."""
    subject, x = cartpole()
    nets: Any = subject.nets
    target: Any = subject.targets[""]
    cfg = DQNOptions(double_q=double_q)
    with torch.no_grad():
        y = dqn.td_target(nets, target, x, cfg)
        differ = 0
        for i in range(len(x.r)):
            values, own = target(x.next_obs[i : i + 1])[0], nets(x.next_obs[i : i + 1])[0]
            best = int(own.argmax()) if double_q else int(values.argmax())
            differ += int(own.argmax() != values.argmax())
            assert y[i].item() == pytest.approx((x.r[i] + x.discount[i] * values[best]).item(), abs=1e-5)
    assert differ > 3, "the two choose differently"


def test_distributions_lose_the_cross_entropy_with_the_projected_goal() -> None:
    """And their priority, its excess over the goal's own entropy, is a KL divergence: 0 where the goal is met."""
    subject, x = cartpole(num_atoms=11, v_min=-5.0, v_max=5.0)
    nets: Any = subject.nets
    logits = nets.logits(x.obs)[torch.arange(32), x.a]
    p = dqn.projected_target(nets, subject.targets[""], x, DQNOptions(num_atoms=11, v_min=-5, v_max=5))
    losses, excess = dqn.cross_entropy(logits, p), dqn.kl_from_target(logits, p)
    assert (excess >= 0).all()
    assert (losses > excess).any()
    terminated = x.discount == 0
    with torch.no_grad():
        logp = nets.logits(x.obs)[torch.arange(32), x.a].log_softmax(-1)
    position = (x.r.clamp(-5, 5) + 5)[terminated]
    below = position.floor().long()
    share = position - below
    rows = logp[terminated]
    expected = -(1 - share) * rows.gather(1, below[:, None])[:, 0]
    expected -= share * rows.gather(1, (below + 1).clamp(max=10)[:, None])[:, 0]
    torch.testing.assert_close(losses.detach()[terminated], expected)


@pytest.mark.parametrize(("r", "at_v_min", "at_v_max"), [(-99.0, 1.0, 0.0), (99.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_returns_beyond_the_bounds_of_a_distribution_are_seen_in_the_metrics(
    r: float, at_v_min: float, at_v_max: float
) -> None:
    """The share of the targets' probability that lies on the first and on the last atom; after the end it is all r."""
    subject, x = cartpole(num_atoms=11, v_min=-5.0, v_max=5.0)
    x.r, x.discount = torch.full((32,), r), torch.zeros(32)
    metrics, _ = subject.algorithm.update(subject, x, subject.options)
    assert (metrics["at_v_min"].item(), metrics["at_v_max"].item()) == pytest.approx((at_v_min, at_v_max))


def context(options: Any, width: int = 8, first: int = 0, total: int = 8, timesteps: int = 0) -> ActContext:
    return ActContext(options, torch.Generator().manual_seed(0), width, first, total, timesteps)


class Constant(nn.Module):
    """Thinks action 0 the best, and draws action 1 at random."""

    def greedy(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.long)

    def random(self, obs: Tensor, rng: torch.Generator) -> Tensor:
        return torch.ones(len(obs), dtype=torch.long)


def explored(act: Any, who: ActContext) -> list[float]:
    """How often each environment takes a random action."""
    nets: Any = Constant()
    drawn = torch.stack([act(nets, torch.zeros(who.num_envs, 1), who)[0] for _ in range(4000)])
    shares: list[float] = drawn.float().mean(0).tolist()
    return shares


def test_each_environment_of_ape_x_has_the_epsilon_of_the_paper() -> None:
    """epsilon^(1 + alpha i / (N - 1)), section 4.1; those of the second worker go on from those of the first."""
    options = ApexDQNOptions(epsilon_base=0.4, epsilon_alpha=7.0)
    shares = [
        s for first in (0, 4) for s in explored(dqn.per_worker_epsilon_greedy, context(options, 4, first, total=8))
    ]
    assert shares == pytest.approx([0.4 ** (1 + 7 * i / 7) for i in range(8)], abs=0.02)
    assert explored(dqn.per_worker_epsilon_greedy, context(options, 1, 0, total=1)) == pytest.approx([0.4], abs=0.02), (
        "N = 1"
    )


@pytest.mark.parametrize(("timesteps", "epsilon"), [(0, 1.0), (500, 0.55), (1000, 0.1), (9000, 0.1)])
def test_epsilon_follows_its_schedule(timesteps: int, epsilon: float) -> None:
    options = DQNOptions(epsilon_schedule=[[0, 1.0], [1000, 0.1]])
    assert explored(dqn.explore, context(options, timesteps=timesteps)) == pytest.approx([epsilon] * 8, abs=0.03)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_first_priorities_are_those_of_a_slow_n_step_difference(end: str) -> None:
    plan = worker_config(TASKS + "Clock", "ApexDQN", {"end": end}, **small("ApexDQN", n_step=3))
    worker, weights = Worker(plan, 0), make_learner(plan).weights(0)
    fragment, _ = worker.sample(weights)
    assert fragment.priorities is not None
    assert not fragment.valid.all()
    nets: Any = worker.policy
    length, width = fragment.r.shape
    for b in range(width):
        q = [nets(torch.from_numpy(fragment.obs[t, b : b + 1]))[0] for t in range(length + 1)]
        for t in np.flatnonzero(fragment.valid[:, b]):
            td_target, weight, k = 0.0, 1.0, int(t)
            while True:
                td_target += weight * float(fragment.r[k, b])
                weight *= plan.options.gamma
                k += 1
                ended = fragment.terminated[k - 1, b] or fragment.truncated[k - 1, b]
                if ended or k == length or k - t == 3:
                    break
            td_target += 0.0 if fragment.terminated[k - 1, b] else weight * float(q[k].max())
            expected = abs(td_target - float(q[t][fragment.a[t, b]]))
            assert fragment.priorities[t, b] == pytest.approx(expected, abs=1e-5)


def pendulum(run: str, **config: Any) -> tuple[UpdateContext, Transitions]:
    subject = make_learner(worker_config("Pendulum-v1", run, **small(run, **config))).context
    rng = torch.Generator().manual_seed(1)
    for part in ("policy", "critic"):
        subject.groups.flats[part].vector.data += 0.3 * torch.randn(
            subject.groups.flats[part].vector.shape, generator=rng
        )
    a = torch.rand(4096, 1, generator=rng) * 2 - 1
    return subject, batch(torch.randn(4096, 3, generator=rng), a, rng)


class Slope(nn.Module):
    """Critics whose values are the action, and its double."""

    def forward(self, obs: Tensor, a: Tensor) -> Tensor:
        return torch.stack([a[:, 0], 2 * a[:, 0]])


class Still(nn.Module):
    """A policy that always does the same."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def forward(self, obs: Tensor) -> Tensor:
        return torch.full((len(obs), 1), self.a)


def test_td3_smooths_its_goal_by_clipped_noise_and_takes_the_smaller_critic() -> None:
    subject, x = pendulum("TD3")
    subject.targets = {"policy": Still(0.3), "critic": Slope()}
    cfg = DDPGOptions(target_noise=0.2, target_noise_clip=0.25)
    a = (ddpg.td_target(subject, x, cfg) - x.r)[x.discount > 0] / 0.9
    assert (a > 0).float().mean() > 0.9
    a = torch.where(a > 0, a, a / 2)  # of the two critics the smaller counts
    noise = a - 0.3
    assert noise.abs().max().item() == pytest.approx(0.25, abs=1e-5)
    clipped = (noise.abs() > 0.2499).float().mean().item()
    assert clipped == pytest.approx(math.erfc(0.25 / 0.2 / math.sqrt(2)), abs=0.02)
    inside = noise[noise.abs() < 0.2]
    assert inside.mean().item() == pytest.approx(0, abs=0.01)


def test_the_targets_actions_stay_within_the_bounds() -> None:
    subject, x = pendulum("TD3")
    subject.targets = {"policy": Still(0.95), "critic": Slope()}
    a = (ddpg.td_target(subject, x, DDPGOptions(target_noise=0.2)) - x.r)[x.discount > 0] / 0.9
    assert a.max().item() == pytest.approx(1.0, abs=1e-5)


def test_ddpgs_goal_is_the_targets_value_of_the_targets_action() -> None:
    subject, x = pendulum("DDPG")
    policy, critic = subject.targets["policy"], subject.targets["critic"]
    with torch.no_grad():
        y = x.r + x.discount * critic(x.next_obs, policy(x.next_obs))[0]
    torch.testing.assert_close(ddpg.td_target(subject, x, DDPGOptions()), y)


@pytest.mark.parametrize(("delay", "freq", "policy_steps", "target_steps"), [(1, 1, 6, 6), (2, 1, 3, 3), (2, 3, 3, 1)])
def test_policy_and_targets_wait_for_the_critic(delay: int, freq: int, policy_steps: int, target_steps: int) -> None:
    subject, x = pendulum("TD3", policy_delay=delay, target_update_freq=freq, tau=0.5)
    flats = (
        subject.groups.flats["policy"].vector,
        subject.groups.target_flats["critic"].vector,
        subject.groups.target_flats["policy"].vector,
    )
    changes = [0, 0, 0]
    for _ in range(6):
        before = [vector.clone() for vector in flats]
        subject.algorithm.update(subject, x, subject.options)
        changes = [n + (not torch.equal(a, b)) for n, a, b in zip(changes, before, flats, strict=True)]
    assert changes == [policy_steps, target_steps, target_steps]


def test_noise_on_actions_is_a_share_of_half_their_range() -> None:
    options = DDPGOptions(exploration_sigma=0.1, learning_starts=0)
    policy: Any = Still(0.2)
    a = ddpg.explore(policy, torch.zeros(20_000, 1), context(options, 20_000))[0]
    assert a.mean().item() == pytest.approx(0.2, abs=0.005)
    assert a.std().item() == pytest.approx(0.1, abs=0.005)


def test_correlated_noise_is_remembered_until_the_episode_ends() -> None:
    options = DDPGOptions(
        exploration_noise="ornstein-uhlenbeck", exploration_sigma=0.05, exploration_theta=0.1, learning_starts=0
    )
    policy: Any = Still(0.0)
    who = context(options, 5000)
    first = ddpg.explore(policy, torch.zeros(5000, 1), who)[0]
    who.forget(torch.arange(5000) < 2500)
    second = ddpg.explore(policy, torch.zeros(5000, 1), who)[0]
    both = torch.stack([first, second])[:, :, 0]
    assert torch.corrcoef(both[:, :2500])[0, 1].item() == pytest.approx(0, abs=0.06)
    assert torch.corrcoef(both[:, 2500:])[0, 1].item() == pytest.approx(0.9 / math.sqrt(1 + 0.9**2), abs=0.04)


@pytest.mark.parametrize("run", ["DDPG", "TD3", "SAC"])
def test_actions_are_uniform_before_learning_starts(run: str) -> None:
    plan = worker_config(
        "Pendulum-v1", run, **small(run, num_envs_per_worker=64, buffer_size=1000, learning_starts=5000)
    )
    fragment, _ = Worker(plan, 0).sample(make_learner(plan).weights(0))
    assert np.histogram(fragment.a, 4, (-1, 1))[0] == pytest.approx(np.full(4, 128), abs=40)


LOGITS = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.0, 0.0]])


class Table(nn.Module):
    """Two critics of 3 actions."""

    q = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]], [[2.0, 0.0, 4.0], [1.0, 1.0, 1.0]]])

    def forward(self, obs: Tensor) -> Tensor:
        return self.q


def test_sacs_expectation_over_discrete_actions_is_the_sum() -> None:
    q, logp = sac.soft_value(Table(), Categorical(LOGITS), torch.zeros(2, 1), torch.Generator())
    p = LOGITS.softmax(-1)
    smaller = [[1.0, 0.0, 3.0], [0.0, 1.0, 1.0]]
    for i in range(2):
        assert q[i].item() == pytest.approx(sum(float(p[i, k]) * smaller[i][k] for k in range(3)))
        assert logp[i].item() == pytest.approx(sum(float(p[i, k] * p[i, k].log()) for k in range(3)))


def test_sacs_sum_is_the_mean_of_draws() -> None:
    dist = Categorical(LOGITS)
    q, logp = sac.soft_value(Table(), dist, torch.zeros(2, 1), torch.Generator())
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack([dist.sample(rng) for _ in range(5000)])
    smaller = Table.q.min(0).values
    seen = torch.stack([smaller[i, draws[:, i]].mean() for i in range(2)])
    torch.testing.assert_close(q, seen, atol=0.05, rtol=0)
    torch.testing.assert_close(logp, torch.stack([dist.log_prob(a) for a in draws]).mean(0), atol=0.05, rtol=0)


def test_sacs_goal_counts_the_entropy() -> None:
    """y = r + discount (min Q - alpha log pi), with one draw for each observation: eq. 3 and 5."""
    subject, x = pendulum("SAC", alpha=0.3, prioritized=True)
    nets: Any = subject.nets
    rng = torch.Generator()
    rng.set_state(subject.rng.get_state())
    with torch.no_grad():
        dist = nets.policy.act(x.next_obs)
        a, logp = dist.drawn(standard_normal(dist.mean.shape, rng, dist.mean))
        y = x.r + x.discount * (subject.targets["critic"](x.next_obs, a).min(0).values - 0.3 * logp)
        errors = (nets.critic(x.obs, x.a) - y).abs().mean(0)
    _, td_error = subject.algorithm.update(subject, x, subject.options)
    torch.testing.assert_close(td_error, errors)


def test_the_temperature_moves_towards_the_entropy_aimed_at() -> None:
    for aim, rises in ((50.0, True), (-50.0, False)):
        subject, x = pendulum("SAC", target_entropy=aim, initial_alpha=0.5)
        nets: Any = subject.nets
        subject.algorithm.update(subject, x, subject.options)
        assert (nets.alpha() > 0.5) == rises
    subject, x = pendulum("SAC", alpha=0.5)
    subject.algorithm.update(subject, x, subject.options)
    assert subject.nets.alpha().item() == pytest.approx(0.5), "given, it stays"


def test_a_temperature_that_is_given_is_not_the_checkpoints() -> None:
    saved, _ = pendulum("SAC", initial_alpha=0.7)
    for config, alpha in (({"alpha": 0.1}, 0.1), ({"initial_alpha": 0.2}, 0.7)):
        subject, _ = pendulum("SAC", **config)
        subject.load(module_state(saved.nets), saved.state())
        assert subject.nets.alpha().item() == pytest.approx(alpha)


def test_the_entropy_aimed_at() -> None:
    """Minus the number of continuous actions; of discrete ones a share of the largest that the legal ones can have."""
    assert sac.target_entropy(SquashedGaussian(torch.zeros(2, 6)), SACOptions()) == -3
    legal = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    dist = Categorical(masked(torch.randn(3, 3), legal))
    aim = sac.target_entropy(dist, SACOptions(target_entropy_ratio=0.5))
    assert isinstance(aim, Tensor)
    assert aim.tolist() == pytest.approx([0.5 * math.log(3), 0.5 * math.log(2), 0.0])
    assert sac.target_entropy(dist, SACOptions(target_entropy=0.1)) == 0.1


@pytest.mark.parametrize(
    ("run", "env"),
    [("DQN", "CartPole-v1"), ("Rainbow", "CartPole-v1"), ("TD3", "Pendulum-v1"), ("SAC", "Pendulum-v1")],
)
def test_priorities_are_the_errors_of_the_last_update(run: str, env: str) -> None:
    plan = worker_config(
        env, run, **small(run, prioritized=True, learning_starts=0, batch_size=8, updates_per_step=1 / 16)
    )
    last: dict[int, float] = {}

    def spy(context: UpdateContext, x: Transitions, cfg: Any) -> Any:
        metrics, td_error = plan.algorithm.update(context, x, cfg)
        last.update(zip(x.index.tolist(), td_error.tolist(), strict=True))
        return metrics, td_error

    subject = make_learner(replace(plan, algorithm=replace(plan.algorithm, update=spy)))
    subject.update_from_fragments([Worker(plan, 0).sample(subject.weights(0))[0]], 0)
    assert last
    assert subject.feed is not None
    assert subject.feed.replay.tree is not None
    held = subject.feed.replay.tree.get(np.array(list(last)))
    alpha, epsilon = plan.options.priority_alpha, plan.options.priority_epsilon  # type: ignore[attr-defined]
    assert held == pytest.approx([(error + epsilon) ** alpha for error in last.values()], rel=1e-4)
