"""Evaluation: which episodes count, that training does not notice, and what comes of the numbers."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from gymnasium import spaces
from torch import Tensor

from rltrainer.api.base import EVALUATED, DocumentError
from rltrainer.api.experiment import Stop
from rltrainer.backend.base import make_learner
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.types import EpisodeReport, State, Weights
from rltrainer.errors import Interrupted, RunError
from rltrainer.runs import rollout, train
from rltrainer.runs.context import RunContext
from rltrainer.runs.folder import MARK
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.run import Run
from rltrainer.sampling.evaluator import UNROLL_LENGTH, Evaluator
from rltrainer.sampling.worker import WorkerConfig
from rltrainer.seeding import Role, derived_seed
from rltrainer.storage import checkpoint as ckpt
from tests.unit.trainer.helpers import TOYS, experiment, quick, worker_config
from tests.unit.trainer.toy_envs import Countdown, Identity, Step

HERE = f"{__name__}:"


def evaluated(
    plan: WorkerConfig, episodes: int, deterministic: bool = True, generations: tuple[int, ...] = (0,)
) -> Any:
    """The reports of evaluations, one after the other."""
    weights = make_learner(plan).weights(0)
    evaluator = Evaluator(plan, episodes, deterministic)
    reports = [evaluator.run(weights, generation) for generation in generations]
    evaluator.close()
    return reports


class Mixed(Countdown):
    """Episodes of 1 step or of 40, each as likely."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed)
        self.length = int(self.np_random.choice([1, 40]))
        return obs, info


@pytest.mark.parametrize("episodes", [1, 5, 16, 38])
def test_each_environment_contributes_as_many_episodes_as_was_fixed_beforehand(episodes: int) -> None:
    """The first episodes to end would be short ones."""
    (report,) = evaluated(worker_config(HERE + "Mixed", seed=3), episodes)
    expected = []
    for i in range(min(16, episodes)):
        env = Mixed()
        env.reset(seed=derived_seed(derived_seed(3, Role.EVALUATION), Role.ENVIRONMENT, i))
        for _ in range(len(range(i, episodes, 16))):
            expected.append(env.length)
            env.reset()
    assert report == EpisodeReport(sum(expected), [float(length) for length in expected], expected)


def test_episodes_go_on_for_longer_than_one_look_at_them() -> None:
    length = 2 * UNROLL_LENGTH + 7
    (report,) = evaluated(worker_config(TOYS + "Countdown", env_config={"length": length}), 18)
    assert report == EpisodeReport(18 * length, [float(length)] * 18, [length] * 18)


def test_a_generation_fixes_what_happens_whatever_was_before() -> None:
    plan = worker_config()
    first, other, again = evaluated(plan, 20, False, (1, 2, 1))
    assert first == again
    assert first != other
    assert evaluated(replace(plan, seed=1), 20, False, (1,)) != [first]


def test_the_best_actions_are_not_those_of_training() -> None:
    best, drawn = (
        evaluated(worker_config(TOYS + "IdentityBox"), 4, deterministic)[0] for deterministic in (True, False)
    )
    assert best.returns != drawn.returns


class Paid(Countdown):
    """Pays what it is given."""

    def step(self, action: Any) -> Step:
        obs, _, *rest = super().step(action)
        return obs, float(action), *rest


def counting(*, deterministic: bool) -> Algorithm:
    """Counts the steps of an episode in its memory; acts 1 where the count is what the environment shows, else 0."""

    def act(nets: Any, obs: Tensor, context: ActContext) -> Tensor:
        right = (context.state["count"] == obs).squeeze(1).long()
        context.state = {"count": context.state["count"] + 1}
        return right

    def initial_state(nets: Any, num_envs: int) -> State:
        return {"count": torch.zeros(num_envs, 1)}

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("the other way of acting was asked for")

    ppo = worker_config().algorithm
    if deterministic:
        return replace(ppo, initial_state=initial_state, greedy_action=act, act=refuse)
    return replace(ppo, initial_state=initial_state, greedy_action=refuse, act=lambda *arguments: (act(*arguments), {}))


