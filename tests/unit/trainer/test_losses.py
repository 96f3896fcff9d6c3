"""Each algorithm's loss against its paper, sample by sample, and each closed-form gradient against autograd's."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rltrainer.algorithms import ALGORITHMS, a2c, appo, ddpg, dqn, impala, pg, ppo, qr_dqn, sac
from rltrainer.backend.base import make_learner
from rltrainer.core.algorithm import Loss, Losses, LossGrad
from rltrainer.core.fragment import collate
from rltrainer.learning.update_context import UpdateContext, tensors_of
from rltrainer.ops.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from rltrainer.replay.buffer import Transitions
from rltrainer.sampling.worker import Worker
from tests.unit.trainer.helpers import small, worker_config

REPLAYING = {run for run, algorithm in ALGORITHMS.items() if algorithm.replays}


def transitions(obs: Tensor, a: Tensor, rng: torch.Generator) -> Transitions:
    """Transitions between random observations like `obs` [N, *shape], of which every third terminated."""
    count = len(obs)
    return Transitions(
        obs=obs,
        a=a,
        r=torch.randn(count, generator=rng),
        discount=torch.where(torch.arange(count) % 3 == 0, 0.0, 0.9),
        next_obs=torch.randn(obs.shape, generator=rng),
        weight=torch.rand(count, generator=rng),
        index=np.arange(count),
    )


def shaken(run: str, env: str, **config: Any) -> tuple[UpdateContext, Any]:
    """Networks and targets that are not those that sampled, a batch, and steps that move nothing."""
    plan = worker_config(run=run, env=env, **small(run, grad_clip=0.0, **config))
    subject, rng = make_learner(plan), torch.Generator().manual_seed(1)
    fragment, _ = Worker(plan, 0).sample(subject.weights(0))
    context = subject.context
    for flat in (*context.groups.flats.values(), *context.groups.target_flats.values()):
        flat.vector.data += 0.3 * torch.randn(flat.vector.shape, generator=rng)
    context.apply_updates = False
    if run not in REPLAYING:
        return context, collate([fragment], torch.device("cpu"))
    obs = torch.from_numpy(fragment.obs[:-1]).flatten(0, 1)
    return context, transitions(obs, torch.from_numpy(fragment.a).flatten(0, 1), rng)


ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"]
CLOSED: list[tuple[str, str, dict[str, Any]]] = [
    *(("PPO", env, config) for env in ENVIRONMENTS for config in (
        {},
        {"entropy_coeff": 0.1, "vf_clip": 0.3, "vf_share_layers": True},
        {"entropy_coeff": 0.05, "normalize_advantages": False, "kl_coeff": 0.4, "vf_coeff": 0.7},
        {"recurrent": "lstm", "entropy_coeff": 0.02},
    )),
    *(("DQN", "CartPole-v1", config) for config in ({}, {"dueling": True}, {"double_q": False}, {"noisy": True})),
]  # fmt: skip
AUTOGRAD: list[tuple[str, str, dict[str, Any]]] = [
    ("PG", "CartPole-v1", {"entropy_coeff": 0.1}),
    ("PG", "Pendulum-v1", {}),
    *((run, env, {"vf_share_layers": True}) for run in ("A2C", "IMPALA") for env in ENVIRONMENTS),
    ("A2C", "CartPole-v1", {"recurrent": "gru"}),
    ("APPO", "Acrobot-v1", {"kl_coeff": 0.4}),
    ("APPO", "Pendulum-v1", {"entropy_coeff": 0.1}),
    ("Rainbow", "CartPole-v1", {"num_atoms": 11}),
    ("QRDQN", "CartPole-v1", {"num_quantiles": 7, "dueling": True}),
    ("DDPG", "Pendulum-v1", {}),
    ("TD3", "Pendulum-v1", {"policy_delay": 1}),
    ("SAC", "Pendulum-v1", {}),
    ("SAC", "CartPole-v1", {}),
]


@pytest.mark.parametrize(("run", "env", "config"), [*CLOSED, *AUTOGRAD])
def test_the_gradient_that_is_followed_is_autograds_of_the_loss(
    run: str, env: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the networks' outputs, where a gradient is in closed form, and at every parameter, in any case."""
    context, batch = shaken(run, env, **config)
    minimize, closed_forms, parts = context.minimize, [], set()

    def checked(
        loss: Loss,
        outputs: Any,
        batch: Any,
        *settings: Any,
        grad: LossGrad | None = None,
        part: str = "",
        report: bool = True,
    ) -> Losses:
        arguments, at = (outputs, batch, context.options, *settings), tensors_of(outputs)
        expected = torch.autograd.grad(loss(*arguments)["loss"], at, retain_graph=True)
        if grad is not None:
            closed_forms.append(grad)
            with torch.no_grad():
                for ours, autograds in zip(grad(*arguments), expected, strict=True):
                    torch.testing.assert_close(ours, autograds, rtol=1e-4, atol=1e-7)
        losses = minimize(loss, outputs, batch, *settings, grad=grad, part=part, report=report)
        parts.add(part)
        assert losses["grad_norm"] > 0
        return losses

    monkeypatch.setattr(context, "minimize", checked)
    context.run_update(batch)
    assert parts == set(context.groups.flats)
    assert bool(closed_forms) == ((run, env, config) in CLOSED)


