"""Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3 with all actors in step."""

from torch import Tensor

from rltrainer.algorithm import Algorithm
from rltrainer.algorithms.actor_critic import (
    advantages,
    at_steps,
    descend,
    explained_variance,
    memory,
    mode,
    sample,
    valid_steps,
)
from rltrainer.execution.synchronous import synchronous
from rltrainer.fragment import Batch
from rltrainer.learner import Learner
from rltrainer.networks import ActorCritic
from rltrainer.optimizer import adam
from rltrainer.options import A2COptions


def update(learner: Learner, batch: Batch, cfg: A2COptions) -> dict[str, Tensor]:
    """One step down the policy gradient with a critic, over a whole batch."""
    nets: ActorCritic = learner.nets
    steps = valid_steps(batch)
    parameters, v = nets(batch.obs, batch.state, batch.begins)
    adv, v = at_steps(advantages(batch, v.detach(), cfg), steps), at_steps(v, steps)
    target = v.detach() + adv
    dist = nets.family.make(at_steps(parameters, steps))
    metrics = descend(learner, cfg, dist.log_prob(at_steps(batch.a, steps)), dist.entropy(), adv, v, target)
    return {**metrics, "explained_variance": explained_variance(v.detach(), target)}


A2C = Algorithm(
    name="A2C",
    options=A2COptions,
    nets=ActorCritic,
    act=sample,
    best=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},  # the paper's RMSprop takes outsized first steps, until its average has warmed up
    strategy=synchronous,
    memory=memory,
)
