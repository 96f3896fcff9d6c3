"""What an algorithm is: a value. A variant is `dataclasses.replace` of another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rltrainer.envs import Spaces
from rltrainer.options import Options

if TYPE_CHECKING:
    from rltrainer.execution import Iteration, Sampler
    from rltrainer.fragment import Batch
    from rltrainer.learner import Learner

Metrics = dict[str, float]


@dataclass(frozen=True)
class Algorithm:
    """How to act, how to learn, and how the two are brought together. Acting never sees an optimiser, learning never
    an environment."""

    name: str
    options: type[Options]
    """The options that it understands, with its defaults."""
    nets: Callable[[Spaces, Any], nn.Module]
    """Its networks, from the spaces of an environment and its options."""
    act: Callable[[Any, Tensor, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
    """Actions [B, *shape] for observations [B, *shape], and what the learner must know of each: {name: [B, ...]}."""
    best: Callable[[Any, Tensor], Tensor]
    """The actions [B, *shape] that the policy would take without exploring."""
    update: Callable[["Learner", "Batch", Any], Metrics]
    """One improvement of the learner's networks from one batch; returns what to report of it."""
    optimizer: Callable[[nn.Parameter, Any], torch.optim.Optimizer]
    """The optimiser of all parameters, given as one vector."""
    strategy: Callable[["Sampler", int], Iterator["Iteration"]]
    """The order of sampling and learning, from a backend and the timesteps done before."""
