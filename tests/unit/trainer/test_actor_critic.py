"""The policy-gradient algorithms' own mathematics: PG's baseline, APPO's ratio."""

import pytest
import torch
from torch import Tensor

from rltrainer.algorithms.appo import RHO, step, target_batch
from rltrainer.algorithms.pg import returns
from rltrainer.api.options.on_policy import APPOOptions
from rltrainer.backend.base import make_learner
from rltrainer.core.fragment import Batch, collate
from rltrainer.learning.update_context import UpdateContext
from rltrainer.sampling.worker import Worker
from tests.unit.trainer.helpers import TASKS, serial, small, worker_config

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


def off_policy(**config: object) -> tuple[UpdateContext, Batch, APPOOptions]:
    """A learner of APPO whose target is not its policy, and a batch that was sampled with neither."""
    plan = worker_config(run="APPO", **small("APPO", **config))
    subject = make_learner(plan).context
    rng = torch.Generator().manual_seed(0)

    def shaken(vector: Tensor) -> None:
        vector.data += 0.3 * torch.randn(vector.shape, generator=rng)

    fragment, _ = Worker(plan, 0).sample(make_learner(plan).weights(0))
    shaken(subject.groups.flats[""].vector)
    shaken(subject.groups.target_flats[""].vector)
    return subject, collate([fragment], torch.device("cpu")), plan.options  # type: ignore[return-value]


def test_appos_ratio_is_that_of_the_policy_to_the_larger_of_targets_and_workers() -> None:
    """pi / max(target, worker / RHO), section 3.1 of IMPACT, from probabilities."""
    subject, batch, cfg = off_policy(normalize_advantages=False, clip=100.0)
    columns = target_batch(subject, batch, cfg)
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
    before = target_batch(subject, batch, cfg)
    subject.groups.flats[""].vector.data.zero_()
    after = target_batch(subject, batch, cfg)
    assert all(torch.equal(before[name], after[name]) for name in before)
    subject.groups.target_flats[""].vector.data.zero_()
    flat = target_batch(subject, batch, cfg)
    assert flat["share"].tolist() == pytest.approx(
        (batch.extras["logp"][batch.valid].exp() * 2).clamp(max=RHO).tolist()
    )
    rho = (0.5 / batch.extras["logp"][-1].exp()).clamp(max=1)
    torch.testing.assert_close(flat["target"][-len(rho) :], rho, msg="no value is believed in, and a step pays 1")


def test_appos_target_is_renewed_every_so_many_steps_of_the_optimiser() -> None:
    """32 steps of experience in minibatches of 16, twice: 4 steps in each update."""
    subject, batch, cfg = off_policy(target_update_freq=8, minibatch_size=16)
    target = subject.groups.target_flats[""].vector

    def renewed() -> bool:
        target.data.fill_(0.01)
        subject.algorithm.update(subject, batch, cfg)
        return not bool((target == 0.01).all())

    assert [renewed() for _ in range(6)] == [False, False, True, False, True, False]