@pytest.mark.parametrize(("run", "env", "config"), [*CLOSED, *AUTOGRAD])
def test_hand_written_layers_and_gradients_change_nothing(run: str, env: str, config: dict[str, Any]) -> None:
    """The same update without the tape and without closed forms leaves the same gradient at every parameter."""
    once = {"epochs": 1, "minibatch_size": 10_000} if run in ("PPO", "APPO") else {}
    found = []
    for by_hand in (True, False):
        context, batch = shaken(run, env, **config, **once)
        if not by_hand:
            forget_closed_forms(context)
            context.tape.recording = nothing_recorded  # type: ignore[method-assign]
        context.run_update(batch)
        found.append({part: flat.gradient.clone() for part, flat in context.groups.flats.items()})
    for part, gradient in found[0].items():
        assert gradient.abs().max() > 0, part
        torch.testing.assert_close(gradient, found[1][part], rtol=1e-4, atol=1e-6)


def forget_closed_forms(context: UpdateContext) -> None:
    minimize = context.minimize

    def plain(*arguments: Any, grad: Any = None, **named: Any) -> Losses:
        return minimize(*arguments, **named)

    context.minimize = plain  # type: ignore[method-assign]


def nothing_recorded() -> Any:
    return torch.enable_grad()


# --- losses against slow transcriptions, with PyTorch's own distributions

N, A = 12, 3


def policies(kind: str, seed: int) -> tuple[Any, torch.distributions.Distribution]:
    """N distributions as ours and as PyTorch's: over A choices, or over A numbers."""
    rng = torch.Generator().manual_seed(seed)
    parameters = torch.randn(N, A if kind == "discrete" else 2 * A, generator=rng)
    if kind == "discrete":
        return Categorical(parameters), torch.distributions.Categorical(logits=parameters)
    mean, log_std = parameters.chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    return DiagonalGaussian(parameters), torch.distributions.Independent(normal, 1)


def samples(kind: str) -> tuple[dict[str, Any], Tensor]:
    """Actions of another policy with all that is known of them, and the values learned."""
    rng = torch.Generator().manual_seed(7)
    old, theirs = policies(kind, 1)
    a = old.sample(rng)
    batch = {"a": a, "logp": theirs.log_prob(a), "old": old}
    batch |= {name: torch.randn(N, generator=rng) for name in ("adv", "target", "v")}
    return batch, torch.randn(N, generator=rng)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("vf_clip", [None, 0.5])
