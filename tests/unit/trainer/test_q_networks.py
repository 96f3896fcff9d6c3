"""Networks of the value-based and continuous algorithms against slow transcriptions and by their identities."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.spaces.utils import flatten_space
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rltrainer.accel.dense_stack import BatchedLinear
from rltrainer.api.options.off_policy import DDPGOptions, DQNOptions, RainbowOptions, SACOptions, TD3Options
from rltrainer.core.types import Spaces
from rltrainer.errors import RunError
from rltrainer.networks.continuous import (
    ActorAndCritic,
    CategoricalPolicy,
    Critic,
    DeterministicActor,
    DiscreteCritic,
    SoftActorAndCritic,
    SoftPolicy,
    Temperature,
)
from rltrainer.networks.dense import dense
from rltrainer.networks.noisy import NoisyLinear, without_noise
from rltrainer.networks.q_network import QNetwork, q_network
from rltrainer.ops.distributions import LOG_STD_MAX, LOG_STD_MIN

N, D, ATOMS = 5, 3, 11
PLAIN = Spaces(spaces.Box(-1, 1, (4,)), spaces.Discrete(N))
REACH = Spaces(spaces.Box(-1, 1, (4,)), spaces.Box(-2.0, 3.0, (2,)))


def in_parts(**parts: Space[Any]) -> Spaces:
    structure = spaces.Dict({"state": spaces.Box(-1, 1, (4,)), **parts})
    return Spaces(flatten_space(structure), spaces.Discrete(N), structure)


MASKED = in_parts(action_mask=spaces.MultiBinary(N))
PARAMETRIC = in_parts(action_mask=spaces.MultiBinary(N), avail_actions=spaces.Box(-1, 1, (N, D)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observe(state: Tensor, mask: Tensor, rows: Tensor | None = None) -> Tensor:
    """The vector that gymnasium makes of a Dict: its parts in alphabetical order."""
    return torch.cat([mask.float(), *([] if rows is None else [rows.flatten(-2)]), state], -1)


def observations(where: Spaces, batch: tuple[int, ...] = (8,), legal: float = 0.5) -> Tensor:
    rng = generator(1)
    state = torch.rand(*batch, 4, generator=rng)
    mask = torch.rand(*batch, N, generator=rng) < legal
    mask[..., 0] |= ~mask.any(-1)
    if where is PLAIN:
        return state
    return observe(state, mask, torch.rand(*batch, N, D, generator=rng) if where is PARAMETRIC else None)


def small_network(where: Spaces = PLAIN, **config: Any) -> QNetwork:
    torch.manual_seed(3)
    return q_network(where, DQNOptions(hiddens=[16, 16], **config))


def test_noise_is_that_of_equations_9_to_11() -> None:
    """Weight by weight: f(x) = sgn(x) sqrt(|x|), w_ij = f(e_i) f(e_j), b_j = f(e_j)."""
    layer = NoisyLinear(3, 2, sigma=0.5)
    nn.init.uniform_(layer.weight_sigma)
    nn.init.uniform_(layer.bias_sigma)
    layer.resample(generator())
    e = torch.randn(5, generator=generator()).tolist()
    f = [abs(x) ** 0.5 * (1 if x > 0 else -1) for x in e]
    x = [0.3, -1.0, 2.0]
    expected = []
    for j in range(2):
        y = layer.bias[j].item() + layer.bias_sigma[j].item() * f[3 + j]
        for i in range(3):
            y += (layer.weight[j, i].item() + layer.weight_sigma[j, i].item() * f[i] * f[3 + j]) * x[i]
        expected.append(y)
    assert layer(torch.tensor(x)).tolist() == pytest.approx(expected, abs=1e-5)


def test_noise_has_its_first_deviation() -> None:
    """Of the output for x = 1: y's noise is sigma / sqrt(p) f(e_j) (sum_i f(e_i) + 1), and E f(e)^2 = sqrt(2 / pi)."""
    layer = NoisyLinear(4, 64, sigma=0.5)
    rng, x = generator(), torch.ones(4)
    with torch.no_grad():
        mean = layer(x)
        draws = []
        for _ in range(3000):
            layer.resample(rng)
            draws.append(layer(x) - mean)
    power = (2 / np.pi) ** 0.5
    expected = 0.25**2 * power * (4 * power + 1)
    assert torch.stack(draws).square().mean().item() == pytest.approx(expected, rel=0.1)
    assert layer.weight.abs().max().item() <= 4**-0.5


