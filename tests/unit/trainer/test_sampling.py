"""What a worker writes down: ends of episodes, steps that do not count, and faults."""

import copy
import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rltrainer.algorithms.on_policy import evaluate
from rltrainer.api.options import PPOOptions
from rltrainer.backend.base import make_learner, start_worker
from rltrainer.core.fragment import Fragment, collate
from rltrainer.core.types import EpisodeReport
from rltrainer.envs import observations
from rltrainer.envs.source import EnvSource
from rltrainer.envs.vectorize import SubprocessVectorEnv
from rltrainer.errors import RunError
from rltrainer.sampling.worker import Worker, WorkerConfig
from tests.unit.trainer.helpers import TOYS, worker_config

CPU = torch.device("cpu")
EVERY_WAY = pytest.mark.parametrize("how", ["sync", "subprocess"])


def fragments_of(plan: WorkerConfig, times: int) -> tuple[list[Fragment], list[EpisodeReport]]:
    """So many fragments of a worker, one after the other."""
    worker, weights = Worker(plan, 0), make_learner(plan).weights(0)
    sampled = [copy.deepcopy(worker.sample(weights)) for _ in range(times)]
    worker.envs.close()
    return [fragment for fragment, _ in sampled], [report for _, report in sampled]


def countdown(end: str = "truncated", steps: int = 8, envs: int = 2, length: int = 3, **config: Any) -> WorkerConfig:
    """Episodes of `length` steps that pay 1 each and end by `end`. An observation is the number of steps so far."""
    return worker_config(
        TOYS + "Countdown",
        env_config={"length": length, "end": end},
        rollout_fragment_length=steps,
        num_envs_per_worker=envs,
        **config,
    )


