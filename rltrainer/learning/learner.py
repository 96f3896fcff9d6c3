"""The learning half: an improvement of the networks, from fresh fragments or from replay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from rltrainer.core.fragment import Batch, Fragment, collate
from rltrainer.core.types import Array, Metrics, Weights
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import Peers
from rltrainer.learning.replay_feed import ReplayFeed, as_priorities
from rltrainer.learning.running_statistics import RunningStatistics
from rltrainer.learning.update_context import UpdateContext
from rltrainer.networks.parameters import load_weights, module_state
from rltrainer.replay.buffer import Transitions


@dataclass(frozen=True)
class Gradient:
    """The gradient that a worker computed beside its environments."""

    vector: Array
    """Of all parameters, as one."""
    observations: Array | None
    """The observations [N, *shape] that it is of, where they are to be normalized."""


class Learner:
    """The half that a strategy calls to improve an algorithm's networks, which its `context` holds.

    One of several learners has its peers there, and options that are its share of the group's. All of them begin with
    the same networks and take the same steps; each draws from a random state of its own.
    """

    def __init__(self, context: UpdateContext) -> None:
        options, device = context.options, context.device
        self.context, self.device, self.peers = context, device, context.peers
        self.acts = context.algorithm.acts
        self.feed: ReplayFeed | None = None
        if context.algorithm.replays and not options.shards:
            self.feed = ReplayFeed(options, device, context.rng)
        self.statistics = RunningStatistics(context.nets, options.scales_rewards, device, self._of_all_learners)

    def update_from_fragments(self, fragments: list[Fragment], timesteps: int) -> Metrics:
        """Improve the networks once from `fragments`, sampled after `timesteps` steps of the run. Returns what to
        report.

        With a replay buffer the fragments go there, and as many updates are made as are due for their steps.
        """
        self.context.set_time(timesteps)
        steps = sum(int(fragment.valid.sum()) for fragment in fragments)
        if self.feed is not None:
            self.feed.add(fragments)
            for fragment in fragments:
                self.statistics.observe(fragment.obs[:-1], fragment.valid)
            return self._update_from_feed(self.feed, self._total(steps))
        batch = self._collate(fragments)
        if self.peers is not None:
            metrics = self._update_with_peers(self.peers, batch, steps)
        else:  # without any step, all environments only began their next episodes
            metrics = self._update(batch) if steps else {}
        # only now: the batch was acted upon, and is to be learned from, with the old statistics
        self.statistics.observe(batch.obs[:-1], batch.valid)
        return metrics

    def update_from_replay(self, batch: Transitions, timesteps: int) -> tuple[Metrics, Array]:
        """Take one update from transitions that were replayed elsewhere; also returns their temporal differences [N].

        Their observations are taken into the statistics here, for the learner does not see the fragments.
        """
        self.context.set_time(timesteps)
        batch = batch.to(self.device)
        losses, td_error = self.context.run_update(batch)
        metrics = self._report([losses])
        self.statistics.observe(batch.obs)
        return metrics, as_priorities(td_error)

    def gradient(self, weights: Weights, fragment: Fragment, timesteps: int) -> tuple[Gradient, Metrics]:
        """Find the gradient that the algorithm's one step would follow from `weights` and `fragment`; apply nothing."""
        flat = self.context.groups.flats[""]
        load_weights(flat, weights)
        self.context.apply_updates = False
        self.context.set_time(timesteps)
        flat.gradient.zero_()
        metrics = self._update(self._collate([fragment])) if fragment.valid.any() else {}
        rows = fragment.obs[:-1][fragment.valid] if self.statistics.observations else None
        return Gradient(flat.gradient.cpu().numpy().copy(), rows), metrics

    def apply_gradient(self, gradient: Gradient, timesteps: int) -> None:
        """Take one step of the optimizer along a gradient computed elsewhere."""
        self.context.set_time(timesteps)
        self.context.groups.flats[""].gradient.copy_(torch.tensor(gradient.vector))
        self.context.groups.optimizers[""].step()
        if gradient.observations is not None:
            self.statistics.observe(torch.tensor(gradient.observations))

    def _collate(self, fragments: list[Fragment]) -> Batch:
        batch = collate(fragments, self.device)
        self.statistics.normalize_rewards(batch)
        return batch

    def _update(self, batch: Batch) -> Metrics:
        return self._report([self.context.run_update(batch)])

    def _update_with_peers(self, peers: Peers, batch: Batch, steps: int) -> Metrics:
        """Update together with the peers, each of which may take another number of steps of the optimizer.

        Those that are done go on to follow the others' gradients until none has any left. `steps` are the valid ones of
        `batch`; without any this learner only follows, and takes over from a peer what an update changes beside that.
        """
        context = self.context
        context.loss_weight = float(steps)
        metrics = self._update(batch) if steps else {}
        (part,) = context.groups.optimizers
        while peers.average(context.groups.flats[part].gradient, 0.0) > 0:
            context.groups.step(part)
            context.count_followed()
        measured, weight, idle = peers.totals(steps * context.measured, steps, not steps)
        context.adapt(measured / weight if weight else 0.0)
        if idle:
            context.catch_up(peers.exchange(context.decided() if steps else None))
        return metrics

    def _update_from_feed(self, feed: ReplayFeed, steps: int) -> Metrics:
        """Make as many updates from the replay buffer as are due after so many more steps; reports their mean."""
        timesteps, reported = self.context.timesteps, []
        for batch in feed.batches(feed.due(self.context.counters, steps, timesteps), timesteps):
            losses, td_error = self.context.run_update(batch)
            feed.update_priorities(batch, td_error)
            reported.append(losses)
        return {**self._report(reported), "replay_size": self._total(len(feed.replay))} if reported else {}

    def _total(self, number: int) -> int:
        return number if self.peers is None else self.peers.total(number)

    def _of_all_learners(self, rows: Tensor) -> Tensor:
        """Rows [N, ...] and, in a group, those of the peers: what statistics that all share are made of."""
        return rows if self.peers is None else self.peers.gather(rows)

    def _report(self, losses: Sequence[Mapping[str, Tensor | float]]) -> Metrics:
        """The mean of what several updates report. Raises RunError where one of them diverged."""
        metrics = mean_metrics(losses)
        if bad := [name for name, value in metrics.items() if value != value]:
            raise RunError(
                "Diverged",
                f"training diverged: {', '.join(bad)} is not a number after {self.context.timesteps} timesteps. "
                "A smaller lr, grad_clip, or normalize_observations usually helps",
            )
        return {**metrics, "lr": self.context.lr()}

    def weights(self, timesteps: int) -> Weights:
        """A copy of what a worker needs to act, `timesteps` into the run."""
        flat = self.context.groups.flats[self.acts]
        buffers = {name: buffer.cpu().numpy().copy() for name, buffer in flat.buffers.items()}
        parameters = flat.vector.detach().cpu().numpy().copy()
        return {"parameters": parameters, "buffers": buffers, "timesteps": timesteps}

    def policy(self) -> dict[str, Tensor]:
        """The networks' parameters and buffers by name, on the CPU."""
        return module_state(self.context.nets)

    def state(self) -> dict[str, Any]:
        """Everything that learning goes on from, but the policy and the replay: tensors and JSON values by name."""
        return {**self.context.state(), "rewards": self.statistics.state()}

    def load(self, policy: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from `policy()` and `state()` of a learner of the same algorithm, options and spaces."""
        self.context.load(policy, state)
        self.statistics.load(state["rewards"])


def mean_metrics(reported: Sequence[Mapping[str, Tensor | float]]) -> Metrics:
    """The mean of each number over several updates that report it, read from the device once."""
    columns: dict[str, list[Tensor | float]] = {}
    for losses in reported:
        for name, value in losses.items():
            columns.setdefault(name, []).append(value)
    on_device = [value.detach().float() for column in columns.values() for value in column if isinstance(value, Tensor)]
    numbers = iter(torch.stack(on_device).tolist() if on_device else ())
    return {
        name: fmean(next(numbers) if isinstance(value, Tensor) else value for value in column)
        for name, column in columns.items()
    }
