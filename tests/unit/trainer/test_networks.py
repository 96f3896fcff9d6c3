import copy
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.spaces.utils import flatten, flatten_space
from torch import Tensor

from rltrainer.api.options import Options, PPOOptions
from rltrainer.core.optimizer import SWEEP, Adam
from rltrainer.core.types import Spaces
from rltrainer.envs.layout import ACTION_MASK, AVAIL_ACTIONS, find_part, layout
from rltrainer.errors import RunError
from rltrainer.networks import ActorCritic, PolicyNetwork, RecurrentCore, is_image, observation_encoder, orthogonal
from rltrainer.networks.encoders import Convolutional, OneHot, channels_last, is_picture, minatar, nature, resnet
from rltrainer.networks.parameters import FlatParameters
from rltrainer.ops.normalization import ObservationNormalizer

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
MIXED = spaces.Dict(
    {
        "goal": spaces.Discrete(3),
        "inner": spaces.Tuple([spaces.Box(-9, 9, (2,), np.float32), spaces.MultiDiscrete([2, 3])]),
        "picture": IMAGE,
        "speed": spaces.Box(-9, 9, (2, 2), np.float32),
        "switches": spaces.MultiBinary(2),
    }
)
SPACES: list[Any] = [
    VECTOR,
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(0, 255, (84, 84, 4), np.uint8),
    spaces.Box(0, 255, (4, 84, 84), np.uint8),
    spaces.Box(0, 255, (8, 8, 3), np.uint8),
    spaces.Box(0, 1, (10, 10, 10), np.bool_),
    spaces.Box(0, 1, (10, 10, 4), np.float32),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    MIXED,
    spaces.Tuple([VECTOR, spaces.Discrete(3)]),
]
CHOICES = spaces.Discrete(3)