def test_noise_is_drawn_from_the_generator_and_not_saved() -> None:
    layer, other = NoisyLinear(3, 2, 0.5), NoisyLinear(3, 2, 0.5)
    other.load_state_dict(layer.state_dict())
    x = torch.ones(3)
    assert torch.equal(layer(x), other(x))  # without noise, as none was drawn
    layer.resample(generator(7))
    assert not torch.equal(layer(x), other(x))
    other.resample(generator(7))
    assert torch.equal(layer(x), other(x))
    assert set(layer.state_dict()) == {"weight", "bias", "weight_sigma", "bias_sigma"}


def test_quiet_layers_use_their_mean_weights_and_then_their_noise_again() -> None:
    layer = NoisyLinear(3, 2, 0.5)
    layer.resample(generator())
    x = torch.ones(3)
    noisy = layer(x)
    with without_noise([layer]), without_noise([layer]):
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert torch.equal(layer(x), noisy)


def test_stacked_layers_are_as_many_linear_ones() -> None:
    stacked, x = BatchedLinear(2, 3, 4), torch.randn(2, 5, 3, generator=generator())
    for k in range(2):
        expected = nn.functional.linear(x[k], stacked.weight[k].T, stacked.bias[k, 0])
        torch.testing.assert_close(stacked(x)[k], expected)
    assert stacked.weight.abs().max().item() <= 3**-0.5


def test_dense_puts_the_activation_between_layers_only() -> None:
    kinds = [type(layer) for layer in dense(4, [3, 2], "relu", 1)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in dense(4, [3], "tanh")] == [nn.Linear, nn.Tanh]


def test_dueling_is_equation_9() -> None:
    nets = small_network(dueling=True)
    assert nets.value is not None
    obs = observations(PLAIN)
    features = nets.body(nets.encoder(obs))
    v, a = nets.value(features), nets.advantage(features)
    q = nets(obs)
    for i in range(8):
        for j in range(N):
            expected = v[i, 0].item() + a[i, j].item() - sum(a[i].tolist()) / N
            assert q[i, j].item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(q.mean(-1), v[:, 0])  # the mean over the actions is the value of the state


def test_distributional_values_are_the_means_of_the_distributions() -> None:
    nets = small_network(num_atoms=ATOMS, v_min=-2.0, v_max=3.0)
    obs = observations(PLAIN, (2, 3))
    logits = nets.logits(obs)
    assert logits.shape == (2, 3, N, ATOMS)
    probabilities = logits.softmax(-1)
    expected = sum(probabilities[..., i] * (-2.0 + 0.5 * i) for i in range(ATOMS))
    torch.testing.assert_close(nets(obs), expected)


def test_dueling_streams_of_distributions_are_joined_atom_by_atom() -> None:
    """Wang et al.'s eq. 9 for each atom, as in Rainbow's section 4."""
    nets = small_network(num_atoms=ATOMS, dueling=True)
    assert nets.value is not None
    obs = observations(PLAIN)
    features = nets.body(nets.encoder(obs))
    v, a = nets.value(features), nets.advantage(features).unflatten(-1, (N, ATOMS))
    for j in range(N):
        torch.testing.assert_close(nets.logits(obs)[:, j], v + a[:, j] - a.mean(1))


def test_a_described_action_is_worth_the_product_of_intention_and_row() -> None:
    nets = small_network(PARAMETRIC)
    obs = observations(PARAMETRIC)
    phi, rows = nets.advantage(nets.body(nets.encoder(obs))), obs[:, N : N + N * D].reshape(8, N, D)
    q = nets(obs)
    for i in range(8):
        for j in range(N):
            assert q[i, j].item() == pytest.approx((nets.psi(rows[i, j]) @ phi[i]).item() / 16**0.5, abs=1e-5)


@pytest.mark.parametrize("config", [{}, {"dueling": True}, {"num_atoms": ATOMS}, {"dueling": True, "noisy": True}])
def test_described_actions_change_places_with_their_values(config: dict[str, Any]) -> None:
    nets = small_network(PARAMETRIC, **config)
    nets.resample(generator())
    state, rows = torch.rand(4), torch.rand(N, D)
    order = torch.tensor([3, 0, 4, 1, 2])
    here = nets(observe(state, torch.ones(N), rows))
    torch.testing.assert_close(nets(observe(state, torch.ones(N), rows[order])), here[order])


