"""Importance-weighted actor-learner architecture: Espeholt et al. 2018, arXiv 1802.01561."""

from torch import Tensor

from rltrainer.algorithms.on_policy import descend, initial_state, mode
from rltrainer.api.options.on_policy import APPOOptions, IMPALAOptions
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.fragment import Batch
from rltrainer.core.optimizer import adam
from rltrainer.execution.asynchronous import asynchronous
from rltrainer.learning.learner import Learner
from rltrainer.networks import ActorCritic
from rltrainer.ops.returns import vtrace


def sample(nets: ActorCritic, obs: Tensor, context: ActContext) -> tuple[Tensor, dict[str, Tensor]]:
    """Actions drawn from the policy, and their log-probabilities: the learner's policy will be another one by then."""
    dist, context.state = nets.step(obs, context.state)
    action = dist.sample(context.rng)
    return action, {"logp": dist.log_prob(action)}


def corrected(batch: Batch, logp: Tensor, v: Tensor, cfg: IMPALAOptions | APPOOptions) -> tuple[Tensor, Tensor]:
    """V-trace's value targets and advantages, both [T, B], of a policy that gives the actions taken `logp` [T, B].

    `v` [T + 1, B] are the values of all observations.
    """
    log_rho = logp.detach() - batch.extras["logp"]
    trace = batch.trace(cfg.lambda_)
    v = v.detach()
    return vtrace(
        log_rho, batch.discount(cfg.gamma), trace, batch.r, v[:-1], v[1:], cfg.vtrace_clip_rho, cfg.vtrace_clip_c
    )


def update(learner: Learner, batch: Batch, cfg: IMPALAOptions) -> dict[str, Tensor]:
    """One step down the three losses of section 4.2."""
    nets: ActorCritic = learner.nets
    parameters, v = nets(batch.obs, batch.state, batch.begins)
    dist = nets.action_distribution.make(parameters[:-1].detach())
    logp = dist.log_prob(batch.a)
    target, adv = corrected(batch, logp, v, cfg)
    metrics = descend(learner, cfg, batch, (parameters, v), dist, adv, target)
    rho = (logp - batch.extras["logp"])[batch.valid].exp().mean()
    return {**metrics, "rho": rho}


IMPALA = Algorithm(
    name="IMPALA",
    options=IMPALAOptions,
    nets=ActorCritic,
    act=sample,
    greedy_action=mode,
    update=update,
    optimizers={"": adam(eps=1e-5)},
    strategy=asynchronous,
    initial_state=initial_state,
)
