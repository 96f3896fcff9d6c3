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
from rltrainer.networks.actor_critic import action_mask_of
from rltrainer.networks.dense import MakeLayer, dense
from rltrainer.networks.encoders import observation_encoder
from rltrainer.networks.noisy import NoisyLinear, without_noise

INTENTION_SIZE = 64
"""Elements of an intention where there is no hidden layer to set their number."""


class QNetwork(nn.Module):
    """Q(s, a) for the n actions of a Discrete space, or the distribution of the return on `num_atoms` atoms.

    An encoder, the hidden layers and one output per action. With `dueling`, the last hidden layer stands once for the
    value of the state and once for the advantages: Wang et al. 2016, arXiv 1511.06581, eq. 9. With `noisy`, all layers
    after the encoder have noise on their weights: arXiv 1706.10295.

    Where the observation has `avail_actions`, a row e_i of d features for each action, the state is turned into an
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
        self.n, self.atoms = num_discrete_actions(spaces), options.num_atoms
        self.obs_dims = len(spaces.observations.shape or ())
        self.legal = action_mask_of(spaces, self.n)
        self.avail_actions = avail_actions_of(spaces, self.n)
        layer: MakeLayer = partial(NoisyLinear, sigma=options.noisy_sigma) if options.noisy else nn.Linear
        self.encoder = observation_encoder(spaces, options)
        shared, stream = options.hiddens[:-1], options.hiddens[-1:]
        self.body = dense(self.encoder.outputs, shared, options.activation, None, layer)
        features = shared[-1] if shared else self.encoder.outputs
        size = self.n
        if self.avail_actions is not None:
            size = stream[-1] if stream else INTENTION_SIZE
            self.psi = dense((self.avail_actions.space.shape or ())[-1], [size], options.activation, size, layer)
            self.scale = size**-0.5
        self.advantage = dense(features, stream, options.activation, size * self.atoms, layer)
        self.value = dense(features, stream, options.activation, self.atoms, layer) if options.dueling else None
        plain = self.atoms == 1 and self.value is None and self.avail_actions is None
        self.stack = DenseStack(self.body, self.advantage) if plain else None
        self.register_buffer(
            "support",
            torch.linspace(options.v_min, options.v_max, self.atoms) if self.atoms > 1 else None,
            persistent=False,
        )
        self._noisy = [module for module in self.modules() if isinstance(module, NoisyLinear)]

    def logits(self, obs: Tensor) -> Tensor:
        """Return unnormalized log-probabilities of the atoms [..., n, num_atoms]; with one atom, the values."""
        features = self.body(self.encoder(obs))
        out: Tensor = self.advantage(features)
        out = out.view(*out.shape[:-1], -1, self.atoms)
        if self.avail_actions is not None:
            e = self.avail_actions.of(obs).reshape(*obs.shape[:-1], self.n, -1)
            out = (self.psi(e.float()) * self.scale) @ out
        elif self.value is not None:
            out = out - out.mean(-2, keepdim=True)
        return out if self.value is None else out + self.value(features).unsqueeze(-2)

    def forward(self, obs: Tensor) -> Tensor:
        """Return expected returns [..., n] of all actions, illegal ones included, in observations [..., *shape]."""
        if self.stack is not None:
            return self.stack(self.encoder(obs))
        return self.values(self.logits(obs))

    def values(self, logits: Tensor) -> Tensor:
        """Return expected returns [..., n] from `logits` [..., n, num_atoms]."""
        return logits.squeeze(-1) if self.atoms == 1 else logits.softmax(-1) @ self.support

    def argmax(self, q: Tensor, obs: Tensor) -> Tensor:
        """Return the legal actions [...] with the largest of the values `q` [..., n] in `obs` [..., *shape]."""
        if self.legal is not None:
            q = q.masked_fill(obs[..., self.legal] == 0, -torch.inf)
        return q.argmax(-1)

    def greedy(self, obs: Tensor) -> Tensor:
        """Return the legal actions [...] with the largest expected return in `obs` [..., *shape]."""
        return self.argmax(self(obs), obs)

    def random(self, obs: Tensor, rng: torch.Generator) -> Tensor:
        """Draw legal actions [...] uniformly, on the device of `rng`, for `obs` [..., *shape]."""
        batch, mask = obs.shape[: obs.dim() - self.obs_dims], self.mask(obs)
        if mask is None:
            return torch.randint(self.n, batch, generator=rng, device=rng.device)
        keys = torch.rand(mask.shape, generator=rng, device=rng.device)
        return keys.masked_fill_(~mask.to(rng.device), -1.0).argmax(-1)

    def mask(self, obs: Tensor) -> Tensor | None:
        """Return which actions are legal in `obs`, [..., n] of bool; None where all always are."""
        return None if self.legal is None else obs[..., self.legal] != 0

    def resample(self, rng: torch.Generator) -> None:
        """Draw the noise anew; does nothing unless `noisy`. Not between a forward pass and its backward pass."""
        for layer in self._noisy:
            layer.resample(rng)

    def without_noise(self) -> AbstractContextManager[None]:
        """Let the networks act and learn without noise within it."""
        return without_noise(self._noisy)


def num_discrete_actions(spaces: Spaces) -> int:
    """Return the number of actions. Raises RunError, permanent, unless the action space is Discrete."""
    if isinstance(spaces.actions, gym.Discrete):
        return int(spaces.actions.n)
    raise RunError(
        "InvalidOption",
        f"this algorithm needs a Discrete action space, and the environment has {spaces.actions}",
        permanent=True,
    )


def avail_actions_of(spaces: Spaces, n: int) -> Part | None:
    """Return the part of an observation that describes the n actions; None where none does."""
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