def seen(space: Space[Any], actions: Space[Any] = CHOICES) -> Spaces:
    """As an environment with these spaces is seen: several parts as one vector."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return Spaces(flatten_space(space), actions, space)
    return Spaces(space, actions)


def observations(space: Space[Any], *leading: int) -> Tensor:
    """Random observations [*leading, *shape] as they are stored."""
    space.seed(1)
    rows = [space.sample() for _ in range(int(np.prod(leading)))]
    if isinstance(space, spaces.Dict | spaces.Tuple):
        rows = [flatten(space, row) for row in rows]
    stored = np.stack(rows)
    stored = stored.astype(np.float32) if stored.dtype.kind == "f" else stored
    return torch.as_tensor(stored).reshape(*leading, *stored.shape[1:])


# --- layout


def test_the_layout_is_that_of_gymnasiums_flatten() -> None:
    MIXED.seed(0)
    sample = MIXED.sample()
    flat = torch.as_tensor(flatten(MIXED, sample))
    by_path = {part.path: part for part in layout(MIXED)}
    assert list(by_path) == [("goal",), ("inner", "0"), ("inner", "1"), ("picture",), ("speed",), ("switches",)]
    assert by_path["goal",].of(flat).argmax().item() == sample["goal"]
    assert by_path["inner", "0"].of(flat).tolist() == sample["inner"][0].tolist()
    assert by_path["picture",].of(flat).tolist() == sample["picture"].reshape(-1).tolist()
    assert by_path["speed",].of(flat).tolist() == sample["speed"].reshape(-1).tolist()
    assert by_path["switches",].of(flat).tolist() == sample["switches"].tolist()
    assert by_path["switches",].elements.stop == len(flat)


def test_a_part_is_found_at_the_top_of_a_dict_only() -> None:
    mask = spaces.MultiBinary(2)
    mask_part = find_part(spaces.Dict({"a": VECTOR, ACTION_MASK: mask}), ACTION_MASK)
    assert mask_part is not None
    assert (mask_part.space, mask_part.elements) == (mask, slice(4, 6))
    assert find_part(spaces.Dict({"a": spaces.Dict({ACTION_MASK: mask})}), ACTION_MASK) is None
    assert find_part(spaces.Tuple([mask]), ACTION_MASK) is None
    assert find_part(None, ACTION_MASK) is None
    with pytest.raises(RunError, match="action_mask in the observation space must be one array"):
        find_part(spaces.Dict({ACTION_MASK: spaces.Tuple([mask, mask])}), ACTION_MASK)


def test_a_leaf_that_has_no_fixed_size_is_named() -> None:
    with pytest.raises(RunError, match=r"Sequence.*not supported: use Box"):
        layout(spaces.Dict({"a": VECTOR, "b": spaces.Sequence(VECTOR)}))


# --- encoders


@pytest.mark.parametrize("space", SPACES, ids=lambda space: str(space)[:40])
@pytest.mark.parametrize("shared", [False, True])
def test_every_supported_observation_gives_actions_and_values(space: Any, shared: bool) -> None:
    nets = ActorCritic(seen(space), PPOOptions(vf_share_layers=shared))
    batch = observations(space, 5, 2)
    parameters, values = nets(batch)
    assert parameters.shape == (5, 2, 3)
    assert values.shape == (5, 2)
    flat_parameters, flat_values = nets(batch.flatten(0, 1))
    torch.testing.assert_close(flat_parameters, parameters.flatten(0, 1))
    torch.testing.assert_close(flat_values, values.flatten())
    dist, state = nets.step(batch[0], nets.initial_state(2))
    assert dist.log_prob(torch.tensor([0, 1])).shape == (2,)
    assert state == {}


@pytest.mark.parametrize("cnn", ["nature", "resnet"])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: str(space)[:40])
def test_every_parameter_of_every_encoder_learns(space: Any, cnn: Literal["nature", "resnet"]) -> None:
    torch.manual_seed(0)
    nets = observation_encoder(seen(space), Options(cnn=cnn, normalize_observations=True))
    features = nets(observations(space, 4))
    assert features.shape == (4, nets.outputs)
    assert features.dtype == torch.float32
    if parameters := list(nets.parameters()):
        features.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


@pytest.mark.parametrize(
    ("shape", "cnn"), [((10, 10, 4), "nature"), ((36, 36, 3), "nature"), ((36, 36, 3), "resnet")], ids=str
)
def test_pictures_are_told_apart(shape: tuple[int, ...], cnn: Literal["nature", "resnet"]) -> None:
    torch.manual_seed(0)
    space = spaces.Box(0, 255, shape, np.uint8)
    seer = observation_encoder(seen(space), Options(cnn=cnn))
    nets = torch.nn.Sequential(seer, torch.nn.Linear(seer.outputs, 2))
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-3)
    batch, answers = observations(space, 8), torch.arange(8) % 2
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(nets(batch), answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (nets(batch).argmax(-1) == answers).all()


def test_an_observation_space_that_is_not_supported_is_named() -> None:
    with pytest.raises(RunError, match=r"Graph.*not supported: use Box"):
        observation_encoder(seen(spaces.Graph(VECTOR, None)), Options())


@pytest.mark.parametrize(
    ("shape", "picture", "image"),
    [
        ((84, 84, 4), True, True),
        ((4, 84, 84), True, True),
        ((36, 36, 1), True, True),
        ((20, 20, 3), True, False),
        ((10, 10, 10), True, False),
        ((2, 3, 3), False, False),
        ((84, 84), False, False),
    ],
)
def test_what_counts_as_an_image(shape: tuple[int, ...], picture: bool, image: bool) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    assert (is_picture(space), is_image(space)) == (picture, image)


@pytest.mark.parametrize(
    ("shape", "last"),
    [((84, 84, 4), True), ((4, 84, 84), False), ((10, 10, 10), True), ((8, 8, 111), True), ((210, 160, 3), True)],
)
def test_the_channels_of_a_picture(shape: tuple[int, ...], last: bool) -> None:
    assert channels_last(shape) is last


@pytest.mark.parametrize("convolutions", [nature, resnet, minatar])
def test_images_mean_the_same_with_channels_first_and_last(convolutions: Any) -> None:
    last, first = (Convolutional(shape, convolutions, 32) for shape in ((44, 40, 3), (3, 44, 40)))
    first.load_state_dict(last.state_dict())
    image = torch.randint(0, 256, (2, 44, 40, 3), dtype=torch.uint8)
    torch.testing.assert_close(last(image), first(image.movedim(-1, 1)))


def test_the_residual_network_is_that_of_the_paper() -> None:
    """15 convolutions in three sections, each of which halves the sides: 72 x 96 becomes 9 x 12."""
    layers = resnet(3)
    assert sum(isinstance(each, torch.nn.Conv2d) for each in layers.modules()) == 15
    assert layers(torch.zeros(1, 3, 72, 96)).shape == (1, 32, 9, 12)
    assert Convolutional((72, 96, 3), resnet, 256).last.in_features == 32 * 9 * 12


def test_bytes_are_scaled_and_bits_are_not() -> None:
    assert observation_encoder(seen(spaces.Box(0, 255, (2,), np.uint8)), Options())(
        torch.tensor([[255, 51]], dtype=torch.uint8)
    ).tolist() == [[1.0, pytest.approx(0.2)]]
    bits = observation_encoder(seen(spaces.Box(0, 1, (10, 10, 4), np.bool_)), Options())
    assert isinstance(bits, Convolutional)
    assert bits.scale is None


@pytest.mark.parametrize(
    ("low", "high", "dtype", "shown", "features"),
    [
        (0, 3, np.uint8, [0, 1, 3], [0, 1 / 3, 1]),
        (0, 255, np.uint8, [0, 51, 255], [0, 0.2, 1]),
        (-1, 1, np.int8, [-1, 0, 1], [-1, 0, 1]),
        (-128, 127, np.int8, [-128, 0, 64], [-1, 0, 0.5]),
        (100, 103, np.int64, [100, 101, 103], [0, 1 / 3, 1]),
        (-103, -100, np.int16, [-100, -101, -103], [0, -1 / 3, -1]),
        (2**30, 2**30 + 4, np.int64, [2**30, 2**30 + 1, 2**30 + 4], [0, 0.25, 1]),
        (-(2**31), 2**31 - 1, np.int32, [-7, 0, 7], [-7, 0, 7]),
        (0, 2**63 - 1, np.int64, [0, 1, 7], [0, 1, 7]),
        (5, 5, np.int32, [5, 5, 5], [0, 0, 0]),
        (-300, 300, np.float32, [-300, 0, 3], [-300, 0, 3]),
    ],
)
def test_integers_are_scaled_by_the_bounds_of_their_space(
    low: int, high: int, dtype: Any, shown: list[int], features: list[float]
) -> None:
    space = spaces.Box(low, high, (3,), dtype)
    obs = torch.from_numpy(np.array(shown, dtype))
    assert observation_encoder(seen(space), Options())(obs).tolist() == pytest.approx(features)


def test_each_integer_is_scaled_by_its_own_bounds_in_a_picture_and_in_a_dict() -> None:
    space = spaces.Box(np.array([0, 10], np.int16), np.array([2, 210], np.int16), dtype=np.int16)
    assert observation_encoder(seen(space), Options())(torch.tensor([1, 110])).tolist() == [0.5, 0.5]
    both = spaces.Dict({"a": spaces.Discrete(2), "b": space, "c": spaces.Box(0, 4, (1,), np.uint8)})
    features = observation_encoder(seen(both), Options())(torch.tensor([0, 1, 1, 110, 3]))
    assert features.tolist() == [0, 1, 0.5, 0.5, 0.75]
    high = np.full((8, 7, 2), 9, np.uint8)
    high[..., 1] = 90
    grid = observation_encoder(seen(spaces.Box(np.zeros_like(high), high, dtype=np.uint8)), Options())
    alike = observation_encoder(seen(spaces.Box(0, 1, (8, 7, 2), np.float32)), Options())
    alike.load_state_dict(grid.state_dict(), strict=False)
    torch.testing.assert_close(grid(torch.from_numpy(high)), alike(torch.ones(8, 7, 2)))


def test_networks_from_before_scales_were_carried_read_integers_as_they_did() -> None:
    """Bytes were divided by 255 then, whatever their bounds, and other integers were left as they were."""
    for dtype, features in ((np.uint8, [100 / 255, 103 / 255]), (np.int16, [100, 103])):
        nets = observation_encoder(seen(spaces.Box(100, 103, (2,), dtype)), Options())
        shown = torch.tensor([100, 103])
        assert nets(shown).tolist() == [0, 1]
        nets.load_state_dict({})
        assert nets(shown).tolist() == pytest.approx(features)
        again = observation_encoder(seen(spaces.Box(100, 103, (2,), dtype)), Options())
        again.load_state_dict(nets.state_dict())
        assert again(shown).tolist() == pytest.approx(features), "what they save says so"


def test_one_hot_of_several_numbers() -> None:
    assert OneHot([2, 3], [0, 5], scalar=False)(torch.tensor([[1, 7]])).tolist() == [[0, 1, 0, 0, 1]]
    assert OneHot([3], [-1], scalar=True)(torch.tensor([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_picture_in_a_dict_is_read_as_it_is_alone() -> None:
    torch.manual_seed(0)
    alone = observation_encoder(seen(IMAGE), Options())
    mixed = observation_encoder(seen(MIXED), Options())
    assert mixed.outputs == 3 + 2 + 5 + 512 + 4 + 2
    picture = next(each for each in mixed.modules() if isinstance(each, Convolutional))
    picture.load_state_dict(alone.state_dict())
    flat = observations(MIXED, 3)
    pixels = layout(MIXED)[3].of(flat).byte().reshape(3, *IMAGE.shape)
    features = mixed(flat)
    torch.testing.assert_close(features[:, 10:522], alone(pixels))
    torch.testing.assert_close(features[:, :10], flat[:, :10])
    torch.testing.assert_close(features[:, 522:], flat[:, -6:])


MASKED = spaces.Dict({ACTION_MASK: spaces.MultiBinary(3), AVAIL_ACTIONS: spaces.Box(-1, 1, (3, 2)), "x": VECTOR})


def test_masks_and_descriptions_of_actions_are_no_features() -> None:
    flat = observations(MASKED, 2)
    assert observation_encoder(seen(MASKED), Options())(flat).tolist() == flat[:, -4:].tolist()
    assert observation_encoder(seen(MASKED), Options(), omit=(ACTION_MASK,)).outputs == 6 + 4
    with pytest.raises(RunError, match="nothing to observe beside action_mask"):
        observation_encoder(seen(spaces.Dict({ACTION_MASK: spaces.MultiBinary(3)})), Options())


@pytest.mark.parametrize("normalized", [False, True])
def test_neighbors_of_what_is_left_out_are_read_without_it(normalized: bool) -> None:
    space = spaces.Dict({"a": VECTOR, ACTION_MASK: spaces.MultiBinary(3), "b": VECTOR})
    nets = observation_encoder(seen(space), Options(normalize_observations=normalized))
    flat = observations(space, 5)
    assert torch.equal(nets(flat), torch.cat([flat[:, :4], flat[:, 7:]], -1)), "statistics of nothing change nothing"


# --- normalization


def normalizers(nets: torch.nn.Module) -> list[ObservationNormalizer]:
    return [each for each in nets.modules() if isinstance(each, ObservationNormalizer)]


def test_normalized_observations_have_mean_0_and_deviation_1() -> None:
    rows = torch.randn(500, 2, 3) * 7 + 3
    nets = observation_encoder(seen(spaces.Box(-99, 99, (2, 3))), Options(normalize_observations=True))
    (normalizer,) = normalizers(nets)
    normalizer.update(rows)
    features = nets(rows)
    torch.testing.assert_close(features.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(6), atol=1e-2, rtol=0)
    assert not normalizers(observation_encoder(seen(VECTOR), Options()))


def test_of_several_parts_the_measured_ones_are_normalized_each_from_its_place() -> None:
    nets = observation_encoder(seen(MIXED), Options(normalize_observations=True))
    rows = observations(MIXED, 200)
    for each in normalizers(nets):
        each.update(rows)
    features = nets(rows)
    for place in (slice(3, 5), slice(522, 526)):
        torch.testing.assert_close(
            features[:, place].mean(0), torch.zeros(4)[: place.stop - place.start], atol=1e-4, rtol=0
        )
    assert torch.equal(features[:, :3], rows[:, :3]), "one-hot vectors stay what they are"
    assert torch.equal(features[:, 526:], rows[:, -2:])


@pytest.mark.parametrize(("dtype", "count"), [(np.uint8, 0), (np.bool_, 0), (np.float32, 1)])
def test_pictures_of_floats_are_normalized_and_those_of_bytes_are_not(dtype: Any, count: int) -> None:
    space = spaces.Box(0, 1, (10, 10, 4), dtype)
    assert len(normalizers(observation_encoder(seen(space), Options(normalize_observations=True)))) == count


def test_a_float_picture_in_a_dict_learns_its_statistics_in_its_own_shape() -> None:
    space = spaces.Dict({"a": VECTOR, "b": spaces.Box(0, 9, (6, 5, 2), np.float32)})
    nets = observation_encoder(seen(space), Options(normalize_observations=True))
    rows = observations(space, 50)
    for each in normalizers(nets):
        each.update(rows)
    torch.testing.assert_close(normalizers(nets)[1].mean, rows[:, 4:].double().mean(0).view(6, 5, 2))
    assert nets(rows).shape == (50, 4 + 128)


def test_no_observations_leave_the_statistics_alone() -> None:
    normalizer = ObservationNormalizer((2,))
    normalizer.update(torch.zeros(0, 2))
    assert normalizer.mean.tolist() == [0, 0]
    assert normalizer.count.item() == 0


# --- policies and critics


def test_orthogonal_initialization() -> None:
    weight = orthogonal(torch.nn.Linear(64, 32), gain=2.0).weight
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("network", [ActorCritic, PolicyNetwork])
def test_the_first_policy_is_close_to_uniform(network: Any) -> None:
    nets = network(seen(VECTOR, spaces.Discrete(4)), PPOOptions())
    dist, _ = nets.step(torch.randn(100, 4), {})
    assert (dist.entropy() > 0.999 * np.log(4)).all()


def test_layers_are_shared_only_where_asked() -> None:
    count = {
        s: sum(
            p.numel() for p in ActorCritic(seen(VECTOR, spaces.Discrete(2)), PPOOptions(vf_share_layers=s)).parameters()
        )
        for s in (True, False)
    }
    assert count == {
        True: 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2 + 64 + 1,
        False: 2 * (4 * 64 + 64 + 64 * 64 + 64) + 64 * 2 + 2 + 64 + 1,
    }


def test_a_policy_without_a_critic_has_the_parameters_of_its_distributions() -> None:
    nets = PolicyNetwork(seen(VECTOR, spaces.Box(-1, 1, (2,))), Options())
    obs = torch.randn(5, 3, 4)
    parameters = nets(obs)
    assert parameters.shape == (5, 3, 4)
    assert (parameters[..., 2:] == 0).all(), "log standard deviations begin at 0, and do not depend on what is seen"
    dist, _ = nets.step(obs[0], {})
    torch.testing.assert_close(dist.mode(), parameters[0, :, :2], rtol=1e-5, atol=1e-8)  # 3 rows of a product, or 15


@pytest.mark.parametrize(
    "actions",
    [spaces.Box(-1, 1, (2,)), spaces.MultiBinary(3), spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))])],
    ids=str,
)
def test_gradients_reach_every_parameter_of_the_policy(actions: Any) -> None:
    nets = ActorCritic(seen(VECTOR, actions), PPOOptions())
    parameters, values = nets(torch.randn(6, 4))
    dist = nets.action_distribution.make(parameters)
    a = dist.sample(torch.Generator().manual_seed(0)).detach()
    (dist.log_prob(a).sum() + dist.entropy().sum() + values.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in nets.parameters())


# --- masks


@pytest.mark.parametrize("recurrent", [None, "lstm"])
def test_illegal_actions_have_probability_0_when_acting_and_when_learning(recurrent: Any) -> None:
    nets = ActorCritic(seen(MASKED), PPOOptions(recurrent=recurrent))
    obs = observations(MASKED, 20, 8)
    obs[..., :3] = torch.randint(0, 2, (20, 8, 3))
    obs[..., 0] = 1
    legal = obs[..., :3] == 1
    parameters, values = nets(obs)
    assert (parameters.softmax(-1)[~legal] == 0).all()
    dist, _ = nets.step(obs[0], nets.initial_state(8))
    for seed in range(50):
        a = dist.sample(torch.Generator().manual_seed(seed))
        assert legal[0].gather(-1, a[:, None]).all()
    learned = nets.action_distribution.make(parameters)
    a = learned.sample(torch.Generator().manual_seed(0))
    (learned.log_prob(a).sum() + learned.entropy().sum() + values.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in nets.parameters())


def test_a_mask_says_what_is_legal_and_nothing_else() -> None:
    nets = PolicyNetwork(seen(MASKED), Options())
    obs = observations(MASKED, 1).expand(2, -1).clone()
    obs[:, :3] = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    free, bound = nets(obs)
    torch.testing.assert_close(free[[0, 2]], bound[[0, 2]], rtol=1e-5, atol=1e-8)  # two rows of one product
    assert bound.softmax(-1)[1] == 0


@pytest.mark.parametrize(
    ("actions", "size"), [(spaces.Discrete(3), 4), (spaces.Box(-1, 1, (3,)), 3), (spaces.MultiDiscrete([2, 2]), 2)]
)
def test_a_mask_that_does_not_fit_the_actions_is_an_error(actions: Any, size: int) -> None:
    space = spaces.Dict({ACTION_MASK: spaces.MultiBinary(size), "x": VECTOR})
    with pytest.raises(RunError, match=f"action_mask has {size} elements, which does not fit"):
        PolicyNetwork(seen(space, actions), Options())


def test_masks_of_several_choices() -> None:
    space = spaces.Dict({ACTION_MASK: spaces.MultiBinary(5), "x": VECTOR})
    nets = PolicyNetwork(seen(space, spaces.MultiDiscrete([2, 3])), Options())
    obs = observations(space, 300)
    obs[:, :5] = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    a = nets.step(obs, {})[0].sample(torch.Generator().manual_seed(0))
    assert (a[:, 0] == 1).all()
    assert set(a[:, 1].tolist()) == {0, 2}


# --- recurrent core


Kind = Literal["lstm", "gru"]
KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])


def slow_step(core: RecurrentCore, x: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The equations of the two papers as PyTorch orders their gates."""
    w_x, w_h, b_x, b_h = core.layer.parameters()
    from_x, from_h = x @ w_x.T + b_x, state["h"] @ w_h.T + b_h
    if "c" in state:
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        c = f.sigmoid() * state["c"] + i.sigmoid() * g.tanh()
        return {"h": o.sigmoid() * c.tanh(), "c": c}
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    return {"h": (1 - z) * (n_x + r * n_h).tanh() + z * state["h"]}


