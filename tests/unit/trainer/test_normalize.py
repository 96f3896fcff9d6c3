import pytest
import torch

from rltrainer.normalize import ObservationNormalizer, RewardNormalizer, RunningMoments


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
    """One environment, gamma 0.5: rewards 1, 2 and an end, 4: returns 1, 2.5, 4."""
    normalizer = RewardNormalizer(1, 0.5)
    r, done = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[False], [True], [False]])
    scaled = normalizer(r, done, torch.ones(3, 1, dtype=torch.bool))
    deviation = torch.tensor([1.0, 2.5, 4.0]).std(correction=0)
    torch.testing.assert_close(scaled, r / deviation)
    assert normalizer.returns.tolist() == [4.0]


def test_steps_that_do_not_count_leave_the_reward_statistics_alone() -> None:
    normalizer = RewardNormalizer(1, 0.9)
    valid = torch.tensor([[True], [False], [True]])
    normalizer(torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([[True], [False], [False]]), valid)
    assert normalizer.moments.count.item() == 2
    assert normalizer.moments.mean.item() == 1.0
