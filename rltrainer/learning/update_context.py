"""What an update works with: networks, their optimizers and targets, and the one way to make a step."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rltrainer.accel.cuda_graphs import Graphs, NotRecordedError
from rltrainer.accel.tape import Tape
from rltrainer.api.options import Options
from rltrainer.core.algorithm import Algorithm, Loss, Losses, LossGrad
from rltrainer.core.types import Spaces
from rltrainer.learning.data_parallel import Peers
from rltrainer.learning.parameter_groups import ParameterGroups
from rltrainer.learning.precision import autocast, outputs_in_float32
from rltrainer.networks.parameters import load_policy
from rltrainer.ops.schedules import at
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)


class UpdateContext:
    """The networks of a learner and what improves them. To an algorithm's update it is a LearnerAPI, which has the
    contracts of what an update calls."""

    def __init__(
        self,
        algorithm: Algorithm,
        spaces: Spaces,
        options: Options,
        seed: int,
        device: torch.device,
        peers: Peers | None = None,
    ) -> None:
        self.algorithm, self.options, self.device, self.peers = algorithm, options, device, peers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, Role.NETWORKS))
            self.nets: Any = algorithm.nets(spaces, options).to(device)  # whatever modules the algorithm made
        if options.precision == "bfloat16":
            for part in algorithm.optimizers:
                outputs_in_float32(self.nets.get_submodule(part))
        self.groups = ParameterGroups(algorithm, self.nets, options)
        self.targets = self.groups.targets
        self.rank = 0 if peers is None else peers.rank
        self.rng = torch.Generator().manual_seed(derived_seed(seed, Role.LEARNER, self.rank))
        self.counters: dict[str, float] = {}
        self.timesteps = 0
        self.tape = Tape()
        recurrent = bool(algorithm.initial_state(self.nets.get_submodule(algorithm.acts), 1))
        same_each_time = peers is None and not recurrent  # sequences and learners' turns differ from step to step
        records = options.records_steps and same_each_time and device.type == "cuda"
        self.graphs = Graphs() if records else None
        self.apply_updates = True
        """False where only gradients are needed: steps then move nothing."""
        self.loss_weight = 1.0
        """Of this learner's gradients beside its peers'."""
        self.measured = 0.0
        self.rule: Callable[[float], None] | None = None
        """Left by an update for `adapt`, which calls it once all peers are done."""

    def run_update(self, batch: Any) -> Any:
        """Run the algorithm's update on a batch, in the options' precision."""
        with autocast(self.options, self.device), self.tape.recording():
            return self.algorithm.update(self, batch, self.options)

    def set_time(self, timesteps: int) -> None:
        """Take it that the run has come to `timesteps`, and set the learning rates of that time."""
        self.timesteps = timesteps
        self.groups.set_lr(self.lr())

    def lr(self) -> float:
        """The learning rate now."""
        return at(self.options.lr_schedule, self.options.lr, self.timesteps)

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
        """Take one step of the optimizer of `part` down `loss(outputs, batch, options, *settings)`."""
        arguments = (outputs, batch, self.options, *settings)
        if grad is None:
            losses = loss(*arguments)
            self._backward([losses["loss"]], [None], part)
            losses = {name: value.detach() for name, value in losses.items()} if report else {}
        else:
            with torch.no_grad():
                losses = loss(*arguments) if report else {}
                gradients = grad(*arguments)
            self._backward(tensors_of(outputs), gradients, part)
        return {**losses, "grad_norm": self.groups.step(part, self.apply_updates)}

    def _backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], part: str) -> None:
        """Fill the gradient of `part` from those of the networks' outputs; None is that of a loss, 1."""
        flat = self.groups.flats[part]
        flat.gradient.zero_()
        self.tape.backward(outputs, gradients, flat.trainable, flat.trainable_ids)
        if self.peers is not None:
            self.peers.average(flat.gradient, self.loss_weight)

    def recorded(self, step: Callable[..., Any], batch: Any, *settings: float) -> Any:
        """Call `step(self, batch, options, *settings)`; on a GPU, record it once and replay it from then on."""

        def work(inputs: Any) -> Any:
            return step(self, inputs, self.options, *settings)

        if self.graphs is not None:
            try:
                return self.graphs.run((step, settings), work, batch, self.rng)
            except NotRecordedError as error:
                log.warning("updates go on without CUDA graphs, kernel by kernel: %s", error)
                self.graphs = None
                self.tape.forget()
        return work(batch)

    def update_targets(self, tau: float) -> None:
        """Move the targets by the share `tau` of the way to the parts that they follow; 1 copies them."""
        self.groups.update_targets(tau)

    def count_update(self) -> int:
        """Count one more update; returns how many there were, over all attempts of the run."""
        self.counters["updates"] = self.counters.get("updates", 0) + 1
        return int(self.counters["updates"])

    def count_followed(self) -> None:
        """Count a step that was taken along the peers' gradients alone, where the algorithm counts its updates."""
        if "updates" in self.counters:
            self.count_update()

    def adapt_by(self, measured: float, rule: Callable[[float], None]) -> None:
        """Call `rule` with `measured`, a mean over the samples of this update: at once, or with peers after the update
        of all, with the mean over all learners' samples."""
        if self.peers is None:
            rule(measured)
        else:
            self.measured, self.rule = measured, rule

    def adapt(self, measured: float) -> None:
        """Call the rule that the update has left for its end."""
        rule, self.rule, self.measured = self.rule, None, 0.0
        if rule is not None:
            rule(measured)

    def decided(self) -> dict[str, Any]:
        """Decisions of updates beside the parameters, the same for all learners of a group: counters, targets."""
        return {"counters": dict(self.counters), "targets": self.groups.state()["targets"]}

    def catch_up(self, decided: Sequence[dict[str, Any] | None]) -> None:
        """Take over what peers have `decided` in an update, by rank; None is that of one that was not in it."""
        others = [each for each in decided if each is not None]
        if decided[self.rank] is None and others:
            self.counters = dict(others[0]["counters"])
            self.groups.load_targets(others[0]["targets"])

    def state(self) -> dict[str, Any]:
        """State that updates go on from, but the networks: tensors and JSON values by name.

        What learners of a group do not have in common, "rng" and the counters ("memory"), stands under the learner's
        number.
        """
        own = {"rng": {str(self.rank): self.rng.get_state()}, "memory": {str(self.rank): dict(self.counters)}}
        return {**self.groups.state(), **own}

    def load(self, policy: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from the networks of `policy` and from `state()`.

        A learner that was not in the group when it was saved keeps its random state, and takes the counters of
        learner 0.
        """
        load_policy(self.nets, policy)
        self.groups.load(state)
        mine = str(self.rank)
        if mine in state["rng"]:
            self.rng.set_state(state["rng"][mine])
        self.counters = dict(state["memory"].get(mine, state["memory"]["0"]))


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors that the outputs of networks are made of: of a distribution its parameters."""
    if isinstance(outputs, tuple):
        return [tensor for output in outputs for tensor in tensors_of(output)]
    return [outputs if isinstance(outputs, Tensor) else outputs.parameters]