def episodes(kind: Kind, t: int = 12, b: int = 5) -> tuple[RecurrentCore, Tensor, dict[str, Tensor], Tensor]:
    """A recurrent core, inputs [T + 1, B, F], a state that is not new, and where episodes begin [T, B]."""
    torch.manual_seed(0)
    core = RecurrentCore(3, 6, kind).double()
    for parameter in core.parameters():
        torch.nn.init.normal_(parameter)
    state = {name: torch.randn_like(value) for name, value in core.initial_state(b).items()}
    begins = torch.rand(t, b) < 0.1
    begins[3:5, 1] = begins[-1, 2] = begins[0, 4] = True
    return core, torch.randn(t + 1, b, 3, dtype=torch.float64), state, begins


@KINDS
def test_the_memory_is_that_of_the_papers(kind: Kind) -> None:
    core, x, state, begins = episodes(kind)
    outputs = core(x, state, begins)
    for t, x_t in enumerate(x):
        if t:
            state = {name: value * ~begins[t - 1][:, None] for name, value in state.items()}
        state = slow_step(core, x_t, state)
        torch.testing.assert_close(outputs[t], state["h"], rtol=0, atol=1e-12)


@KINDS
@pytest.mark.parametrize("ends", [True, False])
def test_unrolling_is_stepping(kind: Kind, ends: bool) -> None:
    options = PPOOptions(recurrent=kind, recurrent_size=7)
    nets = ActorCritic(seen(VECTOR, spaces.Box(-1, 1, (2,))), options)
    torch.nn.init.normal_(nets.policy_head.linear.weight)
    torch.manual_seed(1)
    obs, begins = torch.randn(11, 4, 4), torch.rand(10, 4) < (0.2 if ends else 0)
    state = {name: torch.randn_like(value) for name, value in nets.initial_state(4).items()}
    parameters, _ = nets(obs, state, begins)
    for t, obs_t in enumerate(obs):
        dist, state = nets.step(obs_t, state)
        torch.testing.assert_close(parameters[t, :, :2], dist.mode(), rtol=0, atol=1e-5)
        if t < 10:
            for value in state.values():
                value[begins[t]] = 0


