"""Synchronous advantage actor-critic: Mnih et al. 2016, arXiv 1602.01783, algorithm S3 with all actors in step."""

from torch import Tensor

from rltrainer.algorithm import Algorithm
from rltrainer.algorithms.actor_critic import (
    descend,
    evaluate,
    explained_variance,
    memory,
    mode,
    predict,
    sample,
    whole,
)
from rltrainer.execution.synchronous import synchronous
from rltrainer.fragment import Batch
from rltrainer.learner import Learner, adam
from rltrainer.networks import ActorCritic
from rltrainer.options import A2COptions


def update(learner: Learner, batch: Batch, cfg: A2COptions) -> dict[str, Tensor]:
    """One step down the policy gradient with a critic, over a whole batch."""
    nets: ActorCritic = learner.nets
    columns = whole(evaluate(nets, batch, cfg))
    parameters, v = predict(nets, columns)
    dist = nets.family.make(parameters)
    metrics = descend(learner, cfg, dist.log_prob(columns["a"]), dist.entropy(), columns["adv"], v, columns["target"])
    return {**metrics, "explained_variance": explained_variance(columns["v"], columns["target"])}


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