def test_a_truncated_episode_keeps_the_observation_it_ended_in() -> None:
    (fragment,), (report,) = fragments_of(countdown(), 1)
    assert fragment.obs[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert fragment.truncated[:, 0].tolist() == [False, False, True, False, False, False, True, False]
    assert not fragment.terminated.any()
    assert fragment.valid[:, 0].tolist() == [True, True, True, False, True, True, True, False]
    assert fragment.r[:, 0].tolist() == [1, 1, 1, 0, 1, 1, 1, 0]
    assert report == EpisodeReport(timesteps=12, returns=[3.0] * 4, lengths=[3] * 4)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"v_max": 1.7}, ["v_max: 1.7"]),
        ({"v_max": 1.8}, []),  # 1 + 0.5 + 0.25 = 1.75 is within
        ({"v_min": 1.8, "v_max": 9}, ["v_min: 1.8"]),
        ({"v_min": -9}, []),
        ({"v_max": 1.7, "num_atoms": 1}, []),  # the mean alone has no bounds
    ],
)
def test_returns_that_a_distribution_cannot_hold_are_told_once(
    bounds: dict[str, Any], told: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes lie across fragments, and every worker sees them."""
    monkeypatch.setattr(observations, "_warned", set())
    plan = countdown(run="Rainbow", steps=2, gamma=0.5, **{"num_atoms": 11, **bounds})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            fragments_of(plan, 8)
    messages = [record.getMessage() for record in caplog.records]
    assert ["returned 1.75, discounted" in each for each in messages] == [True] * len(told)
    assert all(words in message for words, message in zip(told, messages, strict=True))


def test_a_terminated_episode_is_not_a_truncated_one() -> None:
    (fragment,), _ = fragments_of(countdown(end="terminated"), 1)
    assert fragment.terminated[:, 0].tolist() == [False, False, True, False, False, False, True, False]
    assert not fragment.truncated.any()


def targets(plan: WorkerConfig, gamma: float) -> list[float]:
    """Targets of the valid steps where the value of an observation is the observation itself, and lambda is 0."""

    class Known(torch.nn.Module):
        def forward(self, obs: torch.Tensor, *memory: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(*obs.shape[:-1], 2), obs[..., 0]

    cfg = PPOOptions.model_validate({"gamma": gamma, "lambda": 0.0})
    columns = evaluate(Known(), collate(fragments_of(plan, 1)[0], CPU), cfg)  # type: ignore[arg-type]
    td_targets: list[float] = columns["target"].tolist()
    return td_targets


def test_truncation_bootstraps_from_the_last_observation_and_termination_does_not() -> None:
    """With lambda 0 the target is r + gamma v(next): 1 + .5 * (1, 2, then 3 if cut and 0 if over), and again."""
    assert targets(countdown(steps=6, envs=1), 0.5) == [1.5, 2.0, 2.5, 1.5, 2.0]
    assert targets(countdown(end="terminated", steps=6, envs=1), 0.5) == [1.5, 2.0, 1.0, 1.5, 2.0]


def test_the_last_step_of_a_fragment_bootstraps_from_the_observation_after_it() -> None:
    assert targets(countdown(steps=2, envs=1), 0.5) == [1.5, 2.0]


def test_a_step_that_only_begins_an_episode_does_not_count() -> None:
    fragments, reports = fragments_of(countdown(steps=5, envs=1), 2)
    assert fragments[0].obs[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert fragments[0].valid[:, 0].tolist() == [True, True, True, False, True]
    assert reports[0] == EpisodeReport(timesteps=4, returns=[3.0], lengths=[3])
    # the second fragment begins with the last observation of the first: 1, 2, 3 = cut, begun anew at 0, 1, 2
    assert fragments[1].obs[:, 0, 0].tolist() == [1, 2, 3, 0, 1, 2]
    assert fragments[1].valid[:, 0].tolist() == [True, True, False, True, True]
    assert reports[1] == EpisodeReport(timesteps=4, returns=[3.0], lengths=[3])


def test_a_beginning_at_the_border_of_two_fragments_does_not_count() -> None:
    fragments, _ = fragments_of(countdown(end="terminated", steps=3, envs=1), 2)
    assert fragments[0].valid[:, 0].tolist() == [True, True, True]
    assert fragments[1].valid[:, 0].tolist() == [False, True, True]


def test_returns_go_on_across_fragments() -> None:
    """Episodes of 7 steps and one that only begins the next: they end in steps 7, 15 and so on, counted from 1."""
    _, reports = fragments_of(countdown(length=7, steps=3), 5)
    assert [report.returns for report in reports] == [[], [], [7.0, 7.0], [], [7.0, 7.0]]
    assert [report.lengths for report in reports] == [[], [], [7, 7], [], [7, 7]]


class SameStep(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Countdowns of the other convention: the observation that ends an episode is not where it belongs."""

    def __new__(cls, num_envs: int) -> Any:
        from tests.unit.trainer.toy_envs import Countdown

        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        return gymnasium.vector.SyncVectorEnv([Countdown] * num_envs, autoreset_mode=mode)


def test_a_vector_that_hides_the_ends_of_episodes_is_refused() -> None:
    with pytest.raises(RunError, match="SameStep is a vector of autoreset_mode SameStep, which hides") as caught:
        EnvSource(__name__ + ":SameStep").spaces()
    assert caught.value.permanent


@EVERY_WAY
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "ZeroDivisionError: the simulator fell over"),
        ("exit", r"it called sys.exit\(0\)"),
        ("obs", "an observation of environment 0 is NaN, infinite or beyond single precision"),
        ("reward", "a reward of environment 0 is NaN, infinite or beyond single precision"),
        ("shape", r"observation has shape \(2,\), where its space says \(1,\)"),
        ("scalar", r"observation has shape \(\), where its space says \(1,\)"),
    ],
)
def test_a_fault_names_environment_worker_step_and_seed(fault: str, message: str, how: str) -> None:
    plan = worker_config(
        TOYS + "Faulty",
        env_config={"fault": fault},
        rollout_fragment_length=4,
        num_envs_per_worker=1,
        seed=3,
        vector_env=how,
    )
    worker, weights = Worker(plan, 2), make_learner(plan).weights(0)
    worker.sample(weights)
    with pytest.raises(RunError, match=message) as caught:
        worker.sample(weights)
    assert "Faulty" in caught.value.message
    assert f"worker 2, step 4, seed {worker.env_seeds[0]}" in caught.value.message
    assert caught.value.reason == "EnvironmentFailed"
    assert caught.value.exit_code == 1, "in mid-training another attempt may succeed"
    worker.envs.close()


def test_what_an_environment_raised_elsewhere_comes_with_its_traceback() -> None:
    plan = worker_config(TOYS + "Faulty", rollout_fragment_length=8, num_envs_per_worker=2, vector_env="subprocess")
    worker = Worker(plan, 0)
    with pytest.raises(RunError) as caught:
        worker.sample(make_learner(plan).weights(0))
    assert "toy_envs.py" in caught.value.message
    assert isinstance(worker.envs, SubprocessVectorEnv)
    assert not any(process.is_alive() for process in worker.envs.processes)


def test_a_process_that_ends_is_named() -> None:
    plan = worker_config(TOYS + "Dies", num_envs_per_worker=1, vector_env="subprocess")
    worker = Worker(plan, 0)
    with pytest.raises(RunError, match=r"Dies: the process of environment 0 ended with exit code 1"):
        worker.sample(make_learner(plan).weights(0))
    worker.envs.close()