@pytest.mark.parametrize("deterministic", [True, False])
def test_memory_is_cleared_where_an_episode_begins(deterministic: bool) -> None:
    plan = worker_config(HERE + "Paid", env_config={"length": 5})
    plan = replace(plan, algorithm=counting(deterministic=deterministic))
    for report in evaluated(plan, 48, deterministic, (0, 1)):
        assert report.returns == [5.0] * 48


def test_a_failing_environment_is_said_to_be_that_of_an_evaluation() -> None:
    plan = worker_config(TOYS + "Faulty", env_config={"fault": "obs"})
    with pytest.raises(RunError, match=r"^in evaluation: environment .*Faulty: an observation .* is NaN"):
        evaluated(plan, 1)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    plan = worker_config()
    weights = make_learner(plan).weights(0)
    algorithm = replace(plan.algorithm, greedy_action=lambda nets, obs, context: torch.randint(2, (len(obs),)))
    Evaluator(replace(plan, algorithm=algorithm), 2, deterministic=True).run(weights, 0)
    assert torch.equal(torch.get_rng_state(), before)


REPLAY = {"seed": 7, "learning_starts": 16, "timesteps_per_iteration": 32, "hiddens": [16]}
SPECS: list[dict[str, Any]] = [
    {"config": quick(normalize_observations=True, normalize_rewards=True)},
    {"config": quick(), "env": TOYS + "Identity"},
    {"run": "DQN", "config": {**REPLAY, "noisy": True, "num_envs_per_worker": 2}},
    {"run": "SAC", "config": REPLAY, "env": "Pendulum-v1"},
]
TIMES = ("time_this_iter_s", "time_total_s", "timesteps_per_second", "sample_time_s", "learn_time_s")


def finished(folder: Path, **spec: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a run of 6 iterations, without times, and its last checkpoint's state."""
    spec = {"stop": {"training_iteration": 6}, "checkpoint": {"frequency": 0}, **spec}
    result = train.run(experiment(**spec), folder)
    assert result.checkpoint is not None
    return rows(result.folder), ckpt.read(result.checkpoint)[1]


def rows(folder: Path) -> list[dict[str, Any]]:
    all_rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in all_rows]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.get('run', 'PPO')}-{spec.get('env', 'CartPole-v1')}")
def test_training_is_the_same_with_evaluation_and_without(
    tmp_path: Path, spec: dict[str, Any], deterministic: bool
) -> None:
    evaluation = {"interval": 2, "episodes": 3, "deterministic": deterministic}
    without, plain = finished(tmp_path / "without", **spec)
    with_it, tree = finished(tmp_path / "with", **spec, evaluation=evaluation)
    assert ["evaluation" in row for row in with_it] == [False, True] * 3
    assert [{name: value for name, value in row.items() if name != "evaluation"} for row in with_it] == without
    for part in ("policy", "learner", "replay", "workers"):
        assert same(plain[part], tree[part]), part


@pytest.fixture
def cluster() -> Iterator[None]:
    """A Ray that believes in a GPU, which no node here has."""
    ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False, object_store_memory=128 << 20)
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray", "ignore:.*:ResourceWarning")
@pytest.mark.usefixtures("cluster")
def test_workers_and_learners_elsewhere_are_evaluated_as_those_here_are(tmp_path: Path) -> None:
    spec = {"evaluation": {"interval": 3, "episodes": 4, "deterministic": False}}
    here, _ = finished(tmp_path / "here", config=quick(), **spec)
    for num_gpus in (0, 1):
        config = quick(num_workers=1, num_gpus=num_gpus)
        assert finished(tmp_path / str(num_gpus), config=config, **spec)[0] == here


