"""What the algorithms that learn from fresh samples share: how they act, advantages, minibatches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rltrainer.api.options import ActorCriticOptions
from rltrainer.core.algorithm import ActContext
from rltrainer.core.fragment import Batch
from rltrainer.core.types import State
from rltrainer.networks import ActorCritic, PolicyNetwork
from rltrainer.ops.returns import gae

Columns = dict[str, Any]
"""Samples by name: the valid steps [N, ...], or of a recurrent policy whole sequences [T, B, ...] and their `state`."""
SEQUENCE = ("obs", "begins", "valid")
"""Columns that stay sequences [T, b, ...] in a minibatch of a recurrent policy."""


def sample(nets: ActorCritic | PolicyNetwork, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw actions from the policy. Nothing else is noted: a synchronous learner computes the rest in one batch."""
    dist, context.state = nets.step(obs, context.state)
    return dist.sample(context.rng), {}


def mode(nets: ActorCritic | PolicyNetwork, obs: Tensor, context: ActContext) -> Tensor:
    """Take the policy's likeliest actions."""
    dist, context.state = nets.step(obs, context.state)
    return dist.mode()


def initial_state(nets: ActorCritic, width: int) -> State:
    """The state of a recurrent policy, [B, H] each; none otherwise."""
    return nets.initial_state(width)


@torch.no_grad()
def evaluate(nets: ActorCritic, batch: Batch, cfg: ActorCriticOptions) -> Columns:
    """The steps of `batch` with what learning needs of them, before anything is learned.

    Returns obs, a, adv (advantages), target (lambda-returns), v (values) and parameters (of the policy).
    """
    parameters, v = nets(batch.obs, batch.state, batch.begins)
    adv = advantages(batch, v, cfg)
    columns = {
        "obs": batch.obs[:-1],
        "a": batch.a,
        "adv": adv,
        "target": adv + v[:-1],
        "v": v[:-1],
        "parameters": parameters[:-1],
    }
    return samples(batch, columns)


def advantages(batch: Batch, v: Tensor, cfg: ActorCriticOptions) -> Tensor:
    """GAE's advantages [T, B] of the actions taken, from the values `v` [T + 1, B] of all observations."""
    return gae(batch.r, batch.discount(cfg.gamma), v[:-1], v[1:], batch.trace(cfg.lambda_))


def samples(batch: Batch, columns: Columns) -> Columns:
    """The facts of each step of `batch`, columns [T, B, ...], as it is learned from: see Columns."""
    if batch.state:
        return {**columns, "begins": batch.begins, "valid": batch.valid, "state": batch.state}
    steps = valid_steps(batch)
    return {name: at_steps(column, steps) for name, column in columns.items()}


def valid_steps(batch: Batch) -> Tensor:
    """Indices [N] of the valid ones among the T * B steps of `batch`: quicker to use several times than a mask."""
    return batch.valid.flatten().nonzero().squeeze(1)


def at_steps(column: Tensor, steps: Tensor) -> Tensor:
    """The values that a column [T, B, ...], or [T + 1, B, ...], has at `steps` [N] of `valid_steps`: [N, ...]."""
    return column.flatten(0, 1).index_select(0, steps)


def predict(nets: ActorCritic, part: Columns) -> tuple[Tensor, Tensor]:
    """Parameters [N, P] and values [N] of the valid steps of a minibatch."""
    if "state" not in part:
        parameters, v = nets(part["obs"])
        return parameters, v
    parameters, v = nets(part["obs"], part["state"], part["begins"][:-1])
    return parameters[part["valid"]], v[part["valid"]]


def minibatches(columns: Columns, size: int, rng: torch.Generator) -> Iterator[Columns]:
    """All samples once, in random order, in equal parts of about `size`: none is left over, none tiny. One alone stays
    in order, for its mean has none.

    For a recurrent policy whole environments are drawn, so that their sequences stay whole: at least one in each part.
    Parts without a valid step are left out.
    """
    if "state" in columns:
        length, width = columns["adv"].shape
        order = torch.randperm(width, generator=rng).to(columns["adv"].device)
        drawn = (sequences(columns, part) for part in order.tensor_split(equal_parts(width, size / length)))
        yield from (part for part in drawn if len(part["adv"]))  # fragments of one step may be nothing but first steps
        return
    count = len(columns["adv"])
    parts = equal_parts(count, size)
    if parts == 1:
        yield columns
        return
    order = torch.randperm(count, generator=rng).to(columns["adv"].device)
    shuffled = [(name, column[order].tensor_split(parts)) for name, column in columns.items()]
    for i in range(parts):
        yield {name: split[i] for name, split in shuffled}


def equal_parts(count: int, size: float) -> int:
    """Parts that `count` things are split into, for each to be of about `size`."""
    return min(count, max(1, round(count / size)))


def sequences(columns: Columns, environments: Tensor) -> Columns:
    """The sequences of some environments, indices [b]: what SEQUENCE names and `state` as such, all else [N, ...]."""
    valid = columns["valid"][:, environments]
    part = {name: column[:, environments] for name, column in columns.items() if name != "state"}
    flat = {name: column if name in SEQUENCE else column[valid] for name, column in part.items()}
    return {**flat, "state": {name: value[environments] for name, value in columns["state"].items()}}


def whole(columns: Columns) -> Columns:
    """All samples as one minibatch, in their order."""
    if "state" not in columns:
        return columns
    return sequences(columns, torch.arange(columns["adv"].shape[1], device=columns["adv"].device))


def explained_variance(v: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - v) / Var(target): 1 for a perfect critic, 0 for one that knows only the mean. A scalar."""
    return 1 - (target - v).var(correction=0) / target.var(correction=0).clamp_min(1e-8)