@KINDS
def test_an_episode_knows_nothing_of_the_one_before(kind: Kind) -> None:
    core, x, state, begins = episodes(kind)
    begins[:] = False
    begins[5, 0] = True
    other = x.clone()
    other[:6] += 1.0
    outputs, others = core(x, state, begins), core(other, state, begins)
    assert torch.equal(outputs[6:, 0], others[6:, 0])
    assert (outputs[6:, 1:] != others[6:, 1:]).any(-1).all(), "the other environments go on"
    assert (outputs[:6] != others[:6]).any(-1).all()


@KINDS
def test_gradients_go_back_to_the_beginning_of_the_episode_and_no_further(kind: Kind) -> None:
    core, x, state, begins = episodes(kind)
    begins[:] = False
    begins[4] = True
    x.requires_grad_()
    core(x, state, begins)[-1].sum().backward()
    assert x.grad is not None
    assert (x.grad[:5] == 0).all()
    assert (x.grad[5:].abs().sum(-1) > 0).all()


@KINDS
def test_what_begins_after_the_last_input_is_of_no_matter(kind: Kind) -> None:
    core, x, state, begins = episodes(kind)
    begins[-1] = True
    torch.testing.assert_close(core(x[:-1], state, begins), core(x, state, begins)[:-1])


@KINDS
def test_without_a_state_episodes_begin(kind: Kind) -> None:
    nets = ActorCritic(seen(VECTOR), PPOOptions(recurrent=kind))
    obs = torch.randn(6, 3, 4)
    for actual, expected in zip(
        nets(obs), nets(obs, nets.initial_state(3), torch.zeros(5, 3, dtype=torch.bool)), strict=True
    ):
        assert torch.equal(actual, expected)