def test_a_row_says_what_was_found_and_so_does_the_log(tmp_path: Path) -> None:
    spec = {"env": HERE + "Mixed", "config": quick(), "evaluation": {"interval": 4, "episodes": 20}}
    all_rows, _ = finished(tmp_path, **spec)
    assert [row["training_iteration"] for row in all_rows if "evaluation" in row] == [
        4,
        6,
    ]  # the last one is evaluated too
    row = all_rows[3]["evaluation"]
    (report,) = evaluated(
        worker_config(HERE + "Mixed", seed=7), 20, generations=(4,)
    )  # its lengths depend on no policy
    assert row == {
        "episode_reward_mean": pytest.approx(sum(report.returns) / 20),
        "episode_reward_min": 1.0,
        "episode_reward_max": 40.0,
        "episode_len_mean": pytest.approx(sum(report.lengths) / 20),
        "episodes": 20,
    }
    log = (tmp_path / "test" / "train.log").read_text()
    assert f"evaluation {row['episode_reward_mean']:.2f} (1 to 40)" in log
    events = b"".join(path.read_bytes() for path in (tmp_path / "test").glob("events.out.tfevents.*"))
    assert EVALUATED.encode() in events


def test_the_numbers_are_those_of_the_checkpoint_written_with_them(tmp_path: Path) -> None:
    all_rows, _ = finished(tmp_path, config=quick(), evaluation={"interval": 6, "episodes": 100})
    mean = all_rows[-1]["evaluation"]["episode_reward_mean"]
    checkpoint = tmp_path / "test" / "checkpoints" / "checkpoint_000006"
    assert ckpt.manifest_of(checkpoint).metrics[EVALUATED] == mean
    report = rollout.evaluate(str(checkpoint), episodes=100, seed=5)
    spread = np.std(report.returns) / np.sqrt(len(report.returns))
    assert abs(np.mean(report.returns) - mean) < 5 * spread
    assert rollout.evaluate(str(tmp_path / "test"), episodes=100, seed=5) == report


def test_an_evaluation_can_stop_a_run(tmp_path: Path) -> None:
    stop = {EVALUATED: 9, "training_iteration": 50}
    document = experiment(env=TOYS + "Identity", config=quick(lr=0.01), stop=stop, evaluation={"interval": 5})
    result = train.run(document, tmp_path)
    assert result.stopped_by == f"{EVALUATED} >= 9"
    assert result.row["evaluation"]["episode_reward_mean"] >= 9
    assert result.row["training_iteration"] % 5 == 0
    assert all(row["evaluation"]["episode_reward_mean"] < 9 for row in rows(result.folder)[:-1] if "evaluation" in row)


def test_an_evaluation_can_rank_checkpoints(tmp_path: Path) -> None:
    attribute = "min-" + EVALUATED  # later policies are better, so the best by this is an early one
    document = experiment(
        env=TOYS + "Identity",
        config=quick(lr=0.01),
        stop={"training_iteration": 20},
        evaluation={"interval": 2, "episodes": 50},
        checkpoint={"frequency": 2, "keep": 1, "scoreAttribute": attribute},
    )
    folder = train.run(document, tmp_path).folder
    evaluations = {row["training_iteration"]: row["evaluation"] for row in rows(folder) if "evaluation" in row}
    least = min(each["episode_reward_mean"] for each in evaluations.values())
    kept = ckpt.manifests_in(folder / "checkpoints")
    assert [each.iteration for each in kept][-1] == 20
    assert least in [each.metrics[EVALUATED] for each in kept]
    assert len(kept) <= 2


def test_an_interrupt_ends_an_evaluation_at_once_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt, whole = Interrupt(), Evaluator.run

    def run(
        self: Evaluator, weights: Weights, generation: int, check: Callable[[], None] | None = None
    ) -> EpisodeReport:
        interrupt.ask(signal.SIGTERM)
        return whole(self, weights, generation, check)

    monkeypatch.setattr(Evaluator, "run", run)
    spec: dict[str, Any] = {"config": quick(), "stop": {"training_iteration": 4}, "checkpoint": {"frequency": 0}}
    # an episode of a thousand steps, of which none is taken
    document = experiment(**spec, env=TOYS + "Countdown", envConfig={"length": 1000}, evaluation={"interval": 2})
    with pytest.raises(Interrupted):
        train.run(document, tmp_path, interrupt=interrupt)
    monkeypatch.undo()
    folder = tmp_path / "test"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint_000002"]
    assert len(ckpt.read(folder / "checkpoints" / "checkpoint_000002")[1]["workers"]) == 1
    result = train.run(document, tmp_path)
    assert [row["training_iteration"] for row in rows(folder)] == [1, 2, 3, 4]
    assert result.row["evaluation"]["episode_reward_mean"] == 1000.0


