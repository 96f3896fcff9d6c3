"""Action values of discrete actions: Mnih et al. 2015, doi 10.1038/nature14236, and what was built on it."""

from contextlib import AbstractContextManager
from functools import partial

import torch
from gymnasium import spaces as gym
from torch import Tensor, nn

from rltrainer.accel.dense_stack import DenseStack
from rltrainer.api.options.off_policy import QLearningOptions
from rltrainer.core.types import Spaces
from rltrainer.envs.layout import AVAIL_ACTIONS, Part, find_part
from rltrainer.errors import RunError
from rltrainer.networks.actor_critic import mask_of
from rltrainer.networks.dense import MakeLayer, dense
from rltrainer.networks.encoders import encoder
from rltrainer.networks.noisy import NoisyLinear, quieted

INTENTION = 64
"""Numbers of an intention where there is no hidden layer to set its width."""


class QNetwork(nn.Module):
    """Q(s, a) for the n actions of a Discrete space, or the distribution of the return on `num_atoms` atoms.

    An encoder, the hidden layers and one output per action. With `dueling`, the last hidden layer stands once for the
    value of the state and once for the advantages: Wang et al. 2016, arXiv 1511.06581, eq. 9. With `noisy`, all layers
    after the encoder have noise on their weights: arXiv 1706.10295.

    Where the observation has `avail_actions`, a row e_i of d numbers for each action, the state is turned into an
    intention phi(s), each row into psi(e_i), and Q(s, a_i) = <phi(s), psi(e_i)>, scaled. That is nearly as cheap as one
    output per action, as all actions share phi(s), and it lets the state decide which features of an action count. A
    network of the two side by side is evaluated n times, and cannot do that without a hidden layer. Here `dueling` adds
    the value of the state as in eq. 7: the mean of eq. 9 would leave no room for states with better actions on offer.

    Where the observation has `action_mask`, actions with a 0 there are illegal. Values are given of all actions;
    `argmax`, `greedy` and `random` choose legal ones only, and the first where none is.

    Raises RunError, permanent, unless actions are Discrete and the parts named above fit them.
    """

    support: Tensor
    """The returns that the atoms stand for, [num_atoms]."""

    def __init__(self, spaces: Spaces, options: QLearningOptions) -> None:
        super().__init__()
        self.n, self.atoms = discrete_actions(spaces), options.num_atoms
        self.dims = len(spaces.observations.shape or ())
        self.legal = mask_of(spaces, self.n)
        self.described = _described_actions(spaces, self.n)
        layer: MakeLayer = partial(NoisyLinear, sigma=options.noisy_sigma) if options.noisy else nn.Linear
        self.encoder = encoder(spaces, options)
        shared, stream = options.hiddens[:-1], options.hiddens[-1:]
        self.body = dense(self.encoder.outputs, shared, options.activation, None, layer)
        features = shared[-1] if shared else self.encoder.outputs
        rows = self.n
        if self.described is not None:
            rows = stream[-1] if stream else INTENTION
            self.psi = dense((self.described.space.shape or ())[-1], [rows], options.activation, rows, layer)
            self.scale = rows**-0.5
        self.advantage = dense(features, stream, options.activation, rows * self.atoms, layer)
        self.value = dense(features, stream, options.activation, self.atoms, layer) if options.dueling else None
        plain = self.atoms == 1 and self.value is None and self.described is None
        self.tower = DenseStack(self.body, self.advantage) if plain else None
        self.register_buffer(
            "support",
            torch.linspace(options.v_min, options.v_max, self.atoms) if self.atoms > 1 else None,
            persistent=False,
        )
        self._noisy = [module for module in self.modules() if isinstance(module, NoisyLinear)]

    def logits(self, obs: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the atoms [..., n, num_atoms]; with one atom, the values themselves."""
        features = self.body(self.encoder(obs))
        out: Tensor = self.advantage(features)
        out = out.view(*out.shape[:-1], -1, self.atoms)
        if self.described is not None:
            e = self.described.of(obs).reshape(*obs.shape[:-1], self.n, -1)
            out = (self.psi(e.float()) * self.scale) @ out
        elif self.value is not None:
            out = out - out.mean(-2, keepdim=True)
        return out if self.value is None else out + self.value(features).unsqueeze(-2)

    def forward(self, obs: Tensor) -> Tensor:
        """Expected returns [..., n] of all actions, illegal ones included, for observations [..., *shape]."""
        if self.tower is not None:
            return self.tower(self.encoder(obs))
        return self.values(self.logits(obs))

    def values(self, logits: Tensor) -> Tensor:
        """Expected returns [..., n] from `logits`."""
        return logits.squeeze(-1) if self.atoms == 1 else logits.softmax(-1) @ self.support

    def argmax(self, q: Tensor, obs: Tensor) -> Tensor:
        """The legal actions [...] with the largest of the values `q` [..., n] in `obs`."""
        if self.legal is not None:
            q = q.masked_fill(obs[..., self.legal] == 0, -torch.inf)
        return q.argmax(-1)

    def greedy(self, obs: Tensor) -> Tensor:
        """The legal actions [...] with the largest expected return."""
        return self.argmax(self(obs), obs)

    def random(self, obs: Tensor, rng: torch.Generator) -> Tensor:
        """Legal actions [...] drawn uniformly, on the device of `rng`."""
        batch, mask = obs.shape[: obs.dim() - self.dims], self.mask(obs)
        if mask is None:
            return torch.randint(self.n, batch, generator=rng, device=rng.device)
        keys = torch.rand(mask.shape, generator=rng, device=rng.device)
        return keys.masked_fill_(~mask.to(rng.device), -1.0).argmax(-1)

    def mask(self, obs: Tensor) -> Tensor | None:
        """Which actions are legal, [..., n] of bool; None where all always are."""
        return None if self.legal is None else obs[..., self.legal] != 0

    def resample(self, rng: torch.Generator) -> None:
        """Draws the noise anew; does nothing unless `noisy`. Not between a forward pass and its backward pass."""
        for layer in self._noisy:
            layer.resample(rng)

    def quiet(self) -> AbstractContextManager[None]:
        """Within it, the networks act and learn without noise."""
        return quieted(self._noisy)


def discrete_actions(spaces: Spaces) -> int:
    """How many actions there are. Raises RunError, permanent, unless the action space is Discrete."""
    if isinstance(spaces.actions, gym.Discrete):
        return int(spaces.actions.n)
    raise RunError(
        "InvalidOption",
        f"this algorithm needs a Discrete action space, and the environment has {spaces.actions}",
        permanent=True,
    )


def _described_actions(spaces: Spaces, n: int) -> Part | None:
    part = find_part(spaces.structure, AVAIL_ACTIONS)
    if part is None:
        return None
    if not isinstance(part.space, gym.Box) or len(part.space.shape) != 2 or part.space.shape[0] != n:
        raise RunError(
            "InvalidOption",
            f"{AVAIL_ACTIONS} is {part.space}, which does not fit the action space {spaces.actions}: "
            f"it needs a Box of shape ({n}, d), a row for each action",
            permanent=True,
        )
    return part