def test_dueling_values_of_described_actions_depend_on_what_is_on_offer() -> None:
    """Were the mean over the actions the value of the state, as in eq. 9, it would not."""
    nets = small_network(PARAMETRIC, dueling=True)
    state = torch.rand(4)
    poor, rich = (nets(observe(state, torch.ones(N), torch.full((N, D), x))) for x in (-1.0, 1.0))
    assert not torch.allclose(poor.mean(), rich.mean())


def test_the_mask_is_no_feature() -> None:
    nets = small_network(MASKED, dueling=True)
    state = torch.rand(4)
    assert torch.equal(nets(observe(state, torch.ones(N))), nets(observe(state, torch.zeros(N))))


KINDS: list[dict[str, Any]] = [{}, {"dueling": True, "noisy": True, "num_atoms": ATOMS}]


@pytest.mark.parametrize("where", [MASKED, PARAMETRIC], ids=["masked", "parametric"])
@pytest.mark.parametrize("config", KINDS, ids=["plain", "rainbow"])
def test_illegal_actions_are_never_chosen(where: Spaces, config: dict[str, Any]) -> None:
    nets = small_network(where, **config)
    rows = torch.rand(N, D, generator=generator()) if where is PARAMETRIC else None

    @settings(max_examples=60, deadline=None)
    @given(
        state=st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4),
        legal=st.lists(st.booleans(), min_size=N, max_size=N).filter(any),
        seed=st.integers(0, 2**31),
    )
    def check(state: list[float], legal: list[bool], seed: int) -> None:
        rng, mask = generator(seed), torch.tensor(legal)
        nets.resample(rng)
        obs = observe(torch.tensor(state), mask, rows).expand(2, -1)
        q = nets(obs)
        assert q.isfinite().all()
        best = max(q[0, j].item() for j in range(N) if legal[j])
        assert all(legal[a] and q[0, a].item() == best for a in nets.greedy(obs).tolist())
        assert all(legal[a] for a in nets.random(obs, rng).tolist())

    check()


def test_a_state_without_a_legal_action_is_answered_all_the_same() -> None:
    nets = small_network(MASKED)
    obs = observe(torch.rand(2, 4), torch.zeros(2, N))
    assert nets.greedy(obs).tolist() == [0, 0]
    assert nets.random(obs, generator()).tolist() == [0, 0]


@pytest.mark.parametrize("where", [PLAIN, MASKED], ids=["plain", "masked"])
def test_random_actions_are_uniform_among_the_legal(where: Spaces) -> None:
    nets, legal = small_network(where), [0, 1, 2, 3, 4] if where is PLAIN else [1, 3, 4]
    mask = torch.zeros(N)
    mask[legal] = 1
    obs = torch.rand(20_000, 4) if where is PLAIN else observe(torch.rand(20_000, 4), mask.expand(20_000, N))
    share = torch.bincount(nets.random(obs, generator()), minlength=N) / 20_000
    expected = [1 / len(legal) if j in legal else 0.0 for j in range(N)]
    assert share.tolist() == pytest.approx(expected, abs=0.015)
    assert torch.equal(nets.random(obs, generator(5)), nets.random(obs, generator(5)))


def test_observations_of_one_number_have_random_actions_too() -> None:
    nets = small_network(Spaces(spaces.Discrete(7), spaces.Discrete(N, start=2)))
    obs = torch.arange(7)
    assert nets(obs).shape == (7, N)
    assert nets.random(obs, generator()).shape == (7,)
    assert set(nets.random(obs.repeat(50), generator()).tolist()) == set(range(N))  # from 0, whatever the space's start


