"""Several learners take the steps of one, and bfloat16 keeps losses and weights in float32."""

import copy
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import ObjectLostError

from rltrainer.algorithms.ppo import PPO, adapt_kl_coeff
from rltrainer.api.options import OPTIONS
from rltrainer.backend.base import make_learner
from rltrainer.backend.ray import learners as ray_learners
from rltrainer.backend.ray.backend import RayBackend
from rltrainer.backend.ray.cluster import receive
from rltrainer.backend.ray.learners import RayLearners
from rltrainer.backend.serial import SerialBackend
from rltrainer.core.fragment import Fragment
from rltrainer.errors import RunError
from rltrainer.learning.data_parallel import columns, partition_envs, per_learner_options
from rltrainer.sampling.worker import Worker, WorkerConfig
from tests.unit.trainer.helpers import equal, nothing, worker_config

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning:ray",
    "ignore:.*:ResourceWarning",  # Ray leaves sockets of its own processes to the garbage collector
)
SMALL: dict[str, Any] = {"seed": 7, "num_envs_per_worker": 4, "rollout_fragment_length": 16}
REPLAY: dict[str, Any] = {
    **SMALL,
    "timesteps_per_iteration": 200,
    "learning_starts": 64,
    "batch_size": 16,
    "buffer_size": 2000,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all that need it: it takes seconds to begin. It believes in GPUs, which no node here has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


def fragments(plan: WorkerConfig, count: int, times: int = 1) -> list[list[Fragment]]:
    """What `count` workers sample with the first weights, `times` in a row."""
    workers, weights = [Worker(plan, i) for i in range(count)], make_learner(plan).weights(0)
    return [[copy.deepcopy(worker.sample(weights)[0]) for worker in workers] for _ in range(times)]


@pytest.mark.parametrize(("count", "width", "size"), [(4, 8, 2), (3, 4, 2), (5, 3, 4), (1, 4, 3), (1, 1, 2), (6, 1, 3)])
def test_a_batch_is_dealt_out_evenly_and_completely(count: int, width: int, size: int) -> None:
    parts = partition_envs(count, width, size)
    seen = [k * width + b for part in parts for k, where in part for b in range(width)[where]]
    assert seen == list(range(count * width))
    sizes = [sum(len(range(width)[where]) for _, where in part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(parts), "even a share of nothing has arrays of the right shape"
    if count % size == 0:
        assert all(where == slice(0, width) for part in parts for _, where in part)


def test_columns_of_a_fragment_are_views() -> None:
    ((fragment,),) = fragments(worker_config(**SMALL, recurrent="lstm"), 1)
    part = columns(fragment, slice(1, 3))
    assert np.array_equal(part.obs, fragment.obs[:, 1:3])
    assert np.shares_memory(part.obs, fragment.obs)
    assert part.state.keys() == {"h", "c"}
    assert np.array_equal(part.state["h"], fragment.state["h"][1:3])
    assert columns(fragment, slice(0, 4)) is fragment


def test_a_learners_share_of_the_options() -> None:
    plan = worker_config(run="DQN", **{**REPLAY, "batch_size": 33}, num_workers=4)
    options = per_learner_options(plan.options, 2)
    assert (options.batch_size, options.buffer_size, options.num_workers) == (17, 1000, 2)  # type: ignore[attr-defined]
    assert options.num_envs_per_worker == plan.options.num_envs_per_worker


@pytest.mark.parametrize(("learners", "workers"), [(1, 0), (2, 3), (4, 2)])
def test_learners_that_do_not_divide_the_workers_are_refused(learners: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"num_learners {learners} does not divide num_workers {workers}"):
        OPTIONS["PPO"](num_learners=learners, num_workers=workers)


class Group:
    """Learners as actors, fed by hand. The processes stay, and are given one plan after the other."""

    def __init__(self) -> None:
        plan = worker_config(**SMALL, num_workers=2, num_learners=2)
        self.learners, self.lost = RayLearners(plan, ray.put(plan), nothing), False

    def begin(self, plan: WorkerConfig) -> "Group":
        """The same processes, or new ones if a test has lost them, with new learners."""
        if self.lost:
            self.learners.close()
            self.__init__()  # type: ignore[misc]

        def renew(actor: Any) -> None:
            actor.learner = make_learner(plan, actor.learner.device, actor.learner.peers)

        self.learners.worker_config = plan
        self.on_each(renew)
        return self

    def update_from_fragments(self, given: Sequence[Fragment], timesteps: int = 0) -> dict[str, float]:
        return self.learners.update_from_fragments([ray.put(each) for each in given], timesteps)

    def everyones(self, what: str) -> list[Any]:
        """What each learner's method of that name returns."""
        return self.on_each(lambda actor: getattr(actor.learner, what)())

    def on_each(self, call: Callable[[Any], Any]) -> list[Any]:
        """What `call` returns for each learner's actor, run in its process."""
        found: list[Any] = ray.get([actor.__ray_call__.remote(call) for actor in self.learners.actors])
        return found


@pytest.fixture(scope="module")
def pair(cluster: None) -> Iterator[Group]:
    """Two learners' processes."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    both = Group()
    yield both
    both.learners.close()


@pytest.fixture
def group(pair: Group) -> Callable[[WorkerConfig], Group]:
    """Two learners of a plan."""
    return pair.begin


def in_step(group: Group) -> bool:
    """Whether all learners have the same networks, bit by bit, and the same targets, counters and state of the
    optimisers."""
    policies, states = group.everyones("policy"), group.everyones("state")
    common = [{name: state[name] for name in ("optimizer", "targets", "rewards")} for state in states]
    for rank, state in enumerate(states):
        common[rank]["counters"] = state["memory"][str(rank)]
    return all(equal(policies[0], each) for each in policies) and all(equal(common[0], each) for each in common)


@pytest.mark.parametrize(
    ("run", "extra", "count"),
    [
        ("A2C", {"normalize_observations": True, "normalize_rewards": True}, 2),
        ("IMPALA", {"normalize_observations": True}, 3),
        ("IMPALA", {"recurrent": "gru"}, 2),
    ],
)
def test_two_learners_take_the_steps_of_one(group: Any, run: str, extra: dict[str, Any], count: int) -> None:
    plan = worker_config(run=run, **SMALL, **extra, num_workers=2, num_learners=2)
    one, two, rounds = make_learner(plan), group(plan), fragments(plan, count, 3)
    for given in rounds:
        alone, together = one.update_from_fragments(given, 0), two.update_from_fragments(given)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)
    assert in_step(two)
    policy, first = one.policy(), make_learner(plan).policy()
    moved = max(float((policy[name] - first[name]).abs().max()) for name in policy)
    for name, value in two.everyones("policy")[0].items():
        torch.testing.assert_close(value, policy[name], atol=1e-3 * moved, rtol=1e-5)


CASES = [
    ("PPO", {"epochs": 3, "minibatch_size": 16, "normalize_observations": True, "normalize_rewards": True}),
    ("PPO", {"epochs": 8, "minibatch_size": 16, "lr": 0.02, "kl_stop": 0.005, "kl_coeff": 0.2}),
    ("PPO", {"epochs": 2, "minibatch_size": 16, "recurrent": "lstm"}),
    ("APPO", {"minibatch_size": 16, "epochs": 2}),
    ("PG", {}),
    ("DQN", {"prioritized": True, "normalize_observations": True}),
    ("Rainbow", {}),
]


@pytest.mark.parametrize(("run", "extra"), CASES)
def test_all_learners_stay_equal(group: Any, run: str, extra: dict[str, Any]) -> None:
    base = REPLAY if run in ("DQN", "Rainbow") else SMALL
    plan = worker_config(run=run, **base, **extra, num_workers=2, num_learners=2)
    two, rounds = group(plan), fragments(plan, 2, 3)
    before = two.everyones("policy")[0]
    for i, given in enumerate(rounds):
        metrics = two.update_from_fragments(given, i * 128)
        assert np.isfinite(list(metrics.values())).all()
    assert in_step(two)
    assert not equal(before, two.everyones("policy")[0])


def test_all_learners_stay_equal_with_several_optimisers(group: Any) -> None:
    plan = worker_config("Pendulum-v1", "SAC", **{**REPLAY, "hiddens": [16]}, num_workers=2, num_learners=2)
    two = group(plan)
    for i, given in enumerate(fragments(plan, 2, 2)):
        metrics = two.update_from_fragments(given, i * 128)
    assert metrics["replay_size"] == 256, "that of both"
    assert two.everyones("state")[0]["memory"]["0"]["updates"] == 256
    assert in_step(two)


@pytest.mark.parametrize("kept", [40, 0])
def test_learners_with_unequal_numbers_of_minibatches_do_not_hang(group: Any, kept: int) -> None:
    """One has 64 valid steps, and so four minibatches an epoch; the other has fewer, or none at all."""
    plan = worker_config(**SMALL, epochs=3, minibatch_size=32, num_workers=2, num_learners=2)
    ((first, second),) = fragments(plan, 2)
    second.valid.reshape(-1)[kept:] = False
    two = group(plan)
    metrics = two.update_from_fragments([first, second])
    assert np.isfinite(metrics["loss"])
    assert in_step(two)
    steps = [state["optimizer"]["nets"]["step"].item() for state in two.everyones("state")]
    assert steps == [12, 12], "all take as many as the one that has most"


@pytest.mark.parametrize("kept", [20, 0])
@pytest.mark.parametrize("run", ["APPO", "PPO"])
def test_learners_with_unequal_numbers_of_minibatches_decide_the_same(group: Any, run: str, kept: int) -> None:
    """When targets move, and how the KL penalty is adapted: from the samples of both, four minibatches and fewer."""
    settings: Any = {"epochs": 2, "minibatch_size": 32, "lr": 0.003, "kl_coeff": 0.5, "kl_target": 0.002}
    targets: Any = {"target_update_freq": 3} if run == "APPO" else {}
    plan = worker_config(run=run, **SMALL, **settings, **targets, num_workers=2, num_learners=2)
    two, coefficients = group(plan), []
    for i, (first, second) in enumerate(fragments(plan, 2, 4)):
        second.valid.reshape(-1)[kept:] = False
        two.update_from_fragments([first, second], i * 128)
        assert in_step(two)
        coefficients.append(two.everyones("state")[1]["memory"]["1"]["kl_coeff"])
    assert len(set(coefficients)) > 1, "it was adapted"
    if run == "APPO":
        targets_now, policy = two.everyones("state")[1]["targets"]["nets"], two.everyones("policy")[1]
        first_policy = make_learner(plan).policy()
        assert not equal(targets_now, first_policy), "the target has moved"
        assert not equal(targets_now, policy)


def test_the_kl_penalty_is_adapted_to_the_divergence_over_all_samples(group: Any) -> None:
    """0.4 over 10 samples and 0.1 over 30 are 0.175 over all 40: less than 1.5 times the target, as 0.4 is not."""
    plan = worker_config(**SMALL, kl_coeff=0.2, kl_target=0.12, num_workers=2, num_learners=2)

    def adapt(actor: Any) -> float:
        context = actor.learner.context
        steps, kl = ((10, 0.4), (30, 0.1))[context.rank]
        context.counters["kl_coeff"] = 0.2
        adapt_kl_coeff(context, kl, context.options)
        actor.learner._update = lambda batch: {}
        actor.learner._update_with_peers(context.peers, None, steps)
        return float(context.counters["kl_coeff"])

    assert group(plan).on_each(adapt) == [0.2, 0.2]


def test_a_group_goes_on_from_its_checkpoint(group: Any) -> None:
    plan = worker_config(run="DQN", **REPLAY, prioritized=True, num_workers=2, num_learners=2)
    two, rounds = group(plan), fragments(plan, 2, 4)
    for i, given in enumerate(rounds[:2]):
        two.update_from_fragments(given, i * 128)
    tree = copy.deepcopy(two.learners.state())
    assert tree["learner"]["rng"].keys() == tree["learner"]["memory"].keys() == tree["replay"].keys() == {"0", "1"}
    assert not torch.equal(tree["learner"]["rng"]["0"], tree["learner"]["rng"]["1"])
    straight = [two.update_from_fragments(given, 256 + i * 128) for i, given in enumerate(rounds[2:])]
    end = copy.deepcopy(two.learners.state())
    again = group(plan)
    assert not equal(again.everyones("policy")[0], end["policy"])
    again.learners.load(tree)
    assert [again.update_from_fragments(given, 256 + i * 128) for i, given in enumerate(rounds[2:])] == straight
    assert equal(again.learners.state(), end)


def test_one_learner_goes_on_from_two(group: Any) -> None:
    plan = worker_config(**SMALL, num_workers=2, num_learners=2)
    two, rounds = group(plan), fragments(plan, 2)
    two.update_from_fragments(rounds[0])
    tree, one = two.learners.state(), make_learner(plan)
    one.load(tree["policy"], tree["learner"])
    assert equal(one.policy(), tree["policy"])


def test_a_learner_does_not_wait_for_another_without_end(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrainer.backend.ray.learners.TIMEOUT", 1.0)
    two = Group()
    (given,) = fragments(two.learners.worker_config, 2)
    with pytest.raises(RunError, match="learner 0 has lost touch with the others"):
        receive(two.learners.actors[0].update_from_fragments.remote(0, [(ray.put(given[0]), slice(0, 4))]))
    two.learners.close()


def test_a_lost_fragment_leaves_all_learners_as_they_were(group: Any, caplog: pytest.LogCaptureFixture) -> None:
    plan = worker_config(**SMALL, num_workers=2, num_learners=2)
    two, (given,) = group(plan), fragments(plan, 2)
    before = two.everyones("policy")

    def gone(references: Any) -> None:
        raise ObjectLostError("00", None, "")

    def lose(actor: Any) -> None:
        if actor.learner.context.rank == 1:
            vars(ray_learners)["ray"] = SimpleNamespace(get=gone)

    two.on_each(lose)
    try:
        assert two.update_from_fragments(given) == {}
    finally:
        two.on_each(lambda actor: setattr(ray_learners, "ray", ray))
    assert "a fragment was lost" in caplog.text
    assert equal(before, two.everyones("policy"))
    assert two.update_from_fragments(given)
    assert in_step(two)


def test_a_lost_learner_ends_the_attempt(group: Any) -> None:
    plan = worker_config(**SMALL, num_workers=2, num_learners=2)
    two, (given,) = group(plan), fragments(plan, 2)
    two.update_from_fragments(given)
    two.lost = True
    os.kill(ray.get(two.learners.actors[1].__ray_call__.remote(lambda actor: os.getpid())), signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(RunError) as caught:
        two.update_from_fragments(given)
    assert caught.value.reason == "LearnerLost"
    assert not caught.value.permanent
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("run", "extra"),
    [
        ("DQN", {"num_gpus": 1}),
        ("A3C", {"num_gpus": 1}),
        ("IMPALA", {"num_workers": 2, "num_learners": 2, "num_gpus": 1, "train_batch_size": 64}),
        ("ApexDQN", {"num_workers": 2, "num_learners": 2}),
    ],
)
def test_a_run_with_learners_as_actors(cluster: None, run: str, extra: dict[str, Any]) -> None:
    base = REPLAY if "DQN" in run else SMALL
    plan = worker_config(run=run, **{**base, "num_workers": 1, "timesteps_per_iteration": 200, **extra})
    backend = RayBackend(plan, nothing)
    done = list(islice(plan.algorithm.strategy(backend, plan.options, 0), 2))
    assert all(each.timesteps >= 200 for each in done)
    assert done[-1].metrics
    assert np.isfinite(list(done[-1].metrics.values())).all()
    tree = copy.deepcopy(backend.state(workers=True))
    assert len(tree["workers"]) == backend.num_workers
    assert not equal(tree["policy"], make_learner(plan).policy())
    backend.load(tree, 1)
    assert equal(backend.state(workers=False)["policy"], tree["policy"])
    backend.close()


PRECISE = [
    ("CartPole-v1", "PPO", {"minibatch_size": 16}),
    ("CartPole-v1", "A2C", {"recurrent": "lstm"}),
    ("CartPole-v1", "IMPALA", {"recurrent": "gru", "normalize_observations": True}),
    ("CartPole-v1", "DQN", {}),
    ("CartPole-v1", "Rainbow", {}),
    ("Pendulum-v1", "PPO", {}),
    ("Pendulum-v1", "SAC", {"hiddens": [16]}),
    ("Pendulum-v1", "TD3", {"hiddens": [16]}),
]


@pytest.mark.parametrize(("env", "run", "extra"), PRECISE)
def test_bfloat16_learns_nearly_what_float32_does(env: str, run: str, extra: dict[str, Any]) -> None:
    base = REPLAY if run in ("DQN", "Rainbow", "SAC", "TD3") else SMALL
    learned = []
    for precision in ("float32", "bfloat16"):
        plan = worker_config(env, run, **{**base, **extra}, precision=precision)
        backend = SerialBackend(plan, nothing)
        done = list(islice(plan.algorithm.strategy(backend, plan.options, 0), 2))
        assert np.isfinite(list(done[-1].metrics.values())).all()
        tree = backend.state(workers=False)
        assert {value.dtype for value in tree["policy"].values()} <= {torch.float32, torch.float64}
        learned.append(backend.learner.context.groups.flats[plan.algorithm.acts].vector.detach())
    exact, rough = learned
    first = make_learner(plan).context.groups.flats[plan.algorithm.acts].vector.detach()
    assert not torch.equal(exact, rough), "the option does something"
    assert (rough - exact).norm() < (exact - first).norm(), "and it is nearer to float32 than to where both began"


def test_in_bfloat16_outputs_are_float32_and_no_step_is_missed() -> None:
    """The products within are in bfloat16. After a step of the optimiser the same observations have another value."""
    seen: list[torch.dtype] = []
    values: list[torch.Tensor] = []

    def update(learner: Any, batch: Any, cfg: Any) -> dict[str, torch.Tensor]:
        learner.nets.policy_body[1].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
        for _ in range(2):
            parameters, v = learner.nets(batch.obs)
            values.append(v.detach())
            assert parameters.dtype == v.dtype == torch.float32
            learner.minimize(lambda v, batch, options: {"loss": v.square().mean() + 1}, v, batch)
        return {}

    plan = worker_config(**SMALL, lr=0.1, precision="bfloat16")
    plan = replace(plan, algorithm=replace(PPO, update=update))
    make_learner(plan).update_from_fragments(fragments(plan, 1)[0], 0)
    assert set(seen) == {torch.bfloat16}
    assert not torch.equal(*values)
