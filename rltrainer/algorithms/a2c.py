"""Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3 with all actors in step."""

from torch import Tensor

from rltrainer.algorithms.on_policy import (
    advantages,
    descend,
    initial_state,
    mode,
    sample,
)
from rltrainer.api.options import A2COptions
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.synchronous import synchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks import ActorCritic


def update(learner: Learner, batch: Batch, cfg: A2COptions) -> dict[str, Tensor]:
    """One step down the policy gradient with a critic, over a whole batch."""
    nets: ActorCritic = learner.nets
    parameters, v = nets(batch.obs, batch.state, batch.begins)
    adv = advantages(batch, v.detach(), cfg)
    dist = nets.action_distribution.make(parameters[:-1].detach())
    return descend(learner, cfg, batch, (parameters, v), dist, adv, adv + v[:-1].detach())


A2C = Algorithm(
    name="A2C",
    options=A2COptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},  # the paper's RMSprop takes outsized first steps, until its average has warmed up
    strategy=synchronous,
    initial_state=initial_state,
)