def test_ppos_loss_is_equation_9(kind: str, vf_clip: float | None) -> None:
    batch, v = samples(kind)
    dist, theirs = policies(kind, 2)
    clip, entropy_coeff, kl_coeff, vf_coeff, total = 0.2, 0.03, 0.4, 0.7, 0.0
    kl = torch.distributions.kl_divergence(policies(kind, 1)[1], theirs)
    logp, entropy = theirs.log_prob(batch["a"]), theirs.entropy()
    bounded = 0
    for i in range(N):
        ratio, adv = math.exp(logp[i] - batch["logp"][i]), float(batch["adv"][i])
        surrogate = min(ratio * adv, min(max(ratio, 1 - clip), 1 + clip) * adv)
        bounded += surrogate != ratio * adv
        error = float(v[i] - batch["target"][i]) ** 2
        if vf_clip is not None:
            moved = min(max(float(v[i] - batch["v"][i]), -vf_clip), vf_clip)
            error = max(error, (float(batch["v"][i]) + moved - float(batch["target"][i])) ** 2)
        total += -surrogate + vf_coeff * error / 2 - entropy_coeff * float(entropy[i]) + kl_coeff * float(kl[i])
    assert 0 < bounded < N, "the bound is met, and not everywhere"
    cfg = worker_config(run="PPO", vf_clip=vf_clip, vf_coeff=vf_coeff).options
    losses = ppo.loss((dist, v), batch, cfg, clip, entropy_coeff, kl_coeff)  # type: ignore[arg-type]
    assert losses["loss"].item() == pytest.approx(total / N, rel=1e-5)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_appos_loss_is_the_surrogate_of_the_ratio_to_the_target(kind: str) -> None:
    """pi / max(target, worker / RHO): section 3.1 and eq. 2."""
    batch, v = samples(kind)
    dist, theirs = policies(kind, 2)
    of_target = policies(kind, 3)[1].log_prob(batch["a"])
    batch["share"] = (batch["logp"] - of_target).exp().clamp(max=appo.RHO)
    logp, entropy, total = theirs.log_prob(batch["a"]), theirs.entropy(), 0.0
    for i in range(N):
        worker, target = math.exp(batch["logp"][i]), math.exp(of_target[i])
        ratio, adv = math.exp(logp[i]) / max(target, worker / appo.RHO), float(batch["adv"][i])
        surrogate = min(ratio * adv, min(max(ratio, 0.8), 1.2) * adv)
        total += -surrogate + 0.5 * float(v[i] - batch["target"][i]) ** 2 / 2 - 0.03 * float(entropy[i])
    cfg = worker_config(run="APPO", clip=0.2, vf_coeff=0.5).options
    losses = appo.loss((dist, v), batch, cfg, 0.03, 0.0)  # type: ignore[arg-type]
    assert losses["loss"].item() == pytest.approx(total / N, rel=1e-4)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("module", [a2c, impala])
def test_actor_critic_losses_are_means_over_the_valid_steps(module: Any, kind: str) -> None:
    batch, v = samples(kind)
    dist, theirs = policies(kind, 2)
    valid = torch.arange(N) % 4 != 1
    batch["weight"] = valid / valid.sum()
    logp, entropy, total = theirs.log_prob(batch["a"]), theirs.entropy(), 0.0
    for i in np.flatnonzero(valid.numpy()):
        total += -float(logp[i] * batch["adv"][i]) + 0.7 * float(v[i] - batch["target"][i]) ** 2 / 2
        total -= 0.03 * float(entropy[i])
    cfg = worker_config(run="A2C", vf_coeff=0.7).options
    losses = module.loss((dist, v), batch, cfg, 0.03)
    assert losses["loss"].item() == pytest.approx(total / int(valid.sum()), rel=1e-5)


