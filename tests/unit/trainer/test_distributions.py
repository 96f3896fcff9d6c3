"""Distributions over actions against PyTorch's own, and their way to real environments."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torch.distributions
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrainer.errors import RunError
from rltrainer.ops.action_spaces import ActionDistribution, action_distribution, squashed_action_distribution
from rltrainer.ops.distributions import (
    ILLEGAL,
    Bernoullis,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    Product,
    SquashedGaussian,
    log_tanh_grad,
    masked,
)
from rltrainer.ops.exploration import standard_normal

pytorch: Any = torch.distributions  # without types of its own

TUPLE = spaces.Tuple(
    [
        spaces.Discrete(3, start=-1),
        spaces.Box(-2.0, 2.0, (2, 2), np.float64),
        spaces.MultiDiscrete([2, 4], start=[1, 0]),
        spaces.MultiBinary(3),
    ]
)
NESTED = spaces.Tuple([spaces.Discrete(2), spaces.Tuple([spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(5)])])

INTEGERS: Any = spaces.Box(0, 9, (1,), np.int64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def parameters_for(actions: ActionDistribution[Any], *leading: int, seed: int = 0) -> Tensor:
    return drawn(*leading, actions.outputs + actions.log_stds, seed=seed)


# --- masks


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=2, max_size=6).filter(any), st.integers(0, 2**31), st.floats(0.1, 50.0))
def test_what_is_illegal_never_happens(legal: list[bool], seed: int, spread: float) -> None:
    mask = torch.tensor(legal)
    dist = Categorical(masked(drawn(100, len(legal), seed=seed) * spread, mask))
    assert (dist.logp.exp()[:, ~mask] == 0).all()
    assert mask[dist.sample(generator(seed))].all()
    assert mask[dist.mode()].all()
    torch.testing.assert_close(dist.logp.exp().sum(-1), torch.ones(100))


def test_masked_entropy_and_kl_are_those_of_the_legal_actions() -> None:
    mask = torch.tensor([True, False, True, True, False])
    p, q = drawn(4, 5), drawn(4, 5, seed=1)
    ours, other = Categorical(masked(p, mask)), Categorical(masked(q, mask))
    few, few_other = Categorical(p[:, mask]), Categorical(q[:, mask])
    torch.testing.assert_close(ours.entropy(), few.entropy())
    torch.testing.assert_close(ours.kl(other), few.kl(few_other))
    torch.testing.assert_close(ours.log_prob(torch.full((4,), 2)), few.log_prob(torch.full((4,), 1)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.float32])
def test_masks_come_in_any_dtype(dtype: torch.dtype) -> None:
    logits = masked(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1], dtype=dtype))
    assert logits.tolist() == [1.0, ILLEGAL, 3.0]


def test_masked_gradients_are_finite_and_leave_illegal_actions_alone() -> None:
    logits = drawn(6, 4).requires_grad_()
    dist = Categorical(masked(logits, torch.tensor([1, 1, 0, 0])))
    old = Categorical(masked(drawn(6, 4, seed=1), torch.tensor([1, 1, 0, 0])))
    loss = dist.log_prob(torch.ones(6, dtype=torch.long)) + dist.entropy() + old.kl(dist)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 2:] == 0).all()
    assert (logits.grad[:, :2] != 0).all()


def test_nothing_legal_is_finite_still() -> None:
    """As environments may say it of the last observation of an episode, after which there is nothing to choose."""
    dist = Categorical(masked(drawn(3, 4), torch.zeros(4)))
    assert dist.entropy().isfinite().all()
    assert dist.log_prob(torch.zeros(3, dtype=torch.long)).isfinite().all()
    torch.testing.assert_close(dist.logp.exp(), torch.full((3, 4), 0.25))


def test_masks_of_several_choices_lie_side_by_side() -> None:
    dist = MultiCategorical(masked(drawn(500, 5), torch.tensor([0, 1, 1, 1, 0])), [2, 3])
    a = dist.sample(generator())
    assert (a[:, 0] == 1).all()
    assert set(a[:, 1].tolist()) == {0, 1}


# --- bits


def test_bits_are_pytorchs() -> None:
    logits, others = drawn(5, 3), drawn(5, 3, seed=1)
    ours = Bernoullis(logits)
    theirs = pytorch.Independent(pytorch.Bernoulli(logits=logits), 1)
    other = pytorch.Independent(pytorch.Bernoulli(logits=others), 1)
    a = ours.sample(generator())
    assert a.dtype == torch.int8
    torch.testing.assert_close(ours.log_prob(a), theirs.log_prob(a.float()))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(Bernoullis(others)), pytorch.kl_divergence(theirs, other))
    assert torch.equal(ours.mode() == 1, logits > 0)


def test_bits_that_are_nearly_certain_stay_finite() -> None:
    dist = Bernoullis(torch.tensor([[200.0, -200.0]]))
    assert dist.entropy().tolist() == [0.0]
    assert dist.log_prob(torch.tensor([[0, 1]], dtype=torch.int8)).tolist() == [-400.0]


def test_bits_have_the_right_frequencies() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0])
    seen = Bernoullis(logits.expand(20000, 3)).sample(generator()).float().mean(0)
    torch.testing.assert_close(seen, logits.sigmoid(), atol=0.015, rtol=0)


# --- squashed Gaussians


def squashed(parameters: Tensor) -> Any:
    mean, log_std = parameters.chunk(2, -1)
    normal = pytorch.Normal(mean, log_std.exp())
    return pytorch.Independent(pytorch.TransformedDistribution(normal, [pytorch.TanhTransform()]), 1)


def test_squashed_gaussian_is_pytorchs() -> None:
    parameters = drawn(50, 6).double() * 0.5
    dist = SquashedGaussian(parameters)
    a = dist.sample(generator())
    assert (a.abs() < 1).all()
    torch.testing.assert_close(dist.log_prob(a), squashed(parameters).log_prob(a))
    torch.testing.assert_close(dist.mode(), parameters[:, :3].tanh())


def test_actions_and_their_densities_come_in_one_call() -> None:
    dist = SquashedGaussian(drawn(50, 6).double() * 0.5)
    noise = standard_normal(dist.mean.shape, generator(3), dist.mean)
    a, logp = dist.drawn(noise)
    assert torch.equal(a, dist.sample(generator(3)))
    torch.testing.assert_close(logp, dist.log_prob(a), rtol=1e-5, atol=1e-5)  # near 1, a itself has lost digits


def test_the_gradient_of_what_is_drawn_is_pytorchs() -> None:
    ours, theirs = (drawn(8, 4).double().mul(0.5).requires_grad_() for _ in range(2))
    noise, by_logp = drawn(8, 2).double(), drawn(8).double()
    dist = SquashedGaussian(ours)
    a, logp = dist.drawn(noise)
    mean, log_std = theirs.chunk(2, -1)
    u = mean + noise * log_std.exp()
    density = squashed(theirs).log_prob(u.tanh())
    expected = torch.autograd.grad((by_logp * density).sum() + u.tanh().square().sum(), theirs)[0]
    torch.testing.assert_close(torch.autograd.grad((by_logp * logp).sum() + a.square().sum(), ours)[0], expected)


def test_deviations_are_bounded_and_beyond_the_bounds_have_no_gradient() -> None:
    parameters = torch.tensor([[0.1, -0.2, 0.3, -50.0, 0.5, 3.0]], requires_grad=True)
    dist, noise = SquashedGaussian(parameters), drawn(1, 3)
    assert dist.log_std.tolist() == [[-20.0, 0.5, 2.0]]
    a, logp = dist.drawn(noise)
    gradient = torch.autograd.grad(a.sum() + 0.5 * logp.sum(), parameters)[0]
    assert [bool(each) for each in gradient[0]] == [True, True, True, False, True, False]


def test_a_squashed_density_integrates_to_one() -> None:
    a = torch.linspace(-1, 1, 20001, dtype=torch.float64)[1:-1, None]
    density = SquashedGaussian(torch.tensor([[0.3, -0.5]], dtype=torch.float64)).log_prob(a).exp()
    assert torch.trapezoid(density, a.squeeze(-1)).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("u", [-60.0, -3.0, -0.01, 0.0, 0.5, 8.0, 60.0])
def test_the_slope_of_tanh_is_exact_where_the_plain_formula_cancels(u: float) -> None:
    exact = -2 * np.logaddexp(u, -u) + 2 * np.log(2)
    assert log_tanh_grad(torch.tensor(u)).item() == pytest.approx(exact, rel=1e-5, abs=1e-6)


def test_extreme_actions_have_finite_densities_and_gradients() -> None:
    parameters = torch.tensor([[30.0, -30.0, 2.0, -5.0]], requires_grad=True)
    dist = SquashedGaussian(parameters)
    noise = standard_normal(dist.mean.shape, generator(), dist.mean)
    a, logp = dist.drawn(noise)
    assert a.abs().max().item() == 1.0, "single precision has no number between this tanh and 1"
    gradient = torch.autograd.grad(a.sum() + logp.sum(), parameters)[0]
    assert logp.isfinite().all()
    assert gradient.isfinite().all()
    assert SquashedGaussian(parameters).log_prob(a).isfinite().all()


def test_squashed_actions_fill_the_bounds_of_the_environment() -> None:
    box = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    actions = squashed_action_distribution(box)
    assert (actions.outputs, actions.shape) == (4, (2,))
    taken = actions.to_env(np.array([[-1, -1], [0, 0], [1, 1]], np.float32))
    assert taken.tolist() == [[-2, 0], [0, 0.5], [2, 1]]
    assert taken.dtype == np.float32
    assert actions.to_single_env(np.array([1, -1], np.float32)).tolist() == [2, 0]


@pytest.mark.parametrize("space", [spaces.Box(-np.inf, np.inf, (1,)), spaces.Discrete(2), INTEGERS])
def test_squashed_actions_need_bounds(space: Any) -> None:
    with pytest.raises(RunError, match=r"not supported: use a Box of floats with finite bounds") as caught:
        squashed_action_distribution(space)
    assert caught.value.permanent


# --- products


def parts_of(x: Tensor) -> list[Any]:
    """Of TUPLE: 3 logits, 4 means, 2 + 4 logits and 3 logits; then 4 log standard deviations."""
    gaussian = DiagonalGaussian(torch.cat([x[:, 3:7], x[:, 16:]], -1))
    return [Categorical(x[:, :3]), gaussian, MultiCategorical(x[:, 7:13], [2, 4]), Bernoullis(x[:, 13:16])]


def test_a_product_is_the_sum_of_its_parts() -> None:
    actions = action_distribution(TUPLE)
    parameters, others = parameters_for(actions, 7), parameters_for(actions, 7, seed=1)
    product, other = actions.make(parameters), actions.make(others)
    assert isinstance(product, Product)
    assert isinstance(other, Product)
    parts, other_parts = parts_of(parameters), parts_of(others)
    a = product.sample(generator())
    assert a.shape == (7, 1 + 4 + 2 + 3)
    assert a.dtype == torch.float32
    pieces = [a[:, 0].long(), a[:, 1:5], a[:, 5:7].long(), a[:, 7:]]
    torch.testing.assert_close(product.log_prob(a), sum(p.log_prob(x) for p, x in zip(parts, pieces, strict=True)))
    torch.testing.assert_close(product.entropy(), sum(p.entropy() for p in parts))
    divergence = sum(p.kl(q) for p, q in zip(parts, other_parts, strict=True))
    torch.testing.assert_close(product.kl(other), divergence)
    assert product.kl(product).abs().max().item() < 1e-6


SPACES = [
    spaces.Discrete(4, start=2),
    spaces.MultiDiscrete([2, 3], start=[0, 5]),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
    spaces.Box(-1.0, 1.0, (3,)),
    spaces.Box(-1.0, 1.0, (1,), np.float64),
    TUPLE,
    NESTED,
]


class Recorder(gymnasium.Env[Any, Any]):
    """Keeps the actions that it is given, and takes none that are not its own."""

    def __init__(self, space: Any) -> None:
        self.action_space = space
        self.observation_space = spaces.Discrete(1)
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action} is not in {self.action_space}")
        self.taken.append(action)
        return 0, 0.0, False, False, {}


def leaves(action: Any) -> list[Any]:
    if isinstance(action, tuple):
        return [leaf for part in action for leaf in leaves(part)]
    return [np.asarray(action).tolist()]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_actions_of_every_space_reach_a_vector_of_environments_and_one_alone(space: Any) -> None:
    actions = action_distribution(space)
    envs = [Recorder(space) for _ in range(3)]
    vector = SyncVectorEnv([lambda env=env: env for env in envs])  # type: ignore[misc]
    vector.reset()
    drawn_actions = actions.make(parameters_for(actions, 3)).sample(generator())
    stored = np.zeros((3, *actions.shape), actions.dtype)
    stored[...] = drawn_actions.numpy()
    assert np.array_equal(stored, drawn_actions.numpy()), "storing changes nothing"
    vector.step(actions.to_env(stored))
    for env, row in zip(envs, stored, strict=True):
        env.step(actions.to_single_env(row))
        in_vector, alone = env.taken
        assert leaves(in_vector) == leaves(alone)


def test_the_numbers_of_a_tuple_reach_the_right_part() -> None:
    row = np.array([2, 0.5, -0.5, 9.0, 1.0, 1, 3, 1, 0, 1], np.float32)
    choice, box, choices, bits = action_distribution(TUPLE).to_single_env(row)
    assert choice == 1
    assert box.tolist() == [[0.5, -0.5], [2.0, 1.0]]
    assert choices.tolist() == [2, 3]
    assert bits.tolist() == [1, 0, 1]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_log_probabilities_of_stored_actions_are_those_of_the_drawn(space: Any) -> None:
    actions = action_distribution(space)
    dist = actions.make(parameters_for(actions, 5, 2))
    a = dist.sample(generator())
    stored = torch.from_numpy(a.numpy().astype(actions.dtype))
    assert dist.log_prob(stored).shape == (5, 2)
    torch.testing.assert_close(dist.log_prob(stored), dist.log_prob(a))
    assert dist.mode().shape == a.shape


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_entropy_is_the_mean_of_minus_the_log_probability(space: Any) -> None:
    actions = action_distribution(space)
    dist = actions.make(parameters_for(actions).expand(20000, -1))
    estimate = -dist.log_prob(dist.sample(generator())).mean()
    assert estimate.item() == pytest.approx(dist.entropy()[0].item(), abs=0.06)


@pytest.mark.parametrize("space", [spaces.Tuple([]), spaces.Tuple([spaces.Text(3)]), INTEGERS])
def test_a_space_that_is_not_supported_is_named(space: Any) -> None:
    with pytest.raises(RunError, match=r"is not supported: use Discrete"):
        action_distribution(space)


# --- gradients

KINDS: list[spaces.Space[Any]] = [
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Box(-1, 1, (2,), np.float32),
    TUPLE,
    NESTED,
]


@pytest.mark.parametrize("space", KINDS, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("each", [False, True], ids=["one weight of the entropies", "one each"])
def test_gradients_are_autograds(space: spaces.Space[Any], each: bool) -> None:
    kind = action_distribution(space)
    size = kind.outputs + kind.log_stds
    parameters, others = drawn(6, size).double().requires_grad_(), drawn(6, size, seed=1).double()
    dist, old = kind.make(parameters), kind.make(others)
    a = old.sample(generator())
    by_logp, by_entropy = drawn(6, seed=2).double(), drawn(6, seed=3).double() if each else 0.3
    loss = (by_logp * dist.log_prob(a)).sum() + (by_entropy * dist.entropy()).sum()
    (expected,) = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(dist.grad(a, by_logp, by_entropy).detach(), expected)
    (expected,) = torch.autograd.grad(0.7 * old.kl(dist).sum(), parameters)
    torch.testing.assert_close(old.kl_grad(dist, 0.7).detach(), expected)


def test_gradients_leave_illegal_actions_alone() -> None:
    legal = torch.tensor([True, False, True])
    gradient = Categorical(masked(drawn(5, 3), legal)).grad(torch.full((5,), 2), torch.ones(5), 0.5)
    assert gradient.isfinite().all()
    assert not gradient[:, 1].any()