@pytest.mark.parametrize("where", [PLAIN, MASKED, PARAMETRIC], ids=["plain", "masked", "parametric"])
@pytest.mark.parametrize("hiddens", [[], [8], [8, 8, 8]], ids=len)
@pytest.mark.parametrize("options", [DQNOptions, RainbowOptions])
def test_gradients_reach_every_parameter(where: Spaces, hiddens: list[int], options: type[DQNOptions]) -> None:
    torch.manual_seed(0)
    nets = q_network(where, options(hiddens=hiddens, activation="tanh"))
    nets.resample(generator())
    nets(observations(where, (2, 3))).square().sum().backward()
    assert {name for name, p in nets.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_noise_is_drawn_for_every_layer_and_kept_out_of_quiet_values() -> None:
    nets, obs = small_network(noisy=True, dueling=True), observations(PLAIN)
    twin = deepcopy(nets)
    mean = nets(obs)
    nets.resample(generator(1))
    loud = nets(obs)
    assert not torch.allclose(loud, mean)
    layers = [m for m in nets.modules() if isinstance(m, NoisyLinear)]
    assert all(layer.noise_in.all() and layer.noise_out.all() for layer in layers)
    assert not any(isinstance(m, nn.Linear) for m in nets.modules())
    with nets.without_noise():
        assert torch.equal(nets(obs), mean)
    assert torch.equal(nets(obs), loud)
    assert torch.equal(twin(obs), mean)  # a target has noise of its own
    twin.resample(generator(1))
    assert torch.equal(twin(obs), loud)


def test_without_noise_nothing_is_drawn() -> None:
    nets, obs, rng = small_network(), observations(PLAIN), generator()
    before = nets(obs)
    nets.resample(rng)
    with nets.without_noise():
        assert torch.equal(nets(obs), before)
    assert torch.equal(rng.get_state(), generator().get_state())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (REACH, "needs a Discrete action space, and the environment has Box"),
        (in_parts(action_mask=spaces.MultiBinary(N + 1)), "action_mask has 6 elements"),
        (in_parts(avail_actions=spaces.Box(-1, 1, (N + 1, D))), r"shape \(5, d\), a row for each action"),
        (in_parts(avail_actions=spaces.Box(-1, 1, (N,))), r"shape \(5, d\), a row for each action"),
    ],
)
def test_what_does_not_fit_is_said(where: Spaces, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        small_network(where)
    assert caught.value.permanent
    assert caught.value.reason == "InvalidOption"


SMALL: dict[str, Any] = {"hiddens": [16, 16]}


def test_a_policy_is_the_tanh_of_its_layers() -> None:
    policy, obs = DeterministicActor(REACH, TD3Options(**SMALL)), torch.randn(3, 7, 4, generator=generator())
    linears = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    x = obs
    for layer in linears[:-1]:
        x = (x @ layer.weight.T + layer.bias).relu()
    expected = (x @ linears[-1].weight.T + linears[-1].bias).tanh()
    torch.testing.assert_close(policy(obs), expected)
    assert policy(obs * 1e6).abs().max().item() <= 1.0


def test_a_soft_policys_deviation_depends_on_the_state_within_bounds() -> None:
    policy, obs = SoftPolicy(REACH, SACOptions(**SMALL)), torch.randn(64, 4, generator=generator())
    log_std = policy.act(obs).log_std
    assert log_std.std(0).min().item() > 0
    extreme = policy.act(obs * 1e6).log_std
    assert extreme.min().item() == LOG_STD_MIN
    assert extreme.max().item() == LOG_STD_MAX
    dist = policy.act(obs)
    torch.testing.assert_close(dist.mode(), policy(obs).chunk(2, -1)[0].tanh())
    assert torch.equal(dist.sample(generator(2)), policy.act(obs).sample(generator(2)))
    assert dist.sample(generator(2)).shape == (64, 2)


def test_a_categorical_policy_gives_illegal_actions_no_probability() -> None:
    policy, obs = CategoricalPolicy(MASKED, SACOptions(**SMALL)), observations(MASKED, (64,))
    illegal, dist = obs[:, :N] == 0, policy.act(obs)
    assert illegal.any()
    assert dist.logp.exp()[illegal].eq(0).all()
    assert dist.logp.exp()[~illegal].gt(0).all()
    for seed in range(20):
        assert not illegal.gather(-1, dist.sample(generator(seed)).unsqueeze(-1)).any()


def test_a_categorical_policy_sees_descriptions_of_actions() -> None:
    """It has no use for them as actions, so they are observations like all others."""
    policy, critic = CategoricalPolicy(PARAMETRIC, SACOptions(**SMALL)), DiscreteCritic(PARAMETRIC, SACOptions(**SMALL))
    obs = observations(PARAMETRIC, legal=2.0)
    other = obs.clone()
    other[:, N : N + N * D] += 1
    assert not torch.allclose(policy(obs), policy(other))
    assert not torch.allclose(critic(obs), critic(other))


@pytest.mark.parametrize("twin", [False, True])
def test_critics_are_separate_networks(twin: bool) -> None:
    critic = Critic(REACH, DDPGOptions(hiddens=[8], critic_hiddens=[16, 16], twin_q=twin))
    obs, a = torch.randn(7, 4, generator=generator()), torch.rand(7, 2, generator=generator())
    q = critic(obs, a)
    assert q.shape == (1 + twin, 7)
    stacked = [layer for layer in critic.modules() if isinstance(layer, BatchedLinear)]
    assert [layer.weight.shape[-1] for layer in stacked] == [16, 16, 1]
    for k in range(1 + twin):
        x = torch.cat([obs, a], -1)
        for layer in stacked:
            x = (x if layer is stacked[0] else x.relu()) @ layer.weight[k] + layer.bias[k]
        torch.testing.assert_close(q[k], x.squeeze(-1))


def test_twin_critics_begin_apart_and_share_no_gradient() -> None:
    critic = Critic(REACH, TD3Options(**SMALL))
    q = critic(torch.randn(7, 4), torch.rand(7, 2))
    assert not torch.allclose(q[0], q[1])
    q[0].square().sum().backward()
    for p in critic.parameters():
        assert p.grad is not None
        assert p.grad[0].any()
        assert not p.grad[1].any()


def test_a_critics_hidden_layers_are_the_policys_unless_it_has_its_own() -> None:
    critic = DiscreteCritic(PLAIN, SACOptions(hiddens=[8, 9]))
    assert [layer.weight.shape[-1] for layer in critic.modules() if isinstance(layer, BatchedLinear)] == [8, 9, N]
    none = DiscreteCritic(PLAIN, SACOptions(hiddens=[8, 9], critic_hiddens=[]))
    assert [layer.weight.shape for layer in none.modules() if isinstance(layer, BatchedLinear)] == [(2, 4, N)]


def test_a_critics_gradient_reaches_the_policy_through_the_action() -> None:
    nets = ActorAndCritic(REACH, TD3Options(**SMALL))
    obs = torch.randn(16, 4)
    (-nets.critic(obs, nets.policy(obs))[0].mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in nets.policy.parameters())


def test_discrete_critics_value_all_actions() -> None:
    critic, obs = DiscreteCritic(MASKED, SACOptions(**SMALL)), observations(MASKED)
    q = critic(obs)
    assert q.shape == (2, 8, N)
    assert q.isfinite().all()
    q[1].sum().backward()
    assert all(p.grad is not None and not p.grad[0].any() and p.grad[1].any() for p in critic.parameters())


@pytest.mark.parametrize(("config", "expected"), [({"initial_alpha": 0.3}, 0.3), ({"alpha": 0.2}, 0.2)])
def test_the_temperature_begins_as_the_options_say(config: dict[str, Any], expected: float) -> None:
    alpha = Temperature(SACOptions(**config))
    assert alpha().item() == pytest.approx(expected)
    alpha().backward()
    assert alpha.log_alpha.grad is not None
    assert alpha.log_alpha.grad.item() == pytest.approx(expected)


Make = Callable[[], ActorAndCritic]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: ActorAndCritic(REACH, TD3Options(**SMALL)), {"policy": DeterministicActor, "critic": Critic}),
        (
            lambda: SoftActorAndCritic(REACH, SACOptions(**SMALL)),
            {"policy": SoftPolicy, "critic": Critic, "alpha": Temperature},
        ),
        (
            lambda: SoftActorAndCritic(PLAIN, SACOptions(**SMALL)),
            {"policy": CategoricalPolicy, "critic": DiscreteCritic, "alpha": Temperature},
        ),
    ],
    ids=["TD3", "SAC", "discrete SAC"],
)
def test_parts_have_the_names_that_optimizers_know(make: Make, parts: dict[str, type[nn.Module]]) -> None:
    nets = make()
    assert {name: type(part) for name, part in nets.named_children()} == parts
    owners = [id(p) for part in nets.children() for p in part.parameters()]
    assert len(owners) == len(set(owners)) == len(list(nets.parameters()))  # each parameter is of one part


def test_images_are_seen_by_policy_and_critic() -> None:
    where = Spaces(spaces.Box(0, 255, (36, 36, 3), np.uint8), REACH.actions)
    nets = ActorAndCritic(where, DDPGOptions(hiddens=[8]))
    obs = torch.randint(0, 256, (2, 36, 36, 3), dtype=torch.uint8, generator=generator())
    a = nets.policy(obs)
    assert a.shape == (2, 2)
    assert nets.critic(obs, a).shape == (1, 2)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Discrete(3),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(-1, np.inf, (2,)),
        spaces.Box(0, 5, (2,), np.int64),
    ],
)
@pytest.mark.parametrize("network", [DeterministicActor, SoftPolicy, Critic])
def test_actions_without_finite_bounds_are_refused(network: Any, actions: Space[Any]) -> None:
    with pytest.raises(RunError, match="a Box of floats with finite bounds") as caught:
        network(Spaces(REACH.observations, actions), SACOptions(**SMALL))
    assert caught.value.permanent
    assert caught.value.reason == "InvalidOption"
