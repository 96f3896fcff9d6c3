"""What moves parameters along a gradient: the learner gives all that it moves together as one vector."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import hardshrink

TINY, SWEEP = 1e-30, 128
"""Averages this small move nothing; they are put to 0 every so many steps, before they can decay below 1e-38."""


class Optimizer(Protocol):
    """Steps of one vector of parameters."""

    lr: float
    """The learning rate of the next step."""
    state: dict[str, Tensor]
    """What it goes on from, by name."""

    def step(self) -> None:
        """Take one step along the vector's gradient."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the `state` of another one."""


class Adam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, in one kernel.

    It takes the same steps as torch.optim.Adam. That one brings PyTorch's compiler along, 150 MB and more than a second
    of imports, and for a small network it takes most of a step's time to find out what there is to do. And its
    averages of gradients decay to numbers below 1e-38 where units are off, each of which takes a processor a hundred
    cycles a step: with half of them, as in DQN's networks on CartPole, a step took twelve times as long.
    """

    def __init__(self, vector: nn.Parameter, lr: float, eps: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """`vector` has its gradient already."""
        self.vector, self.eps, self.betas = vector, eps, betas
        self.steps, self.on_cpu = 0, vector.device.type == "cpu"
        self._lr, self._rate = lr, lr if self.on_cpu else torch.tensor(lr, device=vector.device)
        self.state = {
            "step": torch.zeros((), device=vector.device),
            "exp_avg": torch.zeros_like(vector.data),
            "exp_avg_sq": torch.zeros_like(vector.data),
        }

    @property
    def lr(self) -> float:
        """The learning rate of the next step. A device has it in its memory, where recorded steps read it."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if not isinstance(self._rate, Tensor):
            self._rate = lr
        elif lr != self._lr:
            self._rate.fill_(lr)
        self._lr = lr

    @torch.no_grad()
    def step(self) -> None:
        """Take one step along the vector's gradient."""
        state, (beta1, beta2) = self.state, self.betas
        state["step"] += 1
        self.steps += 1
        assert self.vector.grad is not None  # noqa: S101 - for the type checker
        torch._fused_adam_(
            [self.vector],
            [self.vector.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=cast(float, self._rate),  # or a tensor, as the kernel knows, and PyTorch's hints do not
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        if self.on_cpu and self.steps % SWEEP == 0:
            for average in (state["exp_avg"], state["exp_avg_sq"]):
                average.copy_(hardshrink(average, TINY))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the `state` of another one."""
        for name, value in state.items():
            self.state[name].copy_(value)
        self.steps = int(self.state["step"])


def adam(eps: float | None = None) -> Callable[[nn.Parameter, Any], Adam]:
    """Make Adam of a vector of parameters and the options, whose `adam_eps` counts unless `eps` is given."""
    return lambda vector, options: Adam(vector, options.lr, options.adam_eps if eps is None else eps)