def test_pgs_loss_is_minus_log_probability_times_advantage() -> None:
    batch, _ = samples("discrete")
    dist, theirs = policies("discrete", 2)
    expected = -(theirs.log_prob(batch["a"]) * batch["adv"]).mean() - 0.1 * theirs.entropy().mean()
    cfg: Any = worker_config(run="PG").options
    torch.testing.assert_close(pg.loss(dist, batch, cfg, 0.1)["loss"], expected)


def replayed(discrete: bool = True) -> Transitions:
    rng = torch.Generator().manual_seed(3)
    a = torch.randint(A, (N,), generator=rng) if discrete else torch.rand(N, 1, generator=rng) * 2 - 1
    return transitions(torch.randn(N, 4, generator=rng), a, rng)


def test_dqns_loss_is_hubers() -> None:
    """error^2 / 2 up to 1, |error| - 1/2 beyond, weighted."""
    x, cfg = replayed(), worker_config(run="DQN").options
    rng = torch.Generator().manual_seed(4)
    q, y = 2 * torch.randn(N, A, generator=rng), torch.randn(N, generator=rng)
    total, sizes = 0.0, []
    for i in range(N):
        error = abs(float(q[i, x.a[i]] - y[i]))
        sizes.append(error)
        total += float(x.weight[i]) * (error**2 / 2 if error <= 1 else error - 0.5)
    assert min(sizes) < 1 < max(sizes)
    losses = dqn.loss(q, x, cfg, y)  # type: ignore[arg-type]
    assert losses["loss"].item() == pytest.approx(total / N, rel=1e-5)
    assert losses["td_error"].item() == pytest.approx(sum(sizes) / N, rel=1e-5)


def test_qr_dqns_loss_is_the_quantile_huber_loss() -> None:
    """Summed over quantiles, averaged over target samples, one by one: eq. 9 and 10 with kappa 1."""
    x, count = replayed(), 4
    rng = torch.Generator().manual_seed(5)
    theta, y = 2 * torch.randn(N, count, generator=rng), torch.randn(N, count, generator=rng)
    total = 0.0
    for n in range(N):
        for i in range(count):
            tau = (2 * (i + 1) - 1) / (2 * count)
            for j in range(count):
                u = float(y[n, j] - theta[n, i])
                size = u**2 / 2 if abs(u) <= 1 else abs(u) - 0.5
                total += float(x.weight[n]) * abs(tau - (u < 0)) * size / count
    cfg: Any = None
    assert qr_dqn.loss(theta, x, cfg, y)["loss"].item() == pytest.approx(total / N, rel=1e-5)


def test_quantile_regression_finds_the_quantiles_of_a_sample() -> None:
    """Of returns uniform on [0, 100], where Huber's rounding of the loss hardly counts: 12.5, 37.5, 62.5, 87.5."""
    y = torch.linspace(0, 100, 401).unsqueeze(0)
    theta = torch.full((1, 4), 50.0, requires_grad=True)
    x, cfg = replace(replayed(), weight=torch.ones(1)), None
    for step in range(4000):
        (gradient,) = torch.autograd.grad(qr_dqn.loss(theta, x, cfg, y)["loss"], theta)  # type: ignore[arg-type]
        theta = (theta - 100 / (1 + step / 20) * gradient).detach().requires_grad_()
    assert theta[0].tolist() == pytest.approx([12.5, 37.5, 62.5, 87.5], abs=0.5)


