"""Running statistics, against those of all rows at once."""

import numpy as np
import pytest
import torch

from rltrainer.ops.normalization import ObservationNormalizer, RewardNormalizer, RunningMoments, discounted_so_far
from tests.unit.trainer.helpers import quick, serial, worker_config


def test_moments_merged_in_batches_are_those_of_all_rows() -> None:
    rows = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 1e6, -3.0])
    moments = RunningMoments((3,))
    for part in torch.split(rows, [1, 7, 492, 500]):
        moments.update(part)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.var, rows.var(0, correction=0), rtol=1e-6, atol=0)
    assert moments.count.item() == 1000


def test_observations_are_normalised_and_clipped() -> None:
    normalizer = ObservationNormalizer((2,))
    assert normalizer(torch.tensor([3.0, -4.0])).tolist() == [3.0, -4.0], "before any data, they pass as they are"
    rows = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    normalizer.update(rows)
    torch.testing.assert_close(normalizer(rows), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert normalizer(torch.tensor([1e9, 20.0])).tolist() == pytest.approx([10.0, 0.0], abs=1e-6)


def test_observation_statistics_are_part_of_the_state() -> None:
    first, second = ObservationNormalizer((2,)), ObservationNormalizer((2,))
    first.update(torch.randn(50, 2) * 7 + 3)
    second.load_state_dict(first.state_dict())
    row = torch.tensor([0.3, 9.0])
    assert torch.equal(first(row), second(row))


def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return() -> None:
    """Rewards 1, 2 and an end, 4, at a discount of 1/2: the returns so far are 1, 2.5, 4."""
    r, done = np.array([[1.0], [2.0], [4.0]], np.float32), np.array([[False], [True], [False]])
    so_far = discounted_so_far(r, done, 0.5, np.zeros(1, np.float32))
    assert so_far[:, 0].tolist() == [1.0, 2.5, 4.0]
    scaled = RewardNormalizer()(torch.from_numpy(r), torch.from_numpy(so_far), torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(scaled, torch.from_numpy(r) / torch.tensor([1.0, 2.5, 4.0]).std(correction=0))


def test_returns_so_far_go_on_across_fragments() -> None:
    rng = np.random.default_rng(0)
    r, done = rng.normal(size=(12, 3)).astype(np.float32), rng.random((12, 3)) < 0.2
    whole = discounted_so_far(r, done, 0.9, np.zeros(3, np.float32))
    carried = np.zeros(3, np.float32)
    parts = [discounted_so_far(r[t : t + 4], done[t : t + 4], 0.9, carried) for t in (0, 4, 8)]
    assert (np.concatenate(parts) == whole).all()
    assert carried.tolist() == np.where(done[-1], 0, whole[-1]).tolist()


def test_steps_that_do_not_count_leave_the_reward_statistics_alone() -> None:
    normalizer = RewardNormalizer()
    valid = torch.tensor([[True], [False], [True]])
    normalizer(torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([[1.0], [9.0], [1.0]]), valid)
    assert normalizer.count.item() == 2
    assert normalizer.mean.item() == 1.0


def test_rewards_are_scaled_by_what_all_workers_earned() -> None:
    """The returns so far travel with the fragments, and what they are measured by stays with the learner."""
    backend, iterations = serial(worker_config(**quick(normalize_rewards=True, num_workers=2)))
    done = [next(iterations) for _ in range(3)]
    normalizer = backend.learner.statistics.rewards
    assert normalizer is not None
    assert normalizer.count.item() == sum(iteration.timesteps for iteration in done)
    assert normalizer.mean.item() > 1, "CartPole pays 1 a step"
