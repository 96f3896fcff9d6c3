"""Gradients found by hand: the same as the engine's, wherever dense layers stand."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rltrainer.accel.dense_stack import BatchedLinear, DenseStack
from rltrainer.accel.tape import Tape
from rltrainer.networks.dense import Dense, dense
from rltrainer.networks.noisy import NoisyLinear
from rltrainer.networks.parameters import FlatParameters

N = 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(net: nn.Module, loss: Callable[[], Tensor], parts: Sequence[str], taped: bool) -> Tensor:
    """Of `loss` by the parameters of the first of the parts of `net`; by those of the others there are none."""
    net = net.double()
    flat, *others = [FlatParameters(net.get_submodule(part)) for part in parts]
    tape = Tape()
    with tape.recording() if taped else nullcontext():
        found = loss()
        assert bool(tape.entries) == taped
        tape.backward([found], [None], flat.trainable, flat.trainable_ids)
    assert not any(other.gradient.any() for other in others)
    return flat.gradient


def same(net: nn.Module, loss: Callable[[], Tensor], parts: Sequence[str] = ("",)) -> None:
    by_hand, by_engine = (gradients(net, loss, parts, taped) for taped in (True, False))
    assert by_engine.abs().max() > 0
    torch.testing.assert_close(by_hand, by_engine)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "linear"])
@pytest.mark.parametrize("shape", [(N, 3), (4, N, 3), (3,)])
def test_of_a_stack(activation: str, shape: tuple[int, ...]) -> None:
    net, x = dense(3, [4, 6], activation, 2), drawn(*shape).double()

    def loss() -> Tensor:
        total: Tensor = (net(x) * net(x).exp()).sum()  # passed through twice
        return total

    same(net, loss)


def test_of_layers_that_are_stacked_and_of_the_first_of_them() -> None:
    net, x = dense(3, [4], "relu", 1, partial(BatchedLinear, 2)), drawn(N, 3).double()
    same(net, lambda: net(x.expand(2, N, 3)).square().sum() + net(x.expand(1, N, 3)).exp().sum())


def test_of_two_heads_on_a_body_that_they_share() -> None:
    body, policy, value = dense(3, [4], "tanh"), nn.Linear(4, 2), nn.Linear(4, 1)
    towers = DenseStack(body), DenseStack(policy), DenseStack(value, scalar=True)
    x = drawn(N, 3).double()

    def loss() -> Tensor:
        hidden = towers[0](x)
        v = towers[2](hidden)
        assert v.shape == (N,)
        return towers[1](hidden).square().sum() + v.exp().sum() + hidden.sin().sum()

    same(nn.ModuleList([body, policy, value]), loss)


class Chained(nn.Module):
    """A policy, what only the engine knows, and critics that judge its actions."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = dense(3, [4], "relu", 2)
        self.critic = dense(4, [6], "relu", 1, partial(BatchedLinear, 2))

    def loss(self, x: Tensor) -> Tensor:
        mean, log_std = self.policy(x).chunk(2, -1)
        u = mean + 0.3 * log_std.exp()
        q = self.critic(torch.cat([x, u.tanh()], -1).expand(2, N, 4))
        total: Tensor = (u.square() + log_std).sum() - q.min(0).values.sum()
        return total


@pytest.mark.parametrize("parts", [[""], ["policy", "critic"], ["critic", "policy"]])
def test_through_a_critic_to_a_policy(parts: list[str]) -> None:
    """Both ways from the policy to the loss count, and what is not asked to learn gets no gradient."""
    net, x = Chained(), drawn(N, 3).double()
    same(net, lambda: net.loss(x), parts)


def test_before_dense_layers_the_engine_goes_on() -> None:
    """Two towers on what a layer that the tape does not know puts out; it is gone through once."""
    before, first, second = nn.GRU(3, 4), dense(4, [6], "tanh", 1), dense(4, [5], "elu", 2)
    x = drawn(7, N, 3).double()

    def loss() -> Tensor:
        features = before(x)[0]
        total: Tensor = first(features).exp().sum() + second(features).square().sum()
        return total

    same(nn.ModuleList([before, first, second]), loss)


def test_layers_of_other_kinds_are_left_to_the_engine() -> None:
    noisy = dense(3, [4], "relu", 2, partial(NoisyLinear, sigma=0.5))
    silu, last = dense(3, [4], "silu", 2), dense(2, [], "relu", 1)
    x = drawn(N, 3).double()
    same(nn.ModuleList([noisy, silu, last]), lambda: last(noisy(x) + silu(x)).exp().sum())


def test_what_another_loss_is_for_stays_recorded() -> None:
    """Two losses of networks that were passed through before either: what is learnt first loses nothing."""
    first, second = dense(3, [4], "tanh", 1), dense(3, [4], "tanh", 1)
    flats, x, tape = (FlatParameters(first), FlatParameters(second)), drawn(N, 3), Tape()
    with tape.recording():
        losses = first(x).square().sum(), second(x).square().sum()
        for loss, flat in zip(losses, flats, strict=True):
            tape.backward([loss], [None], flat.trainable, flat.trainable_ids)
        assert not tape.entries
    assert all(flat.gradient.abs().max() > 0 for flat in flats)


def test_known_gradients_of_outputs() -> None:
    net, x, by_y = dense(3, [4], "tanh", 2), drawn(N, 3), drawn(N, 2, seed=1)
    flat, tape, found = FlatParameters(net), Tape(), []
    for taped in (True, False):
        flat.gradient.zero_()
        with tape.recording() if taped else nullcontext():
            y = net(x)
            tape.backward([y, y.exp()], [by_y, by_y], flat.trainable, flat.trainable_ids)
        found.append(flat.gradient.clone())
    torch.testing.assert_close(*found)


def test_a_copy_has_its_own_parameters() -> None:
    net, x = dense(3, [4], "tanh", 2), drawn(N, 3)
    flat, tape = FlatParameters(net), Tape()
    with tape.recording():
        tape.backward([net(x).sum()], [None], flat.trainable, flat.trainable_ids)
    before, other = flat.gradient.clone(), copy.deepcopy(net)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    flat_of_other = FlatParameters(other)
    assert isinstance(other, Dense)
    assert not other(x).any()
    assert net(x).any()
    with tape.recording():
        tape.backward([(other(x) - 1).square().sum()], [None], flat_of_other.trainable, flat_of_other.trainable_ids)
    assert flat_of_other.gradient.any()
    assert torch.equal(flat.gradient, before)


def test_nothing_is_recorded_where_nothing_is_learnt_or_precision_is_mixed() -> None:
    net, x, tape = dense(3, [4], "tanh", 2), drawn(N, 3), Tape()
    with tape.recording():
        assert not net(x).is_leaf, "layers that no learner has"
        FlatParameters(net)
        with torch.no_grad():
            assert not net(x).requires_grad
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
        assert not tape.entries
        assert net(x).is_leaf
        assert len(tape.entries) == 1
    assert not tape.entries
    assert not net(x).is_leaf
