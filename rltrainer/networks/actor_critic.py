"""A stochastic policy, alone and with a critic."""

import torch
from gymnasium import spaces as gym_spaces
from torch import Tensor, nn

from rltrainer.accel.dense_stack import DenseStack
from rltrainer.api.options import ActorCriticOptions, Options
from rltrainer.core.types import Spaces, State
from rltrainer.envs.layout import ACTION_MASK, find_part
from rltrainer.errors import RunError
from rltrainer.networks.dense import mlp
from rltrainer.networks.encoders import observation_encoder
from rltrainer.networks.layers import orthogonal
from rltrainer.networks.recurrent import RecurrentCore
from rltrainer.ops.action_spaces import action_distribution
from rltrainer.ops.distributions import Distribution, masked

NOT_ENCODED = (ACTION_MASK,)
"""Arrays of a Dict observation that are no features: the policy's head reads them."""


class PolicyHead(nn.Module):
    """The last layer of a policy: parameters [..., P] of distributions over actions.

    Where the observations have an `action_mask`, what it forbids has probability 0.
    """

    def __init__(self, inputs: int, spaces: Spaces) -> None:
        super().__init__()
        self.action_distribution = action_distribution(spaces.actions)
        self.mask = action_mask_of(spaces, self.action_distribution.outputs)
        self.linear = orthogonal(nn.Linear(inputs, self.action_distribution.outputs), gain=0.01)
        stds = self.action_distribution.log_stds
        self.log_std = nn.Parameter(torch.zeros(stds)) if stds else None

    def forward(self, outputs: Tensor, obs: Tensor) -> Tensor:
        """Return parameters [..., P] from the outputs [..., n] of `linear` and observations [..., *shape]."""
        if self.mask is not None:
            outputs = masked(outputs, obs[..., self.mask])
        if self.log_std is not None:
            outputs = torch.cat([outputs, self.log_std.expand(*outputs.shape[:-1], -1)], -1)
        return outputs


def action_mask_of(spaces: Spaces, choices: int) -> slice | None:
    """Return which elements of an observation mask the `choices` of an action; None where there is no mask.

    Several choices (MultiDiscrete) have their masks side by side. Raises RunError, permanent, for a mask that does not
    fit the actions.
    """
    part = find_part(spaces.structure, ACTION_MASK)
    if part is None:
        return None
    if not isinstance(spaces.actions, gym_spaces.Discrete | gym_spaces.MultiDiscrete) or part.size != choices:
        raise RunError(
            "InvalidOption",
            f"{ACTION_MASK} has {part.size} elements, which does not fit the action space {spaces.actions}: "
            "a mask has one element for each choice of a Discrete or MultiDiscrete",
            permanent=True,
        )
    return part.elements


class PolicyNetwork(nn.Module):
    """A policy without a critic."""

    def __init__(self, spaces: Spaces, options: Options) -> None:
        super().__init__()
        hiddens: list[int] = list(options.hiddens)
        self.encoder = observation_encoder(spaces, options, NOT_ENCODED)
        self.body = mlp(self.encoder.outputs, hiddens, options.activation)
        self.head = PolicyHead(hiddens[-1] if hiddens else self.encoder.outputs, spaces)
        self.action_distribution = self.head.action_distribution
        self.stack = DenseStack(self.body, self.head.linear)

    def forward(self, obs: Tensor) -> Tensor:
        """Return parameters [..., P] of the policy in observations [..., *shape]."""
        parameters: Tensor = self.head(self.stack(self.encoder(obs)), obs)
        return parameters

    def step(self, obs: Tensor, state: State) -> tuple[Distribution, State]:
        """Return distributions over actions in observations [B, *shape], and the state, which stays as it is."""
        return self.action_distribution.make(self(obs)), state


class ActorCritic(nn.Module):
    """A policy and a value function over one encoder, and over one recurrent layer where the options ask for it.

    Their hidden layers are shared where the options say so.
    """

    def __init__(self, spaces: Spaces, options: ActorCriticOptions) -> None:
        super().__init__()
        hiddens: list[int] = list(options.hiddens)
        self.encoder = observation_encoder(spaces, options, NOT_ENCODED)
        inputs = self.encoder.outputs
        self.memory = None  # the recurrent core, by the name that checkpoints know
        if options.recurrent is not None:
            self.memory = RecurrentCore(inputs, options.recurrent_size, options.recurrent)
            inputs = options.recurrent_size
        self.policy_body = mlp(inputs, hiddens, options.activation)
        self.value_body = self.policy_body if options.vf_share_layers else mlp(inputs, hiddens, options.activation)
        features = hiddens[-1] if hiddens else inputs
        self.policy_head = PolicyHead(features, spaces)
        self.value_head = orthogonal(nn.Linear(features, 1), gain=1.0)
        self.action_distribution = self.policy_head.action_distribution
        self.shares_layers = self.value_body is self.policy_body
        bodies = ([], []) if self.shares_layers else ([self.policy_body], [self.value_body])
        self.policy_stack = DenseStack(*bodies[0], self.policy_head.linear)
        self.value_stack = DenseStack(*bodies[1], self.value_head, scalar=True)

    def initial_state(self, num_envs: int) -> State:
        """Return the state {name: [B, H]} of B = `num_envs` environments that begin an episode, {} if not recurrent."""
        return {} if self.memory is None else self.memory.initial_state(num_envs)

    def step(self, obs: Tensor, state: State) -> tuple[Distribution, State]:
        """Return distributions over actions in observations [B, *shape], and the state after them."""
        features = self.encoder(obs)
        if self.memory is not None:
            features, state = self.memory.step(features, state)
        hidden = self.policy_body(features) if self.shares_layers else features
        return self.action_distribution.make(self.policy_head(self.policy_stack(hidden), obs)), state

    def forward(self, obs: Tensor, state: State | None = None, begins: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return parameters [..., P] and values [...], in units of return, of observations [..., *shape].

        A recurrent layer is unrolled over observations [T + 1, B, *shape] from the state before the first of them,
        None for that of new episodes; begins [T, B] says whether obs[t + 1] is the first of an episode.
        """
        features = self.encoder(obs)
        if self.memory is not None:
            features = self.memory(features, state or self.initial_state(features.shape[1]), begins)
        hidden = self.policy_body(features) if self.shares_layers else features
        return self.policy_head(self.policy_stack(hidden), obs), self.value_stack(hidden)