def test_a_restored_run_evaluates_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    spec = {"config": quick(), "evaluation": {"interval": 2, "episodes": 4, "deterministic": False}}
    straight, _ = finished(tmp_path / "straight", **spec)
    finished(tmp_path / "parts", **spec, stop={"training_iteration": 2})
    mark = tmp_path / "parts" / "test" / MARK
    mark.write_text(json.dumps({"uid": json.loads(mark.read_text())["uid"]}))  # its end was not reached
    assert finished(tmp_path / "parts", **spec)[0] == straight


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"evaluation": {"interval": 0}}, "spec.evaluation.interval"),
        ({"evaluation": {"episodes": 0}}, "spec.evaluation.episodes"),
        ({"evaluation": {"every": 3}}, "spec.evaluation.every"),
        ({"evaluation": True}, "spec.evaluation"),
        ({"stop": {EVALUATED: 475}}, f"stop.{EVALUATED} needs evaluation"),
        ({"stop": {"evaluation_reward_mean": 475}}, "spec.stop.evaluation_reward_mean"),
        ({"checkpoint": {"scoreAttribute": EVALUATED}}, f"checkpoint.scoreAttribute {EVALUATED} needs evaluation"),
        (
            {"checkpoint": {"scoreAttribute": EVALUATED, "frequency": 15}, "evaluation": {}},
            "checkpoint.frequency 15 must be a multiple of evaluation.interval 10",
        ),
    ],
)
def test_a_wrong_evaluation_is_refused_with_its_field(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        experiment(**spec)
    assert message in str(caught.value)


def test_an_empty_evaluation_has_defaults_and_none_is_none() -> None:
    spec = experiment(evaluation={}, stop={EVALUATED: 1}).spec
    assert spec.evaluation is not None
    assert (spec.evaluation.interval, spec.evaluation.episodes, spec.evaluation.deterministic) == (10, 10, True)
    assert experiment().spec.evaluation is None
    assert Stop.model_validate(spec.stop.model_dump(by_alias=True)) == spec.stop


class Both(Identity):
    """An environment with actions of two parts: rollouts hand it each on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))

    def pay(self, action: Any) -> float:
        number, box = action
        assert np.shape(number) == ()
        assert np.shape(box) == (2,)
        return 1.0


def test_actions_of_several_parts_reach_evaluations_and_rollouts(tmp_path: Path) -> None:
    all_rows, _ = finished(tmp_path, env=HERE + "Both", config=quick(), evaluation={"interval": 6, "episodes": 3})
    assert all_rows[-1]["evaluation"]["episode_reward_mean"] == 10.0
    *_, (_, report) = rollout.run(rollout.Request(str(tmp_path / "test"), episodes=2))
    assert report.returns == [10.0, 10.0]


def test_the_status_has_the_newest_evaluation_of_a_run(tmp_path: Path) -> None:
    document = experiment(
        config=quick(), stop={"training_iteration": 5}, evaluation={"interval": 2, "episodes": 3}, checkpoint={}
    )
    run = Run(document, RunContext(tmp_path))
    assert run.status().evaluation is None
    train.drive(run)
    evaluation = run.status().evaluation
    assert evaluation is not None
    assert (evaluation.iteration, evaluation.timesteps_total) == (5, run.row["timesteps_total"])
    assert evaluation.model_dump(exclude={"iteration", "timesteps_total"}) == run.row["evaluation"]
