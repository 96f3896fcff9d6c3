"""What a worker writes down: ends of episodes, final observations, steps that do not count, and faults."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rltrainer.algorithms.actor_critic import evaluate
from rltrainer.envs import EnvSource
from rltrainer.errors import RunError
from rltrainer.fragment import Fragment, collate
from rltrainer.options import PPOOptions
from rltrainer.sampling import Report, Worker
from tests.unit.trainer.helpers import TOYS, blueprint, learner

CPU = torch.device("cpu")


def countdown(end: str = "truncated", steps: int = 8, envs: int = 2, **config: Any) -> tuple[Fragment, Report]:
    plan = blueprint(
        TOYS + "Countdown",
        env_config={"length": 3, "end": end},
        rollout_fragment_length=steps,
        num_envs_per_worker=envs,
        **config,
    )
    return Worker(plan, 0).sample(learner(plan).weights())


def test_a_truncated_episode_keeps_the_observation_it_ended_in() -> None:
    fragment, report = countdown()
    assert fragment.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert fragment.truncated[:, 0].tolist() == [False, False, True, False, False, True, False, False]
    assert not fragment.terminated.any()
    assert fragment.valid.all()
    assert fragment.final_at.tolist() == [[2, 0], [2, 1], [5, 0], [5, 1]]
    assert fragment.final_obs[:, 0].tolist() == [3, 3, 3, 3]
    assert report == Report(timesteps=16, returns=[3.0] * 4, lengths=[3] * 4)


def test_a_terminated_episode_needs_no_final_observation() -> None:
    fragment, _ = countdown(end="terminated")
    assert fragment.terminated[:, 0].tolist() == [False, False, True, False, False, True, False, False]
    assert not fragment.truncated.any()
    assert len(fragment.final_at) == 0


def values_of(fragment: Fragment, gamma: float) -> dict[str, torch.Tensor]:
    """Advantages and targets where the value of an observation is the observation itself."""

    class Known(torch.nn.Module):
        def value(self, obs: torch.Tensor) -> torch.Tensor:
            return obs[..., 0]

        def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(*obs.shape[:-1], 2), obs[..., 0]

    cfg = PPOOptions.model_validate({"gamma": gamma, "lambda": 0.0})
    return evaluate(Known(), collate([fragment], CPU), cfg)  # type: ignore[arg-type]


def test_truncation_bootstraps_from_the_final_observation_and_termination_does_not() -> None:
    """With lambda 0 the target is r + gamma v(next): 1 + .5 * (1, 2, then 3 if cut and 0 if over)."""
    cut = values_of(countdown(steps=3, envs=1)[0], 0.5)["target"]
    over = values_of(countdown(end="terminated", steps=3, envs=1)[0], 0.5)["target"]
    assert cut.tolist() == [1.5, 2.0, 2.5]
    assert over.tolist() == [1.5, 2.0, 1.0]


def test_the_last_step_of_a_fragment_bootstraps_from_the_observation_after_it() -> None:
    assert values_of(countdown(steps=2, envs=1)[0], 0.5)["target"].tolist() == [1.5, 2.0]


class LateReset(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Countdowns that begin their next episode with the step after, as Gymnasium's own vectors do."""

    def __new__(cls, num_envs: int, length: int, end: str) -> Any:
        from tests.unit.trainer.toy_envs import Countdown

        return gymnasium.vector.SyncVectorEnv(
            [lambda: Countdown(length, end)] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP
        )


def late(end: str, steps: int) -> tuple[list[Fragment], list[Report]]:
    plan = blueprint(
        __name__ + ":LateReset",
        env_config={"length": 3, "end": end},
        rollout_fragment_length=steps,
        num_envs_per_worker=1,
    )
    worker, weights = Worker(plan, 0), learner(plan).weights()
    fragments, reports = [], []
    for _ in range(2):
        fragment, report = worker.sample(weights)
        fragments.append(copy.deepcopy(fragment))
        reports.append(report)
    return fragments, reports