@KINDS
def test_memory_survives_flattening_and_copying(kind: Kind) -> None:
    """Parameters become views of one vector in the learner, and a target network is a copy that follows by itself."""
    nets = ActorCritic(seen(VECTOR), PPOOptions(recurrent=kind))
    obs, state = torch.randn(6, 3, 4), nets.initial_state(3)
    before = nets(obs, state)[1]
    flat = FlatParameters(nets)
    target = copy.deepcopy(nets)
    torch.testing.assert_close(nets(obs, state)[1], before)
    flat.vector.data.mul_(0.5)
    assert not torch.allclose(nets(obs, state)[1], before)
    step, _ = nets.step(obs[0], state)
    torch.testing.assert_close(step.mode(), nets.action_distribution.make(nets(obs, state)[0][0]).mode())
    torch.testing.assert_close(target(obs, state)[1], before)
    nets(obs, state)[1].sum().backward()
    assert flat.gradient.abs().sum() > 0


def test_flat_parameters_train_as_separate_ones_do() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    flat_net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    flat_net.load_state_dict(plain.state_dict())
    flat = FlatParameters(flat_net)
    first, second = torch.optim.Adam(plain.parameters(), lr=0.01), Adam(flat.vector, lr=0.01, eps=1e-8)
    for _ in range(20):
        x = torch.randn(8, 3)
        first.zero_grad()
        plain(x).square().mean().backward()
        first.step()
        flat.gradient.zero_()
        flat_net(x).square().mean().backward()
        second.step()
    for a, b in zip(plain.parameters(), flat_net.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_an_average_that_has_decayed_to_nothing_becomes_0_and_others_stay() -> None:
    vector = torch.nn.Parameter(torch.ones(2))
    vector.grad = torch.tensor([1.0, 0.0])
    adam = Adam(vector, lr=0.01, eps=1e-8)
    adam.state["exp_avg"].copy_(torch.tensor([0.5, 1e-26]))
    for _ in range(SWEEP):
        adam.step()
    assert adam.state["exp_avg"][1] == 0
    assert adam.state["exp_avg"][0] == pytest.approx(1.0, rel=1e-4)
    assert vector[1] == 1.0


def test_an_optimizer_goes_on_from_the_state_of_another() -> None:
    vectors = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for vector in vectors:
        vector.grad = torch.tensor([1.0, -2.0, 0.5])
    first, second = (Adam(vector, lr=0.01, eps=1e-8) for vector in vectors)
    for _ in range(SWEEP - 1):
        first.step()
    vectors[1].data.copy_(vectors[0].data)
    second.load(first.state)
    first.step()
    second.step()
    assert second.steps == SWEEP
    assert torch.equal(*(vector.data for vector in vectors))
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
