"""The policy-gradient algorithms' own mathematics: PG's baseline, APPO's ratio."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrainer.algorithms import on_policy, ppo
from rltrainer.algorithms.appo import RHO, judge, step
from rltrainer.algorithms.impala import corrected
from rltrainer.algorithms.pg import returns
from rltrainer.api.options.on_policy import APPOOptions
from rltrainer.core.fragment import Batch, collate
from rltrainer.learning.learner import Learner
from rltrainer.ops import losses
from rltrainer.sampling.worker import Worker
from tests.unit.trainer.helpers import TASKS, learner, serial, small, worker_config

GAMMA = 0.9


def trajectories(length: int = 12, width: int = 4) -> Batch:
    """Episodes that end in every way, and the steps after them that only begin the next."""
    rng = torch.Generator().manual_seed(3)
    done = torch.rand(length, width, generator=rng) < 0.3
    valid = torch.ones_like(done)
    for t in range(1, length):
        valid[t] = ~(done[t - 1] & valid[t - 1])
        done[t] &= valid[t]
    terminated = done & (torch.rand(length, width, generator=rng) < 0.5)
    r = torch.randn(length, width, generator=rng, dtype=torch.float64) * valid
    empty = torch.zeros(length + 1, width)
    return Batch(empty, empty[1:], r, terminated, done & ~terminated, valid)


def slow_returns(batch: Batch, b: float) -> Tensor:
    """Step by step back: nothing after a termination, `b` after any other end of what is known."""
    found = torch.zeros_like(batch.r)
    for t in reversed(range(len(batch.r))):
        for i in range(batch.r.shape[1]):
            if batch.terminated[t, i]:
                after = 0.0
            elif batch.truncated[t, i] or t == len(batch.r) - 1:
                after = b
            else:
                after = float(found[t + 1, i])
            found[t, i] = batch.r[t, i] + GAMMA * after
    return found


def test_what_is_unknown_is_worth_the_mean_return() -> None:
    """The constant b that stands in for what follows a cut is the mean of the returns that it makes."""
    batch = trajectories()
    assert batch.terminated.any()
    assert batch.truncated.any()
    to_go, b = returns(batch, GAMMA)
    torch.testing.assert_close(to_go[batch.valid], slow_returns(batch, b.item())[batch.valid])
    torch.testing.assert_close(to_go[batch.valid].mean(), b)


def test_returns_by_hand() -> None:
    """Rewards 1, 2 and the end, then 4 and the fragment's end, gamma 1/2: (2, 2, 4 + b/2), b = 8/3 + b/6 = 3.2."""
    r = torch.tensor([[1.0], [2.0], [0.0], [4.0]])
    ends = torch.tensor([[False], [True], [False], [False]])
    valid = torch.tensor([[True], [True], [False], [True]])
    to_go, b = returns(Batch(torch.zeros(5, 1), r, r, ends, torch.zeros_like(ends), valid), 0.5)
    assert b.item() == pytest.approx(3.2)
    assert to_go[valid].tolist() == pytest.approx([2.0, 2.0, 5.6])


@pytest.mark.parametrize("run", ["PG", "A2C", "PPO", "A3C", "IMPALA", "APPO"])
def test_fragments_with_nothing_to_learn_from_are_left_out(run: str) -> None:
    """One step of one environment: after each episode of 4 steps comes a fragment in which only the next begins."""
    config = small(run, num_envs_per_worker=1, rollout_fragment_length=1)
    config |= {"train_batch_size": 1} if "train_batch_size" in config else {}
    backend, iterations = serial(worker_config(TASKS + "Recall", run, **config))
    done = [next(iterations) for _ in range(10)]
    whole = run in ("IMPALA", "APPO")  # whose batches wait until there is a step in them
    assert [each.timesteps for each in done] == [1] * 10 if whole else [1, 1, 1, 1, 0] * 2
    assert all(bool(p.isfinite().all()) for p in backend.learner.policy().values())