def test_a_step_that_only_resets_does_not_count() -> None:
    fragments, reports = late("truncated", 5)
    assert fragments[0].obs[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert fragments[0].valid[:, 0].tolist() == [True, True, True, False, True]
    assert len(fragments[0].final_at) == 0
    assert reports[0] == Report(timesteps=4, returns=[3.0], lengths=[3])
    # the second fragment begins with the last observation of the first: 1, 2, 3 = cut, reset to 0, 1, 2
    assert fragments[1].obs[:, 0, 0].tolist() == [1, 2, 3, 0, 1, 2]
    assert fragments[1].valid[:, 0].tolist() == [True, True, False, True, True]
    assert reports[1] == Report(timesteps=4, returns=[3.0], lengths=[3])


def test_a_reset_at_the_border_of_two_fragments_does_not_count() -> None:
    fragments, _ = late("terminated", 3)
    assert fragments[0].valid[:, 0].tolist() == [True, True, True]
    assert fragments[1].valid[:, 0].tolist() == [False, True, True]


def test_both_kinds_of_reset_give_the_same_targets() -> None:
    for end in ("truncated", "terminated"):
        late_targets = values_of(late(end, 7)[0][0], 0.5)["target"]
        same_targets = values_of(countdown(end, steps=6, envs=1)[0], 0.5)["target"]
        assert late_targets.tolist() == same_targets.tolist()


def test_returns_go_on_across_fragments() -> None:
    plan = blueprint(TOYS + "Countdown", env_config={"length": 7}, rollout_fragment_length=3, num_envs_per_worker=2)
    worker, weights = Worker(plan, 0), learner(plan).weights()
    reports = [worker.sample(weights)[1] for _ in range(5)]
    assert [report.returns for report in reports] == [[], [], [7.0, 7.0], [], [7.0, 7.0]]
    assert [report.lengths for report in reports] == [[], [], [7, 7], [], [7, 7]]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "ZeroDivisionError: the simulator fell over"),
        ("obs", "an observation of environment 0 is NaN or infinite"),
        ("reward", "a reward of environment 0 is NaN or infinite"),
        ("shape", "ValueError"),
    ],
)
def test_a_fault_names_environment_worker_step_and_seed(fault: str, message: str) -> None:
    plan = blueprint(
        TOYS + "Faulty", env_config={"fault": fault}, rollout_fragment_length=4, num_envs_per_worker=1, seed=3
    )
    worker, weights = Worker(plan, 2), learner(plan).weights()
    worker.sample(weights)
    with pytest.raises(RunError, match=message) as caught:
        worker.sample(weights)
    assert "Faulty" in caught.value.message
    assert f"worker 2, step 4, seed {worker.env_seed}" in caught.value.message
    assert caught.value.reason == "EnvironmentFailed"
    assert caught.value.exit_code == 1, "in mid-training another attempt may succeed"


@pytest.mark.parametrize(
    ("name", "config", "reason", "message"),
    [
        ("CartPol-v1", {}, "EnvironmentNotFound", "Did you mean: `CartPole`"),
        ("CartPole-v77", {}, "EnvironmentNotFound", "v77"),
        ("no_such_package.envs:Maze", {}, "EnvironmentNotFound", "there is no module no_such_package"),
        (TOYS + "Maze", {}, "EnvironmentNotFound", "has no Maze"),
        (TOYS + "NoStart", {}, "EnvironmentFailed", "the simulator's licence has expired"),
        ("Pendulum-v1", {"gravity": 1}, "EnvironmentFailed", "gravity"),
    ],
)
def test_an_environment_that_cannot_be_had_is_permanent(
    name: str, config: dict[str, Any], reason: str, message: str
) -> None:
    with pytest.raises(RunError) as caught:
        EnvSource(name, config).spaces()
    assert caught.value.reason == reason
    assert message in caught.value.message
    assert name in caught.value.message
    assert caught.value.exit_code == 2


def test_native_vectors_are_used_where_there_are_any() -> None:
    assert type(EnvSource("CartPole-v1").vector(2)).__name__ == "CartPoleVectorEnv"
    assert isinstance(EnvSource("Pendulum-v1").vector(2), gymnasium.vector.SyncVectorEnv)


def test_observations_of_several_parts_become_one_vector() -> None:
    found = EnvSource(__name__ + ":Parts").spaces()
    assert found.observations.shape == (3,)


class Parts(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Dict(
        {"a": gymnasium.spaces.Box(0, 1, (1,)), "b": gymnasium.spaces.Discrete(2)}
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return {"a": np.zeros(1, np.float32), "b": 1}, {}


def test_two_seeded_workers_see_the_same_and_two_indices_do_not() -> None:
    plan = blueprint(num_envs_per_worker=2, rollout_fragment_length=50, seed=5)
    weights = learner(plan).weights()
    first, again, other = (Worker(plan, index).sample(weights)[0] for index in (0, 0, 1))
    assert np.array_equal(first.obs, again.obs)
    assert np.array_equal(first.a, again.a)
    assert not np.array_equal(first.obs, other.obs)


def test_two_generations_of_a_worker_differ() -> None:
    plan = blueprint(num_envs_per_worker=2, rollout_fragment_length=20, seed=5)
    weights = learner(plan).weights()
    first, second = (Worker(plan, 0, generation).sample(weights)[0] for generation in (0, 1))
    assert not np.array_equal(first.obs, second.obs)


def test_fragments_side_by_side_keep_their_final_observations_apart() -> None:
    first, second = countdown(envs=1)[0], countdown(envs=2)[0]
    batch = collate([first, second], CPU)
    assert batch.r.shape == (8, 3)
    assert batch.final_at.tolist() == [[2, 0], [5, 0], [2, 1], [2, 2], [5, 1], [5, 2]]
    assert batch.final_obs.shape == (6, 1)