@EVERY_WAY
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "observation has ['where'], where its space says ['where', 'who']"),
        ("shape", "observation.where.0 has shape (3,), where its space says (2,)"),
        ("value", "observation.who is 5, which is not in Discrete(3)"),
        ("tuple", "observation.where is a tuple of 1, where its space says a tuple of 2"),
    ],
)
def test_a_part_that_is_not_as_its_space_says_is_named(fault: str, message: str, how: str) -> None:
    plan = worker_config(TOYS + "Parts", env_config={"fault": fault}, num_envs_per_worker=1, vector_env=how)
    worker = Worker(plan, 0)
    with pytest.raises(RunError) as caught:
        worker.sample(make_learner(plan).weights(0))
    assert f": {message} (worker 0, step 0" in caught.value.message
    worker.envs.close()


def test_two_seeded_workers_see_the_same_and_two_indices_do_not() -> None:
    plan = worker_config(num_envs_per_worker=2, rollout_fragment_length=50, seed=5)
    weights = make_learner(plan).weights(0)
    first, again, other = (Worker(plan, index).sample(weights)[0] for index in (0, 0, 1))
    assert np.array_equal(first.obs, again.obs)
    assert np.array_equal(first.a, again.a)
    assert not np.array_equal(first.obs, other.obs)


def test_two_generations_of_a_worker_differ() -> None:
    plan = worker_config(num_envs_per_worker=2, rollout_fragment_length=20, seed=5)
    weights = make_learner(plan).weights(0)
    first, second = (Worker(plan, 0, generation).sample(weights)[0] for generation in (0, 1))
    assert not np.array_equal(first.obs, second.obs)


@pytest.mark.parametrize("env", ["Pendulum-v1", "Acrobot-v1", TOYS + "Identity", TOYS + "Parts"])
def test_every_way_of_stepping_gives_the_same_fragments(env: str) -> None:
    fragments = []
    for how in ("sync", "subprocess", "auto"):
        plan = worker_config(env, num_envs_per_worker=3, rollout_fragment_length=220, seed=5, vector_env=how)
        fragments += fragments_of(plan, 1)[0]
    for name in ("obs", "a", "r", "terminated", "truncated", "valid"):
        assert np.array_equal(getattr(fragments[0], name), getattr(fragments[1], name)), name
        assert np.array_equal(getattr(fragments[0], name), getattr(fragments[2], name)), name
    assert not np.array_equal(fragments[0].obs[:, 0], fragments[0].obs[:, 1])


@pytest.mark.parametrize(("before", "after"), [("sync", "subprocess"), ("subprocess", "sync")])
@pytest.mark.parametrize("length", [30, 31])
def test_a_worker_goes_on_where_one_of_the_other_way_was_saved(before: str, after: str, length: int) -> None:
    """Also after the last step of an episode, of 30 steps, when the next step is only to begin another."""
    continued = []
    for hows in ((before, before), (before, after)):
        plans = [
            worker_config(
                "Pendulum-v1",
                env_config={"max_episode_steps": 30},
                num_envs_per_worker=2,
                rollout_fragment_length=length,
                vector_env=how,
            )
            for how in hows
        ]
        weights = make_learner(plans[0]).weights(0)
        saved, restored = Worker(plans[0], 0), Worker(plans[1], 0, generation=1)
        saved.sample(weights)
        restored.load(saved.state())
        continued.append(copy.deepcopy(restored.sample(weights)[0]))
        straight = copy.deepcopy(saved.sample(weights)[0])
        for name in ("obs", "a", "r", "truncated", "valid"):
            assert np.array_equal(getattr(straight, name), getattr(continued[-1], name)), name
        for worker in (saved, restored):
            worker.envs.close()
    assert np.array_equal(continued[0].obs, continued[1].obs)


def frozen(state: Any) -> Any:
    """A worker's state as it comes through Ray's object store, whose arrays are read-only."""
    if isinstance(state, dict):
        return {name: frozen(value) for name, value in state.items()}
    if isinstance(state, np.ndarray):
        state = state.copy()
        state.flags.writeable = False
    return state


@pytest.mark.parametrize(("env", "config"), [("CartPole-v1", {"normalize_rewards": True}), (TOYS + "Drift", {})])
def test_a_worker_goes_on_from_a_state_that_is_read_only_and_leaves_it_as_it_is(env: str, config: Any) -> None:
    """What it works on in place, and what its environments do, are copies."""
    plan = worker_config(env, **config)
    straight, weights = Worker(plan, 0), make_learner(plan).weights(0)
    straight.sample(weights)
    state = copy.deepcopy(straight.state())
    expected, _ = straight.sample(weights)
    again = start_worker(plan, 0, frozen(state), 0)
    assert np.array_equal(again.sample(weights)[0].obs, expected.obs)
    kept = copy.deepcopy(state)
    start_worker(plan, 0, state, 0).sample(weights)
    np.testing.assert_equal(state["envs"], kept["envs"])
