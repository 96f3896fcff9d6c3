from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltrainer.errors import RunError
from rltrainer.learner import Flat
from rltrainer.networks import ActorCritic, NatureCNN, OneHot, encoder, is_image, orthogonal
from rltrainer.options import PPOOptions

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
SPACES: list[Any] = [
    VECTOR,
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(0, 255, (84, 84, 4), np.uint8),
    spaces.Box(0, 255, (4, 84, 84), np.uint8),
    spaces.Box(0, 255, (8, 8, 3), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_every_supported_observation_gives_actions_and_values(space: Any, shared: bool) -> None:
    nets = ActorCritic(space, spaces.Discrete(3), PPOOptions(vf_share_layers=shared))
    batch = torch.as_tensor(np.stack([[space.sample() for _ in range(2)] for _ in range(5)]))
    parameters, values = nets(batch)
    assert parameters.shape == (5, 2, 3)
    assert values.shape == (5, 2)
    torch.testing.assert_close(nets.value(batch), values)
    torch.testing.assert_close(nets.act(batch[0]).log_prob(torch.tensor([0, 1])).shape, torch.Size([2]))


def test_an_observation_space_that_is_not_supported_is_named() -> None:
    with pytest.raises(RunError, match=r"Graph.*not supported: use Box"):
        encoder(spaces.Graph(VECTOR, None))


@pytest.mark.parametrize(("shape", "image"), [((84, 84, 4), True), ((4, 84, 84), True), ((20, 20, 3), False)])
def test_what_counts_as_an_image(shape: tuple[int, ...], image: bool) -> None:
    assert is_image(spaces.Box(0, 255, shape, np.uint8)) is image


def test_images_mean_the_same_with_channels_first_and_last() -> None:
    last, first = NatureCNN((44, 40, 3)), NatureCNN((3, 44, 40))
    first.load_state_dict(last.state_dict())
    image = torch.randint(0, 256, (2, 44, 40, 3), dtype=torch.uint8)
    torch.testing.assert_close(last(image), first(image.movedim(-1, 1)))


def test_one_hot_of_several_numbers() -> None:
    assert OneHot([2, 3], [0, 5], scalar=False)(torch.tensor([[1, 7]])).tolist() == [[0, 1, 0, 0, 1]]
    assert OneHot([3], [-1], scalar=True)(torch.tensor([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_orthogonal_initialisation() -> None:
    weight = orthogonal(torch.nn.Linear(64, 32), gain=2.0).weight
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(32), atol=1e-4, rtol=0)


def test_the_first_policy_is_close_to_uniform() -> None:
    nets = ActorCritic(VECTOR, spaces.Discrete(4), PPOOptions())
    entropy = nets.act(torch.randn(100, 4)).entropy()
    assert (entropy > 0.999 * np.log(4)).all()


def test_layers_are_shared_only_where_asked() -> None:
    count = {
        s: sum(p.numel() for p in ActorCritic(VECTOR, spaces.Discrete(2), PPOOptions(vf_share_layers=s)).parameters())
        for s in (True, False)
    }
    assert count == {
        True: 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2 + 64 + 1,
        False: 2 * (4 * 64 + 64 + 64 * 64 + 64) + 64 * 2 + 2 + 64 + 1,
    }


def test_flat_parameters_train_as_separate_ones_do() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    flat_net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    flat_net.load_state_dict(plain.state_dict())
    flat = Flat(flat_net)
    first, second = torch.optim.Adam(plain.parameters(), lr=0.01), torch.optim.Adam([flat.vector], lr=0.01, fused=True)
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