def off_policy(**config: object) -> tuple[Learner, Batch, APPOOptions]:
    """A learner of APPO whose target is not its policy, and a batch that was sampled with neither."""
    plan = worker_config(run="APPO", **small("APPO", **config))
    subject = learner(plan)
    rng = torch.Generator().manual_seed(0)

    def shaken(vector: Tensor) -> None:
        vector.data += 0.3 * torch.randn(vector.shape, generator=rng)

    fragment, _ = Worker(plan, 0).sample(subject.weights(0))
    shaken(subject.flats[""].vector)
    shaken(subject.target_flats[""].vector)
    return subject, collate([fragment], torch.device("cpu")), plan.options  # type: ignore[return-value]


def test_appos_ratio_is_that_of_the_policy_to_the_larger_of_targets_and_workers() -> None:
    """pi / max(target, worker / RHO), section 3.1 of IMPACT, from probabilities."""
    subject, batch, cfg = off_policy(normalize_advantages=False, clip=100.0)
    columns = judge(subject, batch, cfg)
    with torch.no_grad():
        policy = subject.nets(columns["obs"])[0].softmax(-1)
        target = subject.targets[""](columns["obs"])[0].softmax(-1)
    a = columns["a"].unsqueeze(-1)
    pi, pi_target = policy.gather(-1, a)[:, 0], target.gather(-1, a)[:, 0]
    worker = batch.extras["logp"][batch.valid].exp()
    assert ((worker / pi_target) > RHO).any(), "the bound is met"
    ratio = pi / torch.maximum(pi_target, worker / RHO)
    expected = -(ratio * columns["adv"]).mean()
    torch.testing.assert_close(step(subject, columns, cfg, 0.0, 0.0)["policy_loss"], expected)


def test_appos_values_are_judged_by_the_target_network() -> None:
    subject, batch, cfg = off_policy()
    before = judge(subject, batch, cfg)
    subject.flats[""].vector.data.zero_()
    after = judge(subject, batch, cfg)
    assert all(torch.equal(before[name], after[name]) for name in before)
    subject.target_flats[""].vector.data.zero_()
    flat = judge(subject, batch, cfg)
    assert flat["share"].tolist() == pytest.approx(
        (batch.extras["logp"][batch.valid].exp() * 2).clamp(max=RHO).tolist()
    )
    rho = (0.5 / batch.extras["logp"][-1].exp()).clamp(max=1)
    torch.testing.assert_close(flat["target"][-len(rho) :], rho, msg="no value is believed in, and a step pays 1")


def test_appos_target_is_renewed_every_so_many_steps_of_the_optimiser() -> None:
    """32 steps of experience in minibatches of 16, twice: 4 steps in each update."""
    subject, batch, cfg = off_policy(target_update_freq=8, minibatch_size=16)
    target = subject.target_flats[""].vector

    def renewed() -> bool:
        target.data.fill_(0.01)
        subject.algorithm.update(subject, batch, cfg)
        return not bool((target == 0.01).all())

    assert [renewed() for _ in range(6)] == [False, False, True, False, True, False]


# --- the gradients that are followed, against autograd's of the losses that the papers give


def shaken(run: str, env: str, **config: Any) -> tuple[Learner, Batch]:
    """A learner whose networks are no longer those that sampled, and what these sampled. It keeps its weights."""
    plan = worker_config(run=run, env=env, **small(run, grad_clip=0.0, **config))
    subject = learner(plan)
    fragment, _ = Worker(plan, 0).sample(subject.weights(0))
    for i, flat in enumerate((*subject.flats.values(), *subject.target_flats.values())):
        flat.vector.data += 0.3 * torch.randn(flat.vector.shape, generator=torch.Generator().manual_seed(i))
    subject.withhold = True
    return subject, collate([fragment], torch.device("cpu"))


