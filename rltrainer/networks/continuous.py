"""Policies and critics of the algorithms that learn Q(s, a) and improve a policy by it: DDPG, TD3 and SAC.

All begin with PyTorch's own weights, as the reference code of TD3 and SAC does. A policy and its critic share nothing,
not even an encoder, so that each can have an optimizer of its own.
"""

import math
from functools import partial
from typing import Any

import torch
from gymnasium import spaces as gym
from torch import Tensor, nn

from rltrainer.accel.dense_stack import BatchedLinear, DenseStack
from rltrainer.api.options.groups import ActionCritic
from rltrainer.api.options.off_policy import SACOptions
from rltrainer.core.types import Spaces
from rltrainer.envs.layout import ACTION_MASK
from rltrainer.networks.actor_critic import action_mask_of
from rltrainer.networks.dense import Dense, dense
from rltrainer.networks.encoders import observation_encoder
from rltrainer.networks.q_network import num_discrete_actions
from rltrainer.ops.action_spaces import squashed_action_distribution
from rltrainer.ops.distributions import Categorical, SquashedGaussian, masked


class DeterministicActor(nn.Module):
    """A deterministic policy: observations [..., *shape] to actions [..., A] in [-1, 1], the Box's bounds.

    Lillicrap et al. 2016, arXiv 1509.02971, section 7. Raises RunError, permanent, unless actions are a Box of floats
    with finite bounds.
    """

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        (size,) = squashed_action_distribution(spaces.actions).shape
        self.encoder = observation_encoder(spaces, options, omit=())
        self.layers = dense(self.encoder.outputs, options.hiddens, options.activation, size)

    def forward(self, obs: Tensor) -> Tensor:
        """Return actions [..., A] in observations [..., *shape]."""
        out: Tensor = self.layers(self.encoder(obs))
        return out.tanh()


class SoftPolicy(nn.Module):
    """A normal distribution squashed by tanh, whose deviation too depends on the state: arXiv 1812.05905, appendix C.

    Raises RunError, permanent, unless actions are a Box of floats with finite bounds.
    """

    make = SquashedGaussian

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        (size,) = squashed_action_distribution(spaces.actions).shape
        self.encoder = observation_encoder(spaces, options, omit=())
        self.layers = dense(self.encoder.outputs, options.hiddens, options.activation, 2 * size)

    def forward(self, obs: Tensor) -> Tensor:
        """Return means and log standard deviations before the tanh, side by side [..., 2 A].

        Observations are [..., *shape]. The deviations are not bounded yet: SquashedGaussian bounds them.
        """
        out: Tensor = self.layers(self.encoder(obs))
        return out

    def act(self, obs: Tensor) -> SquashedGaussian:
        """Return distributions over actions [..., A] in [-1, 1], in observations [..., *shape]."""
        return self.make(self(obs))


class CategoricalPolicy(nn.Module):
    """Probabilities of n actions, those that `action_mask` forbids 0: Christodoulou 2019, arXiv 1910.07207.

    Raises RunError, permanent, unless actions are Discrete.
    """

    make = Categorical

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        n = num_discrete_actions(spaces)
        self.legal = action_mask_of(spaces, n)
        self.encoder = observation_encoder(spaces, options, omit=(ACTION_MASK,))
        self.layers = dense(self.encoder.outputs, options.hiddens, options.activation, n)

    def forward(self, obs: Tensor) -> Tensor:
        """Return unnormalized log-probabilities [..., n] in observations [..., *shape]."""
        logits: Tensor = self.layers(self.encoder(obs))
        return logits if self.legal is None else masked(logits, obs[..., self.legal])

    def act(self, obs: Tensor) -> Categorical:
        """Return distributions over actions [...] in observations [..., *shape]."""
        return self.make(self(obs))


class Critic(nn.Module):
    """Q(s, a) of continuous actions: one, or two that share no layer after the encoder (Fujimoto et al. 2018, eq. 10).

    Two run as one batched pass: as two networks they take a tenth longer on a CPU, and twice the kernels on a GPU.
    """

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        (size,) = squashed_action_distribution(spaces.actions).shape
        self.encoder = observation_encoder(spaces, options, omit=())
        self.count, self.layers = _critics(self.encoder.outputs + size, 1, options)
        self.stack = DenseStack(self.layers, scalar=True)

    def forward(self, obs: Tensor, a: Tensor, count: int | None = None) -> Tensor:
        """Return values [k, N] of actions [N, A] in observations [N, *shape], by the first k = `count` critics."""
        x = torch.cat([self.encoder(obs), a], -1)
        return self.stack(x.expand(count or self.count, *x.shape))


class DiscreteCritic(nn.Module):
    """Q(s, .) of n discrete actions, one or two as in Critic."""

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        n = num_discrete_actions(spaces)
        self.encoder = observation_encoder(spaces, options, omit=(ACTION_MASK,))
        self.count, self.layers = _critics(self.encoder.outputs, n, options)

    def forward(self, obs: Tensor) -> Tensor:
        """Return values [k, N, n] of all actions, illegal ones included, in observations [N, *shape]."""
        x = self.encoder(obs)
        q: Tensor = self.layers(x.expand(self.count, *x.shape))
        return q


class Temperature(nn.Module):
    """SAC's alpha, kept as its logarithm so that it stays positive: arXiv 1812.05905, section 5.

    Where the options fix it, it is theirs, whatever a checkpoint says.
    """

    def __init__(self, options: SACOptions) -> None:
        super().__init__()
        self.fixed = options.alpha is not None
        alpha = options.initial_alpha if options.alpha is None else options.alpha
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))

    def forward(self) -> Tensor:
        """Return alpha, a scalar, in units of reward per nat."""
        return self.log_alpha.exp()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.fixed:
            state_dict[f"{prefix}log_alpha"] = self.log_alpha.detach()
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ActorAndCritic(nn.Module):
    """The networks of DDPG and TD3, the parts by the names that their optimizers are known by."""

    def __init__(self, spaces: Spaces, options: ActionCritic) -> None:
        super().__init__()
        self.policy, self.critic = DeterministicActor(spaces, options), Critic(spaces, options)


class SoftActorAndCritic(nn.Module):
    """The networks of SAC, for discrete or for continuous actions. Raises RunError, permanent, for any other."""

    def __init__(self, spaces: Spaces, options: SACOptions) -> None:
        super().__init__()
        discrete = isinstance(spaces.actions, gym.Discrete)
        self.policy = CategoricalPolicy(spaces, options) if discrete else SoftPolicy(spaces, options)
        self.critic = DiscreteCritic(spaces, options) if discrete else Critic(spaces, options)
        self.alpha = Temperature(options)


def _critics(inputs: int, outputs: int, options: ActionCritic) -> tuple[int, Dense]:
    """Return the number k of critics, and the layers [k, N, inputs] -> [k, N, outputs] of all."""
    hiddens = options.hiddens if options.critic_hiddens is None else options.critic_hiddens
    count = 2 if options.twin_q else 1
    return count, dense(inputs, hiddens, options.activation, outputs, partial(BatchedLinear, count))