def test_qr_dqns_target_is_the_next_actions_distribution() -> None:
    context, x = shaken("QRDQN", "CartPole-v1", num_quantiles=5)
    nets, target = context.nets, context.targets[""]
    with torch.no_grad():
        y = qr_dqn.td_target(nets, target, x, context.options)  # type: ignore[arg-type]
        for i in range(len(x.r)):
            means = [float(nets.logits(x.next_obs[i : i + 1])[0, a].mean()) for a in range(2)]
            best = means.index(max(means))
            expected = [float(x.r[i] + x.discount[i] * q) for q in target.logits(x.next_obs[i : i + 1])[0, best]]
            assert y[i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("module", [ddpg, sac])
def test_critics_lose_their_weighted_squared_errors(module: Any) -> None:
    x = replayed(discrete=False)
    rng = torch.Generator().manual_seed(4)
    q, y = torch.randn(2, N, generator=rng), torch.randn(N, generator=rng)
    expected = sum(float(x.weight[i]) * float(q[k, i] - y[i]) ** 2 for k in range(2) for i in range(N)) / N
    assert module.critic_loss(q, x, None, y)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_ddpgs_policy_loses_the_first_critics_value() -> None:
    q = torch.tensor([[1.0, 2.0, 6.0]])
    assert ddpg.policy_loss(q, replayed(discrete=False), None)["loss"].item() == -3.0  # type: ignore[arg-type]


def test_sacs_policy_and_temperature_lose_by_equations_7_and_18() -> None:
    q, logp, alpha = torch.tensor([1.0, 3.0]), torch.tensor([-0.5, 2.0]), torch.tensor(0.2)
    cfg: Any = None
    losses = sac.policy_loss((q, logp), replayed(discrete=False), cfg, alpha)
    assert losses["loss"].item() == pytest.approx(((0.2 * -0.5 - 1) + (0.2 * 2 - 3)) / 2)
    assert losses["entropy"].item() == pytest.approx(-0.75)
    log_alpha = torch.tensor(0.3, requires_grad=True)
    loss = sac.alpha_loss(log_alpha, replayed(discrete=False), cfg, logp, -1.0)["loss"]
    assert loss.item() == pytest.approx(-0.3 * (-1.5 + 1.0) / 2)


@pytest.mark.parametrize("discrete", [False, True])
def test_sacs_values_are_of_the_smaller_critic_in_expectation_over_the_policy(discrete: bool) -> None:
    """Over discrete actions by a sum over all, with probabilities written out; else of one draw."""
    env = "CartPole-v1" if discrete else "Pendulum-v1"
    context, x = shaken("SAC", env)
    nets, rng = context.nets, torch.Generator().manual_seed(5)
    with torch.no_grad():
        dist = nets.policy.act(x.obs)
        q, logp = sac.soft_value(nets.critic, dist, x.obs, rng)
        for i in range(len(x.obs)):
            if discrete:
                p = nets.policy(x.obs)[i].softmax(-1)
                smaller = nets.critic(x.obs)[:, i].min(0).values
                expected = (p * smaller).sum(), (p * p.log()).sum()
            else:
                a, both = drawn_again(dist)
                expected = nets.critic(x.obs, a)[:, i].min(), both[i]
            assert (q[i].item(), logp[i].item()) == pytest.approx(tuple(map(float, expected)), rel=1e-4, abs=1e-5)


def drawn_again(dist: SquashedGaussian) -> tuple[Tensor, Tensor]:
    noise = torch.randn(dist.mean.shape, generator=torch.Generator().manual_seed(5))
    return dist.drawn(noise)


def test_an_algorithm_of_ones_own_is_written_with_a_loss_alone() -> None:
    """Plain gradient ascent on log pi(a) in a file of its own: no closed form, no part, no settings."""

    def loss(dist: Any, batch: Any, options: Any) -> Losses:
        return {"loss": -dist.log_prob(batch).mean()}

    def update(learner: Any, batch: Any, options: Any) -> Losses:
        dist = learner.nets.action_distribution.make(learner.nets(batch.obs[:-1]))
        losses: Losses = learner.minimize(loss, dist, batch.a)
        return losses

    plan = worker_config(run="PG", **small("PG", lr=0.05))
    plan = replace(plan, algorithm=replace(plan.algorithm, update=update))
    subject = make_learner(plan)
    fragment, _ = Worker(plan, 0).sample(subject.weights(0))
    first, *_, last = (subject.update_from_fragments([fragment], 0)["loss"] for _ in range(30))
    assert last < first - 0.05
