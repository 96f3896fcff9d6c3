"""Returns, the distributional projection, noise and Huber's loss against slow transcriptions and identities."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrainer.ops import losses
from rltrainer.ops.exploration import gaussian, ornstein_uhlenbeck
from rltrainer.ops.projection import project, support
from rltrainer.ops.returns import gae, n_step_returns, vtrace

GAMMA = 0.9


def trajectories(lambda_: float = 1.0, t: int = 7, b: int = 4) -> dict[str, Tensor]:
    """Episodes that end either way, and values of their own for what followed an end."""
    rng = torch.Generator().manual_seed(0)
    terminated = torch.rand(t, b, generator=rng) < 0.2
    truncated = (torch.rand(t, b, generator=rng) < 0.2) & ~terminated
    ended = terminated | truncated

    def normal() -> Tensor:
        return torch.randn(t, b, generator=rng, dtype=torch.float64)

    v = normal()
    v_tp1 = torch.where(ended, normal(), torch.cat([v[1:], normal()[:1]]))
    return {
        "log_rho": normal(),
        "discount": GAMMA * (~terminated).double(),
        "trace": lambda_ * (~ended).double(),
        "r": normal(),
        "v": v,
        "v_tp1": v_tp1,
    }


def of_vtrace(x: dict[str, Tensor], **clips: float) -> tuple[Tensor, Tensor]:
    return vtrace(x["log_rho"], x["discount"], x["trace"], x["r"], x["v"], x["v_tp1"], **clips)


def slow_vtrace(x: dict[str, Tensor], clip_rho: float, clip_c: float) -> tuple[Tensor, Tensor]:
    """Eq. 1 and the gradient of section 4.2 in plain numbers, for each environment and step from the start."""
    y: dict[str, Any] = {name: value.tolist() for name, value in x.items()}
    steps, width = x["r"].shape
    vs, adv = torch.zeros_like(x["r"]), torch.zeros_like(x["r"])
    for b in range(width):
        for s in range(steps):
            total, weight = y["v"][s][b], 1.0
            for t in range(s, steps):
                rho = min(clip_rho, math.exp(y["log_rho"][t][b]))
                total += weight * rho * (y["r"][t][b] + y["discount"][t][b] * y["v_tp1"][t][b] - y["v"][t][b])
                c = min(clip_c, math.exp(y["log_rho"][t][b]))
                weight *= y["discount"][t][b] * y["trace"][t][b] * c
            vs[s, b] = total
        for s in range(steps):
            last = s + 1 == steps or y["trace"][s][b] == 0
            following = y["v_tp1"][s][b] if last else float(vs[s + 1, b])
            rho = min(clip_rho, math.exp(y["log_rho"][s][b]))
            adv[s, b] = rho * (y["r"][s][b] + y["discount"][s][b] * following - y["v"][s][b])
    return vs, adv


@pytest.mark.parametrize(("clip_rho", "clip_c"), [(1.0, 1.0), (2.0, 0.5), (1e9, 1e9)])
def test_vtrace_is_the_sum_of_the_paper(clip_rho: float, clip_c: float) -> None:
    x = trajectories()
    found = of_vtrace(x, clip_rho=clip_rho, clip_c=clip_c)
    torch.testing.assert_close(found, slow_vtrace(x, clip_rho, clip_c))


def test_vtrace_by_hand() -> None:
    """rho = (2, 1/2), clipped at 1: delta = (1 + .5 * 4 - 2, (3 + .5 * 6 - 4) / 2) = (1, 1); vs = (2 + 1 + .5, 4 + 1);
    the advantages are 1 + .5 * 5 - 2 and (3 + .5 * 6 - 4) / 2."""
    half, one = torch.full((2, 1), 0.5), torch.ones(2, 1)
    log_rho = torch.tensor([[2.0], [0.5]]).log()
    r, v, v_tp1 = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]]), torch.tensor([[4.0], [6.0]])
    vs, adv = vtrace(log_rho, half, one, r, v, v_tp1)
    assert vs.flatten().tolist() == pytest.approx([3.5, 5.0])
    assert adv.flatten().tolist() == pytest.approx([1.5, 1.0])


def test_vtrace_on_policy_is_the_n_step_return() -> None:
    """Remark 1, with lambda 1; eq. 2."""
    x = trajectories()
    x["log_rho"] = torch.zeros_like(x["r"])
    vs, _ = of_vtrace(x)
    torch.testing.assert_close(vs, n_step_returns(x["r"], x["discount"], x["trace"], x["v_tp1"], len(vs)))


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_vtrace_on_policy_is_gae(lambda_: float) -> None:
    x = trajectories(lambda_)
    x["log_rho"] = torch.zeros_like(x["r"])
    vs, adv = of_vtrace(x)
    expected = gae(x["r"], x["discount"], x["v"], x["v_tp1"], x["trace"])
    torch.testing.assert_close(adv, expected)
    torch.testing.assert_close(vs, x["v"] + expected)


def test_vtrace_gives_targets_without_gradients() -> None:
    x = trajectories()
    x["v"].requires_grad_()
    x["log_rho"].requires_grad_()
    assert not any(each.requires_grad for each in of_vtrace(x))


def slow_n_step(x: dict[str, Tensor], n: int, t: int, b: int) -> float:
    """Rewards one after the other, until n, an end or the last of the trajectory."""
    total, weight = 0.0, 1.0
    for k in range(t, min(t + n, len(x["r"]))):
        total += weight * float(x["r"][k, b])
        weight *= float(x["discount"][k, b])
        if x["trace"][k, b] == 0:
            break
    return total + weight * float(x["v_tp1"][k, b])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_n_step_returns_are_the_sums(n: int) -> None:
    x = trajectories()
    found = n_step_returns(x["r"], x["discount"], x["trace"], x["v_tp1"], n)
    expected = [[slow_n_step(x, n, t, b) for b in range(4)] for t in range(7)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_n_step_returns_of_one_step_are_td_targets() -> None:
    x = trajectories()
    found = n_step_returns(x["r"], x["discount"], x["trace"], x["v_tp1"], 1)
    torch.testing.assert_close(found, x["r"] + x["discount"] * x["v_tp1"])


def slow_projection(p: list[float], r: float, discount: float, z: list[float]) -> list[float]:
    """Algorithm 1, atom by atom; where l and u are the same atom, it gets the whole mass."""
    width = (z[-1] - z[0]) / (len(z) - 1)
    m = [0.0] * len(z)
    for j, mass in enumerate(p):
        b = (min(max(r + discount * z[j], z[0]), z[-1]) - z[0]) / width
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += mass
        else:
            m[lower] += mass * (upper - b)
            m[upper] += mass * (b - lower)
    return m


def distributions(seed: int, count: int, atoms: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, atoms, generator=rng, dtype=torch.float64).mul(2).softmax(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    r=st.floats(-30, 30),
    discount=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    atoms=st.integers(2, 12),
)
def test_the_projection_is_algorithm_1_and_keeps_all_mass(seed: int, r: float, discount: float, atoms: int) -> None:
    z, p = support(-8.0, 8.0, atoms).double(), distributions(seed, 3, atoms)
    found = project(p, torch.full((3,), r, dtype=torch.float64), torch.full((3,), discount, dtype=torch.float64), z)
    expected = [slow_projection(row, r, discount, z.tolist()) for row in p.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, dtype=torch.float64))
    assert (found >= 0).all()


def test_the_projection_keeps_the_mean_inside_the_support() -> None:
    z, p = support(-10.0, 10.0, 51).double(), distributions(0, 5, 51)
    r, discount = torch.linspace(-0.9, 0.9, 5).double(), torch.full((5,), 0.9, dtype=torch.float64)
    torch.testing.assert_close(project(p, r, discount, z) @ z, r + discount * (p @ z))


def test_the_projection_of_a_terminal_step_is_the_reward_alone() -> None:
    z = support(0.0, 4.0, 5)
    p = torch.full((2, 5), 0.2)
    found = project(p, torch.tensor([3.0, 2.25]), torch.zeros(2), z)
    torch.testing.assert_close(found, torch.tensor([[0, 0, 0, 1.0, 0], [0, 0, 0.75, 0.25, 0]]))


def test_the_projection_that_changes_nothing() -> None:
    z, p = support(-10.0, 10.0, 51), distributions(1, 4, 51).float()
    torch.testing.assert_close(project(p, torch.zeros(4), torch.ones(4), z), p, atol=1e-5, rtol=0)


def test_gaussian_noise_has_its_deviation_and_its_generator() -> None:
    draws = [gaussian(torch.zeros(20000, 2), 0.3, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].mean().item() == pytest.approx(0, abs=0.01)
    assert draws[0].std().item() == pytest.approx(0.3, abs=0.01)


def test_correlated_noise_has_the_moments_of_its_process() -> None:
    """x_t = (1 - theta) x_tm1 + sigma N: deviation sigma / sqrt(1 - (1 - theta)^2), correlation 1 - theta."""
    rng, theta, sigma = torch.Generator().manual_seed(0), 0.15, 0.2
    x = torch.zeros(4000, 1)
    for _ in range(60):
        x = ornstein_uhlenbeck(x, theta, sigma, rng)
    following = ornstein_uhlenbeck(x, theta, sigma, rng)
    assert x.std().item() == pytest.approx(sigma / math.sqrt(1 - (1 - theta) ** 2), rel=0.05)
    assert torch.corrcoef(torch.cat([x, following], 1).T)[0, 1].item() == pytest.approx(1 - theta, abs=0.03)
    assert ornstein_uhlenbeck(torch.full((1, 1), 2.0), theta, 0.0, rng).item() == pytest.approx(2.0 * (1 - theta))


def test_hubers_gradient_is_the_clipped_error() -> None:
    error = torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0], requires_grad=True)
    loss = losses.huber(error)
    assert loss.tolist() == pytest.approx([2.5, 0.125, 0.0, 0.03125, 1.5])
    assert torch.autograd.grad(loss.sum(), error)[0].tolist() == [-1.0, -0.5, 0.0, 0.25, 1.0]
