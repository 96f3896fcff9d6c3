"""What an algorithm is: a value. A variant is `dataclasses.replace` of another."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from rltrainer.api.options import Options
from rltrainer.core.optimizer import Optimizer
from rltrainer.core.types import Spaces, State
from rltrainer.ops.action_spaces import ActionDistribution, action_distribution

if TYPE_CHECKING:
    from rltrainer.core.execution import Iteration, Sampler
    from rltrainer.core.fragment import Fragment
    from rltrainer.learning.learner import Learner


@dataclass
class ActContext:
    """Who acts: all that a policy may know besides what it observes."""

    options: Any
    rng: torch.Generator
    num_envs: int
    """Environments that act together, B."""
    first: int = 0
    """Index of the first of them among those of all workers."""
    total: int = 1
    """Environments of all workers."""
    timesteps: int = 0
    """How far the run had come when these weights were made."""
    state: State = field(default_factory=dict)

    def forget(self, begins: Tensor) -> None:
        """Clears the memory of the environments, [B] of bool, that begin an episode."""
        for value in self.state.values():
            value[begins] = 0


def no_memory(nets: Any, num_envs: int) -> State:
    """The state of a policy that remembers nothing."""
    return {}


@dataclass(frozen=True)
class Algorithm:
    """How to act, how to learn, and how the two are brought together. Acting never sees an optimiser, learning never
    an environment."""

    name: str
    options: type[Options]
    """The options that it understands, with its defaults."""
    nets: Callable[[Spaces, Any], nn.Module]
    """Its networks, from the spaces of an environment and its options."""
    act: Callable[[Any, Tensor, ActContext], tuple[Tensor, dict[str, Tensor]]]
    """Actions [B, *shape] for observations [B, *shape], and what the learner must know of each: {name: [B, ...]}."""
    greedy_action: Callable[[Any, Tensor, ActContext], Tensor]
    """The actions [B, *shape] that the policy would take without exploring."""
    update: Callable[["Learner", Any, Any], Mapping[str, Tensor | float]]
    """One improvement of the learner's networks from a Batch or, where it `replays`, from Transitions; returns what to
    report of it."""
    optimizers: Mapping[str, Callable[[nn.Parameter, Any], Optimizer]]
    """For each part of the networks, by the name of the submodule ("" is the whole), the optimiser of its parameters,
    given as one vector. The learning rate is option `<part>_lr` where there is one and it is set, else `lr`."""
    strategy: Callable[["Sampler", Any, int], Iterator["Iteration"]]
    """The order of sampling and learning, from a backend, the options and the timesteps done before."""
    acts: str = ""
    """The part that acts, one of those with an optimiser: all that is sent to workers."""
    targets: tuple[str, ...] = ()
    """Parts of which the learner keeps copies that follow them slowly."""
    initial_state: Callable[[Any, int], State] = no_memory
    """The state, all zeros, of an acting part that is to remember B environments."""
    replays: bool = False
    """Whether samples go into a replay buffer that updates are fed from; else each is learnt from as it comes."""
    action_distribution: Callable[[Space[Any]], ActionDistribution[Any]] = action_distribution
    """How its actions are stored and handed to environments of an action space."""
    priorities: Callable[[Any, "Fragment", Any], Tensor] | None = None
    """First priorities [T, B] of a fragment's steps, found by the worker. None: the largest so far."""
