"""Counters, rows, stop conditions, and the files they go to."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboardX import SummaryWriter  # noqa: F401 - its first import warns, before any test

from rltrainer.api.base import EVALUATED, Metadata
from rltrainer.api.experiment import Stop
from rltrainer.core.execution import Iteration
from rltrainer.core.types import EpisodeReport
from rltrainer.machine import allowed_cpus, cpus
from rltrainer.reporting import results
from rltrainer.reporting.estimate import WINDOW, Estimate
from rltrainer.reporting.progress import Progress
from rltrainer.reporting.results import Results, keep_until, summary_of
from rltrainer.storage.paths import run_uri


def iteration(returns: list[float], timesteps: int = 10, **metrics: float) -> Iteration:
    report = EpisodeReport(timesteps, returns, [int(value) for value in returns])
    return Iteration([report], {"loss": 1.0, **metrics}, 0.1, 0.2)


def test_a_row_has_the_names_that_people_know() -> None:
    progress = Progress()
    progress.add(iteration([]), 1.0)
    row = progress.add(iteration([1.0, 5.0], kl=float("inf")), 2.0)
    assert {name: row[name] for name in row if name != "info"} == {
        "episode_reward_mean": 3.0,
        "episode_reward_min": 1.0,
        "episode_reward_max": 5.0,
        "episode_len_mean": 3.0,
        "episodes_this_iter": 2,
        "episodes_total": 2,
        "timesteps_this_iter": 10,
        "timesteps_total": 20,
        "training_iteration": 2,
        "time_this_iter_s": 2.0,
        "time_total_s": 3.0,
        "timesteps_per_second": 5.0,
        "sample_time_s": 0.1,
        "learn_time_s": 0.2,
    }
    assert row["info"] == {"learner": {"loss": 1.0, "kl": None}}
    json.loads(json.dumps(row), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_mean_is_over_the_last_100_episodes() -> None:
    progress = Progress()
    progress.add(iteration([1000.0] * 50), 1.0)
    progress.add(iteration([2.0] * 100), 1.0)
    assert progress.reward_mean() == 2.0
    assert progress.episodes_total == 150


@pytest.mark.parametrize(
    ("stop", "reached"),
    [
        ({"episode_reward_mean": 3}, "episode_reward_mean >= 3"),
        ({"episode_reward_mean": 3.5}, None),
        ({"timesteps_total": 10}, "timesteps_total >= 10"),
        ({"timesteps_total": 11}, None),
        ({"training_iteration": 1}, "training_iteration >= 1"),
        ({"episodes_total": 101}, None),
        ({"time_total_s": 1.5}, "time_total_s >= 1.5"),
        ({}, None),
    ],
)
def test_stop_conditions(stop: dict[str, Any], reached: str | None) -> None:
    progress = Progress()
    progress.add(iteration([3.0] * 100), 1.5)
    assert progress.stopped_by(Stop(**stop)) == reached


def test_a_mean_of_few_lucky_episodes_stops_nothing() -> None:
    progress = Progress()
    progress.add(iteration([500.0] * 99), 1.0)
    assert progress.stopped_by(Stop(episode_reward_mean=475)) is None


def test_an_evaluation_counts_for_the_policy_it_was_of_and_for_no_other() -> None:
    progress, stop = Progress(), Stop.model_validate({EVALUATED: 3})
    progress.add(iteration([1.0]), 1.0)
    assert EVALUATED not in progress.metrics()
    found = progress.evaluated(EpisodeReport(9, [1.0, 5.0], [2, 7]))
    assert found == {
        "episode_reward_mean": 3.0,
        "episode_reward_min": 1.0,
        "episode_reward_max": 5.0,
        "episode_len_mean": 4.5,
        "episodes": 2,
    }
    assert progress.metrics()[EVALUATED] == 3.0
    assert progress.stopped_by(stop) == f"{EVALUATED} >= 3"
    assert progress.stopped_by(Stop.model_validate({EVALUATED: 3.5})) is None
    row = progress.add(iteration([1.0]), 1.0)
    assert not [name for name in row if "evaluation" in name]
    assert EVALUATED not in progress.metrics()
    assert progress.stopped_by(stop) is None


def test_progress_goes_through_json() -> None:
    first, second = Progress(), Progress()
    first.add(iteration([1.0, 2.0]), 1.0)
    first.evaluated(EpisodeReport(4, [4.0], [4]))
    second.load(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    assert second.returns.maxlen == 100


def test_rows_after_a_restored_iteration_and_half_rows_go(tmp_path: Path) -> None:
    rows = [json.dumps({"training_iteration": i}) for i in range(1, 6)]
    (tmp_path / "result.json").write_text("\n".join(rows) + '\n{"training_ite')
    keep_until(tmp_path, 3)
    assert (tmp_path / "result.json").read_text().splitlines() == rows[:3]


def test_lines_come_once_a_second_for_evaluations_and_for_the_last_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress()
    written = Results(tmp_path, 0, Stop(), terminal=False)
    with caplog.at_level(logging.INFO, logger="rltrainer"):
        for i in range(50):
            row = progress.add(iteration([1.0]), 0.001)
            if i == 29:
                row["evaluation"] = progress.evaluated(EpisodeReport(9, [1.0, 5.0], [2, 7]))
            written.write(row, last=i == 49)
    written.close()
    assert [line.split()[1] for line in caplog.messages] == ["1", "30", "50"]
    assert ["evaluation 3.00 (1 to 5)" in line for line in caplog.messages] == [False, True, False]
    assert len((tmp_path / "result.json").read_text().splitlines()) == 50
    assert any(path.stat().st_size > 1000 for path in tmp_path.glob("events.out.tfevents.*"))


def test_tensorboard_gets_the_numbers_and_not_the_options() -> None:
    values = summary_of({"a": 1, "b": None, "c": "words", "config/lr": 0.1, "info/learner/kl": 0.5}).value
    assert [(value.tag, value.simple_value) for value in values] == [("a", 1), ("info/learner/kl", 0.5)]


def test_a_bar_has_an_end_where_the_document_gives_one() -> None:
    for stop, total in ((Stop(timesteps_total=100), 100), (Stop(), None)):
        bar = results.progress_bar(stop)
        assert bar.total == total
        bar.close()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": "a", "namespace": "n", "uid": "12345678-90"}, "s3://b/p/n/a/12345678"),
        ({"name": "a"}, "s3://b/p/default/a"),
    ],
)
def test_a_runs_folder_in_storage(metadata: dict[str, str], expected: str) -> None:
    assert run_uri("s3://b/p/", Metadata(**metadata)) == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), (None, None)]
)
def test_threads_stay_within_the_containers_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", None)])
def test_a_quota_of_the_older_kind_counts_and_what_an_actor_has_reserved_does_not_bound_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert allowed_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))
    assert cpus(tmp_path) == 1


def done(stop: dict[str, Any], *iterations: tuple[int, float], progress: Progress | None = None) -> tuple[Any, Any]:
    """Percent and seconds left after iterations of so many steps and seconds each."""
    progress = progress or Progress()
    estimate = Estimate(Stop.model_validate(stop), progress)
    for steps, seconds in iterations:
        progress.add(iteration([], steps), seconds)
        estimate.add(progress)
    report = estimate.report()
    return report["progress_percentage"], report["estimated_remaining_seconds"]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ({"timesteps_total": 100}, (30, 14)),  # 30 in 6 s, so 70 in 14 s
        ({"training_iteration": 4}, (75, 2)),  # 3 in 6 s
        ({"time_total_s": 60.5}, (9, 55)),
        ({"timesteps_total": 100, "training_iteration": 4}, (75, 2)),  # what is reached first
        ({"timesteps_total": 100, "time_total_s": 12}, (50, 6)),
        ({"episodes_total": 7}, (0, None)),  # no episode has ended: nobody knows
        ({"episode_reward_mean": 475}, (None, None)),
        ({}, (None, None)),
        ({"timesteps_total": 30}, (100, 0)),
        ({"timesteps_total": 20}, (100, 0)),
        ({"timesteps_total": 0}, (100, 0)),
    ],
    ids=str,
)
def test_how_near_a_run_is_to_its_end(stop: dict[str, Any], expected: tuple[Any, Any]) -> None:
    assert done(stop, (10, 2.0), (10, 2.0), (10, 2.0)) == expected


def test_the_time_left_is_by_the_speed_of_this_attempt_and_of_late() -> None:
    progress = Progress()
    progress.add(iteration([], 500), 5000.0)  # an earlier attempt, without GPU workers
    assert done({"timesteps_total": 1000}, progress=progress) == (50, None)
    assert done({"timesteps_total": 1000}, (100, 1.0), progress=progress) == (60, 4)
    slow, fast = [(1, 10.0)] * WINDOW, [(1, 1.0)] * WINDOW
    assert done({"timesteps_total": 400}, *slow, *fast) == (50, 200)


def test_whole_percent_are_100_only_once_it_is_there() -> None:
    assert done({"timesteps_total": 1000}, (999, 1.0))[0] == 99
