"""Returns, losses, distributions and schedules against hand-worked numbers, slow transcriptions and PyTorch's own."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributions
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrainer.algorithms.ppo import adapted, policy_shift
from rltrainer.errors import RunError
from rltrainer.ops import losses
from rltrainer.ops.action_spaces import action_distribution
from rltrainer.ops.distributions import Categorical, DiagonalGaussian, MultiCategorical
from rltrainer.ops.returns import gae
from rltrainer.ops.schedules import at


def trajectories(t: int = 7, b: int = 3) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    terminated = torch.rand(t, b, generator=rng) < 0.2
    truncated = (torch.rand(t, b, generator=rng) < 0.2) & ~terminated
    return {
        "r": torch.randn(t, b, generator=rng, dtype=torch.float64),
        "v": torch.randn(t, b, generator=rng, dtype=torch.float64),
        "v_tp1": torch.randn(t, b, generator=rng, dtype=torch.float64),
        "discount": 0.9 * (~terminated),
        "trace": 0.7 * ~(terminated | truncated),
    }


def slow_gae(x: dict[str, Tensor]) -> Tensor:
    """The sum of eq. 16, term by term."""
    delta = x["r"] + x["discount"] * x["v_tp1"] - x["v"]
    adv = torch.zeros_like(delta)
    for t in range(len(delta)):
        weight = torch.ones_like(delta[0])
        for k in range(t, len(delta)):
            adv[t] += weight * delta[k]
            weight = weight * x["discount"][k] * x["trace"][k]
    return adv


def test_gae_is_the_sum_of_the_paper() -> None:
    x = trajectories()
    torch.testing.assert_close(gae(x["r"], x["discount"], x["v"], x["v_tp1"], x["trace"]), slow_gae(x))


def test_gae_by_hand() -> None:
    """Two steps and a truncation: delta = (1 + .5*2 - 1, 2 + .5*4 - 2) = (1, 2); adv = (1 + .5*.5*2, 2)."""
    r, v, v_tp1 = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])
    discount, trace = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.5], [0.0]])
    assert gae(r, discount, v, v_tp1, trace).tolist() == [[1.5], [2.0]]


def test_gae_of_lambda_1_is_the_discounted_return_less_the_value() -> None:
    x = trajectories()
    whole = torch.full_like(x["r"], 0.9)
    v_tp1 = torch.cat([x["v"][1:], torch.zeros(1, 3, dtype=torch.float64)])
    adv = gae(x["r"], whole, x["v"], v_tp1, torch.ones_like(whole))
    weights = 0.9 ** torch.arange(7, dtype=torch.float64)
    torch.testing.assert_close(adv[0] + x["v"][0], (weights[:, None] * x["r"]).sum(0))


def test_clipped_surrogate_by_hand() -> None:
    """min(1.5, 1.2) * 1, min(.5 * -1, .8 * -1), and inside the interval 1.1 * 2: the mean of (1.2, -.8, 2.2)."""
    ratio, adv = torch.tensor([1.5, 0.5, 1.1]), torch.tensor([1.0, -1.0, 2.0])
    assert losses.clipped_surrogate(ratio, adv, 0.2).item() == pytest.approx(-(1.2 - 0.8 + 2.2) / 3)


def test_clipped_surrogate_is_the_policy_gradient_at_the_old_policy() -> None:
    logp = torch.tensor([-0.3, -1.2, -2.0], requires_grad=True)
    adv = torch.tensor([1.0, -2.0, 0.5])
    surrogate = losses.clipped_surrogate((logp - logp.detach()).exp(), adv, 0.2)
    gradient = torch.autograd.grad(surrogate, logp)[0]
    expected = torch.autograd.grad(losses.policy_gradient(logp, adv), logp)[0]
    torch.testing.assert_close(gradient, expected)


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    ratio = torch.tensor([1.3, 0.7], requires_grad=True)
    surrogate = losses.clipped_surrogate(ratio, torch.tensor([1.0, -1.0]), 0.2)
    assert torch.autograd.grad(surrogate, ratio)[0].tolist() == [0.0, 0.0]


def test_value_losses_by_hand() -> None:
    v, target, old = torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]), torch.tensor([1.0, 3.0])
    assert losses.value_loss(v, target).item() == pytest.approx(0.5 * (1 + 9) / 2)
    # the second value moved by 2 from 3, and is held at 3.5 for the clipped error of 2.25, less than 9
    assert losses.clipped_value_loss(v, old, target, 0.5).item() == pytest.approx(0.5 * (1 + 9) / 2)
    moved = losses.clipped_value_loss(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([2.0]), 0.5)
    assert moved.item() == pytest.approx(0.5 * 1.5**2)


def test_standardize() -> None:
    x = losses.standardize(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert losses.standardize(torch.tensor([4.0])).tolist() == [0.0]


pytorch: Any = torch.distributions  # without types of its own

LOGITS = torch.tensor([[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]])
OTHER = torch.tensor([[1.0, 1.0, 1.0], [0.0, -2.0, 0.7]])


def test_categorical_is_pytorchs() -> None:
    ours, theirs = Categorical(LOGITS), pytorch.Categorical(logits=LOGITS)
    action = torch.tensor([2, 0])
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    expected = pytorch.kl_divergence(theirs, pytorch.Categorical(logits=OTHER))
    torch.testing.assert_close(ours.kl(Categorical(OTHER)), expected)
    assert ours.mode().tolist() == [1, 0]


def test_gaussian_is_pytorchs() -> None:
    first, second = torch.tensor([[0.5, -1.0, 0.2, -0.7]]), torch.tensor([[0.1, 0.0, -0.5, 0.3]])
    normal = pytorch.Independent(pytorch.Normal(first[:, :2], first[:, 2:].exp()), 1)
    other = pytorch.Independent(pytorch.Normal(second[:, :2], second[:, 2:].exp()), 1)
    ours = DiagonalGaussian(first)
    action = torch.tensor([[0.3, 0.9]])
    torch.testing.assert_close(ours.log_prob(action), normal.log_prob(action))
    torch.testing.assert_close(ours.entropy(), normal.entropy())
    torch.testing.assert_close(ours.kl(DiagonalGaussian(second)), pytorch.kl_divergence(normal, other))
    assert ours.mode().tolist() == first[:, :2].tolist()


def test_multi_categorical_is_the_sum_of_its_parts() -> None:
    joint = MultiCategorical(torch.cat([LOGITS, OTHER[:, :2]], -1), [3, 2])
    action = torch.tensor([[1, 0], [2, 1]])
    parts = [pytorch.Categorical(logits=LOGITS), pytorch.Categorical(logits=OTHER[:, :2])]
    torch.testing.assert_close(joint.log_prob(action), sum(p.log_prob(action[:, i]) for i, p in enumerate(parts)))
    torch.testing.assert_close(joint.entropy(), sum(p.entropy() for p in parts))
    assert joint.kl(joint).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dist", [Categorical(LOGITS), MultiCategorical(torch.cat([LOGITS, OTHER], -1), [3, 3])])
def test_discrete_samples_have_the_right_frequencies(dist: Categorical | MultiCategorical) -> None:
    rng = torch.Generator().manual_seed(1)
    first = dist if isinstance(dist, Categorical) else dist.parts[0]
    draws = torch.stack([dist.sample(rng).reshape(2, -1)[:, 0] for _ in range(4000)])
    seen = torch.stack([(draws == k).float().mean(0) for k in range(3)], -1)
    torch.testing.assert_close(seen, first.logits.softmax(-1), atol=0.03, rtol=0)


def test_gaussian_samples_have_the_right_moments() -> None:
    rng = torch.Generator().manual_seed(1)
    draws = DiagonalGaussian(torch.tensor([2.0, math.log(0.5)]).expand(20000, 2)).sample(rng)
    assert draws.mean().item() == pytest.approx(2.0, abs=0.02)
    assert draws.std().item() == pytest.approx(0.5, abs=0.02)


def test_actions_reach_the_environment_in_its_own_terms() -> None:
    box = action_distribution(spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64))
    assert box.to_env(np.array([[5.0, -1.0]], np.float32)).tolist() == [[2.0, 0.0]]
    assert action_distribution(spaces.Discrete(3, start=-1)).to_env(np.array([0, 2])).tolist() == [-1, 1]
    assert action_distribution(spaces.MultiDiscrete([2, 3], start=[0, 5])).to_env(np.array([[1, 1]])).tolist() == [
        [1, 6]
    ]


def test_an_action_space_that_is_not_supported_is_named() -> None:
    with pytest.raises(RunError, match=r"Text.*not supported: use Discrete") as caught:
        action_distribution(spaces.Text(3))
    assert caught.value.permanent


def test_schedule_is_linear_between_points_and_constant_outside() -> None:
    points = [[100.0, 1.0], [200.0, 0.5], [400.0, 0.1]]
    assert [at(points, 9.0, t) for t in (0, 100, 150, 200, 300, 400, 999)] == pytest.approx(
        [1, 1, 0.75, 0.5, 0.3, 0.1, 0.1]
    )
    assert at(None, 9.0, 50) == 9.0


@pytest.mark.parametrize(("kl", "expected"), [(0.016, 0.4), (0.01, 0.2), (0.006, 0.1)])
def test_kl_penalty_adapts_as_in_section_4(kl: float, expected: float) -> None:
    assert adapted(0.2, kl, 0.01) == pytest.approx(expected)


def test_the_estimate_of_the_divergence_is_right_on_average() -> None:
    """Weighted by the old policy's probabilities, the estimate is the KL divergence itself."""
    old, new = Categorical(LOGITS[:1]), Categorical(OTHER[:1])
    log_ratio = (new.logp - old.logp)[0]
    estimates = torch.stack([policy_shift(each, 0.2)[0] for each in torch.split(log_ratio, 1)])
    torch.testing.assert_close((old.logp[0].exp() * estimates).sum(), old.kl(new)[0])


def test_the_clipped_share_by_hand() -> None:
    ratio = torch.tensor([1.0, 1.1, 1.3, 0.7])
    assert policy_shift(ratio.log(), 0.2)[1].item() == 0.5


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 2.0))
def test_derivatives_of_losses_are_autograds(seed: int, clip: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    log_ratio, adv, v, old, target = torch.randn(5, 9, generator=rng, dtype=torch.float64)
    log_ratio.requires_grad_()
    (expected,) = torch.autograd.grad(losses.clipped_surrogate(log_ratio.exp(), adv, clip), log_ratio)
    torch.testing.assert_close(losses.clipped_surrogate_grad(log_ratio.exp().detach(), adv, clip), expected)
    v.requires_grad_()
    (expected,) = torch.autograd.grad(losses.value_loss(v, target), v)
    torch.testing.assert_close(losses.value_loss_grad(v.detach(), target), expected)
    (expected,) = torch.autograd.grad(losses.clipped_value_loss(v, old, target, clip), v)
    torch.testing.assert_close(losses.clipped_value_loss_grad(v.detach(), old, target, clip), expected)
