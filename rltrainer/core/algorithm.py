"""What an algorithm is: a value. A variant is `dataclasses.replace` of another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from gymnasium import Space
from torch import Tensor, nn

from rltrainer.api.options import Options
from rltrainer.core.execution import Iteration, Sampler
from rltrainer.core.fragment import Fragment
from rltrainer.core.optimizer import Optimizer
from rltrainer.core.types import Spaces, State
from rltrainer.ops.action_spaces import ActionDistribution, action_distribution

Losses = dict[str, Tensor]
"""Scalars to report by name; what a step descends is "loss"."""
Loss = Callable[..., Losses]
"""loss(outputs, batch, options, *settings), in plain PyTorch."""
LossGrad = Callable[..., Sequence[Tensor]]
"""Of the same arguments: the derivatives of that loss by each of the networks' outputs, each shaped as its output."""


class LearnerAPI(Protocol):
    """The part that an update may use of the learner that calls it."""

    nets: Any
    """The networks that the algorithm made."""
    targets: dict[str, Any]
    """The target copies of the algorithm's `targets`, by part."""
    rng: torch.Generator
    """The learner's own random state, on the CPU; checkpoints keep it."""
    timesteps: int
    """Environment steps of the run so far."""
    counters: dict[str, float]
    """Numbers that the algorithm keeps between updates; checkpoints keep them."""

    def minimize(
        self,
        loss: Loss,
        outputs: Any,
        batch: Any,
        *settings: Any,
        grad: LossGrad | None = None,
        part: str = "",
        report: bool = True,
    ) -> Losses:
        """Take one step of the optimizer of `part` down `loss(outputs, batch, options, *settings)`.

        The gradient is autograd's, or what `grad` gives for the tensors that `outputs` are made of. Returns what the
        loss reports and `grad_norm`, the gradient's norm before clipping; without `report` the norm alone, and with
        `grad` the loss itself is then not evaluated.
        """

    def recorded(self, step: Callable[..., Any], batch: Any, *settings: float) -> Any:
        """Call `step(self, batch, options, *settings)`; on a GPU, record it once as a CUDA graph and replay that.

        What the step does must follow from the settings and the tensors' shapes alone, and it returns tensors, or
        dictionaries and tuples of them.
        """

    def update_targets(self, tau: float) -> None:
        """Move the targets by the share `tau` of the way to the parts that they follow; 1 copies them."""

    def count_update(self) -> int:
        """Count one more update, as counter "updates"; returns how many there were, over all attempts of the run.

        Of several learners all have the same count: steps in which one only follows the others are counted too."""

    def adapt_by(self, measured: float, rule: Callable[[float], None]) -> None:
        """Call `rule` with `measured`, a mean over the batch, once the update is over.

        Of several learners each then has the mean over all samples, so that all decide the same."""


@dataclass
class ActContext:
    """All that a policy may know besides what it observes."""

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
        """Clear the state of the environments, [B] of bool, that begin an episode."""
        for value in self.state.values():
            value[begins] = 0


def stateless(nets: Any, num_envs: int) -> State:
    """Return the state of a policy that remembers nothing."""
    return {}


@dataclass(frozen=True)
class Algorithm:
    """How to act, how to learn, and how the two are brought together. Acting never sees an optimizer, learning never
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
    update: Callable[[Any, Any, Any], Any]
    """update(learner, batch, options): one improvement of the networks of a LearnerAPI. From a Batch it returns what to
    report, numbers and scalars by name; from Transitions, where it `replays`, that and the temporal differences [N]
    that become their priorities."""
    optimizers: Mapping[str, Callable[[nn.Parameter, Any], Optimizer]]
    """For each part of the networks, by the name of the submodule ("" is the whole), the optimizer of its parameters,
    as one vector. The learning rate is option `<part>_lr` where there is one and it is set, else `lr`."""
    strategy: Callable[[Sampler, Any, int], Iterator[Iteration]]
    """The order of sampling and learning, from a backend, the options and the timesteps done before."""
    acts: str = ""
    """The part that acts, one of those with an optimizer: all that is sent to workers."""
    targets: tuple[str, ...] = ()
    """Parts of which the learner keeps copies that follow them slowly."""
    initial_state: Callable[[Any, int], State] = stateless
    """The state, all zeros, of an acting part that is to remember B environments."""
    replays: bool = False
    """Whether samples go into a replay buffer that updates are fed from; else each is learned from as it comes."""
    action_distribution: Callable[[Space[Any]], ActionDistribution[Any]] = action_distribution
    """How its actions are stored and handed to environments of an action space."""
    priorities: Callable[[Any, Fragment, Any], Tensor] | None = None
    """First priorities [T, B] of a fragment's steps, computed by the worker. None: the largest so far."""
