"""What the algorithms with a policy and a critic over one encoder share."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rltrainer.envs import Spaces
from rltrainer.fragment import Batch
from rltrainer.networks import ActorCritic
from rltrainer.options import ActorCriticOptions
from rltrainer.returns import gae

Columns = dict[str, Tensor]
"""Samples [N, ...] by name."""


def actor_critic(spaces: Spaces, options: ActorCriticOptions) -> ActorCritic:
    """The networks."""
    return ActorCritic(spaces.observations, spaces.actions, options)


def sample(nets: ActorCritic, obs: Tensor, rng: torch.Generator) -> tuple[Tensor, Columns]:
    """Actions drawn from the policy. Nothing else is noted: a synchronous learner computes the rest in one batch."""
    return nets.act(obs).sample(rng), {}


def mode(nets: ActorCritic, obs: Tensor) -> Tensor:
    """The policy's likeliest actions."""
    return nets.act(obs).mode()


@torch.no_grad()
def evaluate(nets: ActorCritic, batch: Batch, cfg: ActorCriticOptions) -> Columns:
    """The valid steps of `batch` with what learning needs of them, before anything is learnt.

    Returns obs, a, adv (advantages), target (lambda-returns), v (values) and parameters (of the policy), each [N, ...].
    """
    parameters, v = nets(batch.obs)
    final_v = nets.value(batch.final_obs) if len(batch.final_obs) else v.new_zeros(0)
    trace = cfg.lambda_ * (~batch.done).to(v.dtype)
    adv = gae(batch.r, batch.discount(cfg.gamma), v[:-1], batch.next_values(v, final_v), trace)
    columns = {
        "obs": batch.obs[:-1],
        "a": batch.a,
        "adv": adv,
        "target": adv + v[:-1],
        "v": v[:-1],
        "parameters": parameters[:-1],
    }
    return {name: column[batch.valid] for name, column in columns.items()}


def minibatches(columns: Columns, size: int, rng: torch.Generator) -> Iterator[Columns]:
    """All samples once, in random order, in equal parts of about `size`: none is left over, none is tiny."""
    count = len(columns["adv"])
    order = torch.randperm(count, generator=rng).to(columns["adv"].device)
    parts = max(1, round(count / size))
    shuffled = [(name, column[order].tensor_split(parts)) for name, column in columns.items()]
    for i in range(parts):
        yield {name: split[i] for name, split in shuffled}


def explained_variance(v: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - v) / Var(target): 1 for a perfect critic, 0 for one that knows only the mean. A scalar."""
    return 1 - (target - v).var(correction=0) / target.var(correction=0).clamp_min(1e-8)
