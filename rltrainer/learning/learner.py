"""The learning half: networks, their optimiser, and the state that goes with them."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from rltrainer.accel.cuda_graphs import Found, Graphs, NotRecordedError
from rltrainer.accel.tape import Tape
from rltrainer.api.options import Options, ReplayOptions
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.fragment import Batch, Fragment, collate
from rltrainer.core.types import Array, Metrics, Spaces, Weights
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import Peers
from rltrainer.networks.parameters import WHOLE, FlatParameters, load_policy, load_weights, module_state
from rltrainer.ops.normalization import ObservationNormalizer, RewardNormalizer
from rltrainer.ops.schedules import at
from rltrainer.replay.buffer import Replay, Transitions
from rltrainer.replay.shards import beta_at, new_replay, shard_count
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)

Step = Callable[..., Found]
"""A step of learning: what it finds, by name, from a learner, what it is given, the options and numbers."""


@dataclass(frozen=True)
class Gradient:
    """What a worker found that learns beside its environments."""

    vector: Array
    """Of all parameters, as one."""
    observations: Array | None
    """The observations it was found in, [N, *shape], where they are to be normalised."""


class Learner:
    """Networks and what improves them. `memory` holds the numbers that the algorithm itself keeps between updates.

    One of several learners also has its `peers`, and `options` that are its share of the group's. All of them begin
    with the same networks and take the same steps; each draws from a random state of its own.
    """

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
        parts = algorithm.optimizers
        if options.precision == "bfloat16":
            for part in parts:
                _puts_out_float32(self.nets.get_submodule(part))
        self.flats = {part: FlatParameters(self.nets.get_submodule(part)) for part in parts}
        self.optimizers = {part: make(self.flats[part].vector, options) for part, make in parts.items()}
        self.targets: dict[str, Any] = {
            part: copy.deepcopy(self.nets.get_submodule(part)) for part in algorithm.targets
        }
        self.target_flats = {
            part: FlatParameters(target.requires_grad_(False)) for part, target in self.targets.items()
        }
        self.rank = 0 if peers is None else peers.rank
        self.rng = torch.Generator().manual_seed(derived_seed(seed, Role.LEARNER, self.rank))
        self.replay: Replay | None = None
        if algorithm.replays and isinstance(options, ReplayOptions) and not shard_count(options):
            self.replay = new_replay(options, device)
        self.counters: dict[str, float] = {}
        self.tape = Tape()
        same = getattr(options, "recurrent", None) is None and peers is None  # whatever the numbers are
        recorded = same and getattr(options, "cuda_graphs", False)
        self.graphs = Graphs() if recorded and device.type == "cuda" else None
        self.timesteps = 0
        self.normalizers = [each for each in self.nets.modules() if isinstance(each, ObservationNormalizer)]
        self.reward_normalizer = RewardNormalizer().to(device) if getattr(options, "normalize_rewards", False) else None
        self.withhold = False
        self.weight = 1.0  # of this learner's gradients beside its peers'

    def update_from_fragments(self, fragments: list[Fragment], timesteps: int) -> Metrics:
        """One improvement from `fragments`, sampled after `timesteps` steps of the run. Returns what to report.

        With a replay buffer the fragments go there, and as many updates are made as are due for their steps.
        """
        self._set_time(timesteps)
        steps = sum(int(fragment.valid.sum()) for fragment in fragments)
        if self.replay is None:
            batch = self._collate(fragments)
            if self.peers is not None:
                metrics = self._update_along(self.peers, batch, steps)
            else:  # without any step, all environments only began their next episodes
                metrics = self._update(batch) if steps else {}
            # only now: the batch was acted upon, and is to be judged, with the old statistics
            self._observe(batch.obs[:-1], batch.valid)
            return metrics
        for stream, fragment in enumerate(fragments):
            self.replay.add(fragment, stream, fragment.priorities)
            self._observe(fragment.obs[:-1], fragment.valid)
        return self._replay(self._total(steps))

    def update_from_replay(self, batch: Transitions, timesteps: int) -> tuple[Metrics, Array]:
        """One update from transitions that were replayed elsewhere; also returns their temporal differences [N].

        Their observations are taken into the statistics here, for the learner does not see the fragments.
        """
        self._set_time(timesteps)
        batch = batch.to(self.device)
        metrics = self._update(batch)
        self._observe(batch.obs)
        return metrics, td_errors_of(batch)

    def gradient(self, weights: Weights, fragment: Fragment, timesteps: int) -> tuple[Gradient, Metrics]:
        """The gradient that the algorithm's one step would follow from `weights` and `fragment`; nothing is changed."""
        load_weights(self.flats[""], weights)
        self.withhold = True
        self._set_time(timesteps)
        self.flats[""].gradient.zero_()
        metrics = self._update(self._collate([fragment])) if fragment.valid.any() else {}
        rows = fragment.obs[:-1][fragment.valid] if self.normalizers else None
        return Gradient(self.flats[""].gradient.cpu().numpy().copy(), rows), metrics

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """One step of the optimiser along a gradient found elsewhere."""
        self._set_time(timesteps)
        self.flats[""].gradient.copy_(torch.tensor(gradient.vector))
        self.optimizers[""].step()
        if gradient.observations is not None:
            self._observe(torch.tensor(gradient.observations))

    def count_update(self) -> int:
        """Counts one update more; returns how many there were, over all attempts."""
        self.counters["updates"] = self.counters.get("updates", 0) + 1
        return int(self.counters["updates"])

    def minimise(self, loss: Tensor, part: str = "") -> Tensor:
        """One step of the optimiser of `part` down `loss`, a scalar. Returns the gradient's norm before clipping."""
        return self.descend([loss], [None], part)

    def descend(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], part: str = "") -> Tensor:
        """As `minimise`, for a loss whose gradients by some `outputs` of the networks are known, each shaped as its
        output."""
        flat = self.flats[part]
        flat.gradient.zero_()
        self.tape.backward(outputs, gradients, flat.parameters, flat.identities)
        if self.peers is not None:
            self.peers.average(flat.gradient, self.weight)
        return self._step(part)

    def recorded(self, step: Step, given: Any, *settings: float) -> Found:
        """What `step(self, given, options, *settings)` finds; on a GPU recorded, and replayed from then on.

        `given` is a Batch, Transitions or columns. What the step does must follow from the settings and from the shapes
        of tensors alone, and all that it finds from tensors: see graphs.py.
        """

        def work(mine: Any) -> Found:
            return step(self, mine, self.options, *settings)

        if self.graphs is not None:
            try:
                return self.graphs.run((step, settings), work, given, self.rng)
            except NotRecordedError as error:
                log.warning("updates go on without CUDA graphs, kernel by kernel: %s", error)
                self.graphs = None
                self.tape.forget()
        return work(given)

    def slope(self, output: Tensor, gradient: Tensor, by: Tensor) -> Tensor:
        """The gradient of a loss by what was given to the networks, `by`, a leaf, from that by what they put out."""
        self.tape.backward([output], [gradient], [by], frozenset())
        found, by.grad = by.grad, None
        return torch.zeros_like(by) if found is None else found

    def _step(self, part: str) -> Tensor:
        """One step of the optimiser of `part` down the gradient found, which is clipped before. Returns its norm."""
        flat = self.flats[part]
        norm: Tensor = torch.linalg.vector_norm(flat.gradient)
        if self.options.grad_clip:
            flat.gradient.mul_((self.options.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        if not self.withhold:
            self.optimizers[part].step()
        return norm

    @torch.no_grad()
    def update_targets(self, tau: float) -> None:
        """Moves the targets by the share `tau` of the way to the parts that they follow; 1 copies them."""
        for part, target in self.targets.items():
            self.target_flats[part].vector.data.lerp_(self.flats[part].vector.data, tau)
            for mine, theirs in zip(target.buffers(), self.nets.get_submodule(part).buffers(), strict=True):
                mine.copy_(theirs)

    def _set_time(self, timesteps: int) -> None:
        self.timesteps = timesteps
        for part, optimizer in self.optimizers.items():
            optimizer.lr = getattr(self.options, f"{part}_lr", None) or self._lr()

    def _collate(self, fragments: list[Fragment]) -> Batch:
        batch = collate(fragments, self.device)
        if self.reward_normalizer is not None:
            returns = self._everyones(batch.extras["discounted"][batch.valid])
            batch.r = self.reward_normalizer(batch.r, returns, torch.ones_like(returns, dtype=torch.bool))
        return batch

    def _update(self, batch: Batch | Transitions) -> Metrics:
        with self._precision(), self.tape.recording():
            metrics = mean_metrics([self.algorithm.update(self, batch, self.options)])
        self._check(metrics)
        return {**metrics, "lr": self._lr()}

    def _update_along(self, peers: Peers, batch: Batch, steps: int) -> Metrics:
        """One update together with the peers, each of which may take another number of steps of the optimiser.

        Those that are done go on to follow the others' gradients until none has any left. `steps` are the valid ones of
        `batch`; without any this learner only follows.
        """
        self.weight = float(steps)
        metrics = self._update(batch) if steps else {}
        (part,) = self.optimizers
        while peers.average(self.flats[part].gradient, 0.0) > 0:
            self._step(part)
        return metrics

    def _precision(self) -> AbstractContextManager[Any]:
        """Within it networks work in the precision asked for. No copies of weights are kept: steps would miss them."""
        if self.options.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _total(self, number: int) -> int:
        return number if self.peers is None else self.peers.total(number)

    def _everyones(self, rows: Tensor) -> Tensor:
        """Rows [N, ...] and, in a group, those of the peers: what statistics that all share are made of."""
        return rows if self.peers is None else self.peers.gather(rows)

    def _replay(self, steps: int) -> Metrics:
        """As many updates from the replay buffer as are due after so many more steps; reports their mean."""
        options, replay = self.options, self.replay
        if not isinstance(options, ReplayOptions) or replay is None or self.timesteps + steps < options.learning_starts:
            return {}
        due = self.counters.get("due", 0.0) + steps * options.updates_per_step
        self.counters["due"] = due - int(due)
        beta = beta_at(options, self.timesteps)
        found: list[Mapping[str, Tensor | float]] = []
        for _ in range(int(due)):
            batch = replay.sample(options.batch_size, self.rng, beta).to(self.device)
            with self._precision(), self.tape.recording():
                found.append(self.algorithm.update(self, batch, options))
            if options.prioritized:
                replay.update_priorities(batch.index, td_errors_of(batch))
        metrics = mean_metrics(found)
        self._check(metrics)
        return {**metrics, "replay_size": self._total(len(replay)), "lr": self._lr()} if found else {}

    def _lr(self) -> float:
        return at(self.options.lr_schedule, self.options.lr, self.timesteps)

    def _observe(self, obs: Tensor | Array, valid: Any = ...) -> None:
        """Takes observations [N, *shape], or those [T, B, *shape] that are `valid` [T, B], into the statistics that
        they are normalised by."""
        if not self.normalizers:
            return
        rows = self._everyones(torch.as_tensor(obs[valid]).to(self.device))
        for normalizer in self.normalizers:
            normalizer.update(rows)

    def weights(self, timesteps: int) -> Weights:
        """A copy of what a worker needs to act, `timesteps` into the run."""
        flat = self.flats[self.algorithm.acts]
        buffers = {name: buffer.cpu().numpy().copy() for name, buffer in flat.buffers.items()}
        parameters = flat.vector.detach().cpu().numpy().copy()
        return {"parameters": parameters, "buffers": buffers, "timesteps": timesteps}

    def state(self) -> dict[str, Any]:
        """Everything that learning goes on from, but the policy and the replay: tensors and JSON values by name.

        What learners of a group do not have in common, `rng` and `memory`, stands under the learner's number.
        """
        return {
            "optimizer": {
                part or WHOLE: {name: value.clone() for name, value in optimizer.state.items()}
                for part, optimizer in self.optimizers.items()
            },
            "targets": {part or WHOLE: module_state(target) for part, target in self.targets.items()},
            "rng": {str(self.rank): self.rng.get_state()},
            "memory": {str(self.rank): dict(self.counters)},
            "rewards": dict(self.reward_normalizer.state_dict()) if self.reward_normalizer is not None else {},
        }

    def policy(self) -> dict[str, Tensor]:
        """The networks' parameters and buffers by name, on the CPU."""
        return module_state(self.nets)

    def load(self, policy: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Goes on from `policy()` and `state()` of a learner of the same algorithm, options and spaces.

        One that was not in the group when it was saved keeps its random state, and takes the memory of learner 0.
        """
        load_policy(self.nets, policy)
        for part, optimizer in self.optimizers.items():
            optimizer.load(state["optimizer"][part or WHOLE])
        for part, target in self.targets.items():
            load_policy(target, state["targets"][part or WHOLE])
        mine = str(self.rank)
        if mine in state["rng"]:
            self.rng.set_state(state["rng"][mine])
        self.counters = dict(state["memory"].get(mine, state["memory"]["0"]))
        if self.reward_normalizer is not None:
            self.reward_normalizer.load_state_dict(state["rewards"], strict=bool(state["rewards"]))

    def _check(self, metrics: Metrics) -> None:
        bad = [name for name, value in metrics.items() if value != value]
        if bad:
            raise RunError(
                "Diverged",
                f"training diverged: {', '.join(bad)} is not a number after {self.timesteps} timesteps. "
                "A smaller lr, grad_clip, or normalize_observations usually helps",
            )


def _puts_out_float32(part: nn.Module) -> None:
    """What comes out of `part`, and of its own parts, is float32 again, whatever was reckoned with within them."""

    def widen(module: nn.Module, given: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            return tuple(widen(module, given, each) for each in out)
        return out.float() if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else out

    for module in (part, *part.children()):
        module.register_forward_hook(widen)


def td_errors_of(batch: Transitions) -> Array:
    """The sizes of the temporal differences, [N], that an update has left in its batch."""
    if batch.td_error is None:
        raise RunError("InvalidOption", "prioritized replay needs an update that sets batch.td_error", permanent=True)
    return batch.td_error.detach().cpu().numpy()


def mean_metrics(found: Sequence[Mapping[str, Tensor | float]]) -> Metrics:
    """The mean of each number over several updates that report it, read from the device once."""
    columns: dict[str, list[Tensor | float]] = {}
    for each in found:
        for name, value in each.items():
            columns.setdefault(name, []).append(value)
    there = [value.detach().float() for column in columns.values() for value in column if isinstance(value, Tensor)]
    numbers = iter(torch.stack(there).tolist() if there else ())
    return {
        name: fmean(next(numbers) if isinstance(value, Tensor) else value for value in column)
        for name, column in columns.items()
    }