def followed(subject: Learner, step: Callable[[], object], loss: Callable[[], Tensor]) -> None:
    with subject.tape.recording():
        step()
    found = subject.flats[""].gradient.clone()
    subject.flats[""].gradient.zero_()
    loss().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, subject.flats[""].gradient, rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 0


ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"]
PENALTIES: list[dict[str, Any]] = [
    {},
    {"entropy_coeff": 0.1, "vf_clip": 0.3, "vf_share_layers": True},
    {"entropy_coeff": 0.05, "normalize_advantages": False, "kl_coeff": 0.4, "vf_coeff": 0.7},
    {"recurrent": "lstm", "entropy_coeff": 0.02},
]


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("config", PENALTIES)
def test_ppo_follows_equation_9(env: str, config: dict[str, Any]) -> None:
    subject, batch = shaken("PPO", env, **config)
    cfg: Any = subject.options
    columns = on_policy.evaluate(subject.nets, batch, cfg)
    rows = on_policy.whole(columns)
    old = subject.nets.action_distribution.make(rows["parameters"] + 0.2 * torch.randn(rows["parameters"].shape))
    rows["logp"] = old.log_prob(rows["a"])

    def loss() -> Tensor:
        parameters, v = on_policy.predict(subject.nets, rows)
        dist = subject.nets.action_distribution.make(parameters)
        ratio = (dist.log_prob(rows["a"]) - rows["logp"]).exp()
        adv = losses.standardize(rows["adv"]) if cfg.normalize_advantages else rows["adv"]
        policy = torch.minimum(ratio * adv, ratio.clamp(1 - cfg.clip, 1 + cfg.clip) * adv).mean()
        value = 0.5 * (v - rows["target"]).square()
        if cfg.vf_clip is not None:
            held = rows["v"] + (v - rows["v"]).clamp(-cfg.vf_clip, cfg.vf_clip)
            value = torch.maximum(value, 0.5 * (held - rows["target"]).square())
        kl = subject.nets.action_distribution.make(rows["parameters"]).kl(dist).mean()
        bonus = cfg.entropy_coeff * dist.entropy().mean()
        total: Tensor = -policy + cfg.vf_coeff * value.mean() - bonus + cfg.kl_coeff * kl
        return total

    weights = (cfg.clip, cfg.entropy_coeff, cfg.kl_coeff)
    followed(subject, lambda: ppo.step(subject, rows, cfg, *weights), loss)
    found = ppo.step(subject, rows, cfg, *weights)
    seen = {**found, "v_old": rows["v"], "old": rows["parameters"], "target": rows["target"]}
    torch.testing.assert_close(ppo.judged(subject.nets, seen, cfg, *weights)["loss"], loss().detach())


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("run", ["A2C", "IMPALA"])
@pytest.mark.parametrize("config", [{}, {"entropy_coeff": 0.1, "vf_coeff": 0.7, "vf_share_layers": True}])
def test_actor_critics_follow_their_three_losses(run: str, env: str, config: dict[str, Any]) -> None:
    subject, batch = shaken(run, env, **config)
    cfg: Any = subject.options

    def loss() -> Tensor:
        parameters, v = subject.nets(batch.obs)
        dist = subject.nets.action_distribution.make(parameters[:-1])
        logp, valid = dist.log_prob(batch.a), batch.valid
        if run == "A2C":
            adv = on_policy.advantages(batch, v.detach(), cfg)
            target = adv + v[:-1].detach()
        else:
            target, adv = corrected(batch, logp, v, cfg)
        value = 0.5 * (v[:-1] - target)[valid].square().mean()
        policy = -(logp * adv)[valid].mean()
        total: Tensor = policy + cfg.vf_coeff * value - cfg.entropy_coeff * dist.entropy()[valid].mean()
        return total

    followed(subject, lambda: subject.algorithm.update(subject, batch, cfg), loss)


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("kl_coeff", [0.0, 0.4])
def test_appo_follows_equation_2(env: str, kl_coeff: float) -> None:
    subject, batch = shaken("APPO", env, entropy_coeff=0.1)
    cfg: Any = subject.options
    rows = judge(subject, batch, cfg)

    def loss() -> Tensor:
        parameters, v = subject.nets(rows["obs"])
        dist = subject.nets.action_distribution.make(parameters)
        ratio = rows["share"] * (dist.log_prob(rows["a"]) - rows["behaviour"]).exp()
        adv = losses.standardize(rows["adv"]) if cfg.normalize_advantages else rows["adv"]
        policy = torch.minimum(ratio * adv, ratio.clamp(1 - cfg.clip, 1 + cfg.clip) * adv).mean()
        value = 0.5 * (v - rows["target"]).square().mean()
        kl = subject.nets.action_distribution.make(rows["parameters"]).kl(dist).mean()
        total: Tensor = -policy + cfg.vf_coeff * value - cfg.entropy_coeff * dist.entropy().mean() + kl_coeff * kl
        return total

    followed(subject, lambda: step(subject, rows, cfg, cfg.entropy_coeff, kl_coeff), loss)
