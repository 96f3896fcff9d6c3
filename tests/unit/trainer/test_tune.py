"""Searches: where options come from, what the journal keeps, and real ones under every scheduler and searcher."""

import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import ray

from rltrainer import tune
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OptionError
from rltrainer.api.tune import INTEGERS
from rltrainer.errors import Interrupted, RunError
from rltrainer.runs.context import RunContext
from rltrainer.runs.interrupt import Interrupt
from rltrainer.tune import journal as journals
from rltrainer.tune.driver import SearchDriver, bundles, reservations
from rltrainer.tune.journal import Journal, TrialEntry
from rltrainer.tune.schedulers import PastTrial, scheduler
from rltrainer.tune.search import Suggestions, listed
from rltrainer.tune.space import checked, clamped, draw, trial_count, trial_spec
from rltrainer.tune.trial import Plan, searched_options
from rltrainer.tune.watch import reason
from tests.unit.trainer.helpers import TASKS, TOYS, experiment, quick

LR = {"lr": {"loguniform": [0.0001, 0.1]}}


def searched(space: Any = LR, stop: Any = None, config: Any = None, **search: Any) -> Experiment:
    """A search whose trials take a second."""
    return experiment(
        env=TASKS + "Numbers",
        config=config or quick(hiddens=[16]),
        stop=stop or {"training_iteration": 8},
        checkpoint={"frequency": 2},
        tune={"space": space, **search},
    )


def of(given: Experiment) -> Any:
    assert given.spec.tune is not None
    return given.spec.tune


DOMAINS: dict[str, list[float]] = {
    "uniform": [0.2, 0.6],
    "quniform": [0.2, 0.6, 0.1],
    "loguniform": [0.01, 0.5],
    "qloguniform": [0.1, 0.5, 0.1],
    "randn": [0.5, 0.01],
    "qrandn": [0.5, 0.01, 0.001],
    "randint": [3, 9],
    "qrandint": [4, 8, 2],
    "lograndint": [2, 90],
    "qlograndint": [2, 90, 2],
}


@pytest.mark.parametrize("kind", DOMAINS)
def test_every_domain_draws_within_its_bounds(kind: str) -> None:
    option = "epochs" if kind in INTEGERS else "entropy_coeff"
    given = searched({option: {kind: DOMAINS[kind]}}, numSamples=200)
    values = [trial[option] for trial in draw(of(given))]
    low, high = (0.4, 0.6) if "randn" in kind else DOMAINS[kind][:2]
    assert len(set(values)) > 1
    assert all(low <= value <= high for value in values)
    assert all(isinstance(value, int if kind in INTEGERS else float) for value in values)
    assert all(checked(given.spec, {option: value}) for value in values)
    if kind in ("randint", "lograndint"):
        assert max(values) < high, "high itself is not drawn"


@pytest.mark.parametrize("name", ["../PPO_00000", "/PPO_00000", "a/b"])
def test_a_journal_that_names_a_trial_by_a_path_is_refused(tmp_path: Path, name: str) -> None:
    trial = {"number": 0, "name": name, "options": {}, "status": "terminated"}
    (tmp_path / "search.json").write_text(json.dumps({"metric": "", "mode": "max", "trials": [trial]}))
    with pytest.raises(RunError, match=r"search.json: trials\[0\].name: .*Move it aside"):
        journals.read(tmp_path / "search.json")


def test_a_grid_is_walked_through_and_the_rest_is_drawn_anew_each_time() -> None:
    space = {"gamma": {"grid_search": [0.9, 0.99]}, "epochs": {"grid_search": [1, 2, 3]}, **LR}
    given = searched(space, numSamples=2)
    trials = draw(of(given))
    assert len(trials) == trial_count(of(given)) == 12
    assert [(t["gamma"], t["epochs"]) for t in trials[:6]] == [(g, e) for g in (0.9, 0.99) for e in (1, 2, 3)]
    assert len({t["lr"] for t in trials}) == 12
    assert trials == draw(of(given))
    assert trials != draw(of(searched(space, numSamples=2, search={"seed": 1})))


def test_options_that_do_not_go_together_are_refused_before_anything_starts(tmp_path: Path) -> None:
    """Each value is right by itself: v_min and v_max of the same point of the grid are not."""
    space = {"v_min": {"grid_search": [-10.0, 2.0]}, "v_max": {"grid_search": [1.0, 10.0]}}
    given = experiment(run="DQN", tune={"space": space}, config={"v_max": 10, "v_min": -10})
    with pytest.raises(OptionError, match=r"v_min 2.0 is not less than v_max 1.0"):
        checked(given.spec, {"v_min": 2.0, "v_max": 1.0})
    with pytest.raises(RunError, match=r"v_min 2.0 is not less than v_max 1.0"):
        tune.run(given, tmp_path)


def test_a_perturbed_option_stays_within_the_space() -> None:
    given = searched({"gamma": {"uniform": [0.9, 0.99]}, "epochs": {"randint": [2, 9]}})
    config = {"gamma": 1.1, "epochs": 2.4, "trial": 3}
    assert clamped(given.spec, of(given), config) == {"gamma": 0.99, "epochs": 2, "trial": 3}
    assert clamped(given.spec, of(given), {"gamma": 0.5, "epochs": 14})["epochs"] == 8


def test_what_a_trial_reserves() -> None:
    serial = searched().spec.options()
    assert bundles(of(searched()), serial) == [{"CPU": 1.0}]
    workers = searched(config=quick(num_workers=2, num_cpus_per_worker=0.5))
    assert bundles(of(workers), workers.spec.options()) == [{"CPU": 1.0}, {"CPU": 0.5}, {"CPU": 0.5}]
    shared = searched(config=quick(num_gpus=1), resourcesPerTrial={"cpu": 2, "gpu": 0.5})
    assert bundles(of(shared), shared.spec.options()) == [{"CPU": 2.0}, {"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0}]


@pytest.mark.parametrize(("name", "most"), [("Random", [3]), ("Optuna", [2, 4])])
def test_what_trials_to_come_reserve_is_known_before_they_begin(name: str, most: list[int]) -> None:
    """Of those that are listed, their own; where they are yet to be suggested, the least and the most."""
    given = searched({"num_workers": {"choice": [1, 3]}, **LR}, search={"name": name}, numSamples=2)
    journal = Journal(metric="episode_reward_mean", mode="max")
    if name == "Random":
        journal.add("x", {"num_workers": 2})
    assert [len(each) for each in reservations(given.spec, of(given), journal)] == most


def test_an_option_that_is_null_in_a_trial_is_told_from_one_that_the_trial_has_not() -> None:
    journal = Journal(metric="episode_reward_mean", mode="max")
    journal.add("x", {"vf_clip": None})
    journal.add("x", {"lr": 0.1})
    space = listed(journal)
    seen = []
    for number in (0, 1):
        config = {"trial": number}
        config |= {name: space[name].func(config) for name in ("vf_clip", "lr")}
        seen.append(searched_options(config))
    assert seen == [{"vf_clip": None}, {"lr": 0.1}]


# ---- Values of the environment ---------------------------------------------------------------------------------------


def test_a_grid_in_env_config_is_a_trial_each() -> None:
    env_config = {"a": {"grid_search": [1, None]}, "deep": {"list": [0, {"grid_search": ["x", "y", "z"]}]}, "same": 5}
    given = experiment(env_config=env_config, tune={"numSamples": 2})
    trials = draw(of(given))
    assert trial_count(of(given)) == len(trials) == 12
    specs = [trial_spec(given.spec, options) for options in trials]
    assert [each.env_config for each in specs[:6]] == [
        {"a": a, "deep": {"list": [0, last]}, "same": 5} for a in (1, None) for last in ("x", "y", "z")
    ]
    assert all(each.tune is None and each.config == given.spec.config for each in specs)


def test_a_value_of_the_environment_may_be_searched_by_name() -> None:
    given = experiment(tune={"space": {"env_config.a.b": {"uniform": [0.0, 1.0]}, **LR}})
    (options,) = draw(of(given))
    spec = trial_spec(given.spec, checked(given.spec, options))
    assert spec.env_config == {"a": {"b": options["env_config.a.b"]}}
    assert spec.config == {"lr": options["lr"]}
    assert clamped(given.spec, of(given), {"env_config.a.b": 1.7, "lr": 0.01})["env_config.a.b"] == 1.0


@pytest.mark.parametrize("grid", [[], 3, None])
def test_a_grid_without_values_is_refused(grid: Any) -> None:
    with pytest.raises(ValueError, match=r"spec.envConfig.a.grid_search: takes a list of values"):
        experiment(env_config={"a": {"grid_search": grid}})


# ---- Reports without the metric --------------------------------------------------------------------------------------

METRICS: dict[str, list[float | None]] = {
    "none at first": [None, None, 3.0, 4.0],
    "none ever": [None, None, None, None],
    "now and then": [None, 3.0, None, None],
    "not a number": [float("nan"), 3.0, float("nan"), float("nan")],
}


def reports(values: list[float | None]) -> list[dict[str, Any]]:
    """Rows of a trial whose metric is one of `values` in each."""
    return [
        {"training_iteration": i, **({} if value is None else {"episode_reward_mean": value})}
        for i, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize("pattern", METRICS)
@pytest.mark.parametrize("name", ["HyperOpt", "Optuna"])
def test_a_searcher_learns_from_the_last_metric_that_there_was(name: str, pattern: str) -> None:
    given = searched(numSamples=8, search={"name": name, "randomTrials": 2})
    made = Suggestions(given.spec, of(given), Journal(metric="episode_reward_mean", mode="max"), "PPO_x")
    told: list[tuple[Any, bool]] = []
    complete = made.inner.on_trial_complete

    def note(trial: str, result: Any = None, error: bool = False) -> None:
        told.append((result and result["episode_reward_mean"], error))
        complete(trial, result, error)

    made.inner.on_trial_complete = note  # type: ignore[method-assign, assignment]
    for trial in range(4):
        assert made.suggest(f"t{trial}") is not None
        for row in reports(METRICS[pattern]):
            made.on_trial_result(f"t{trial}", row)
        made.on_trial_complete(f"t{trial}", reports(METRICS[pattern])[-1])
    last = {"none at first": 4.0, "none ever": None}.get(pattern, 3.0)
    assert told == [(last, last is None)] * 4


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("pattern", METRICS)
@pytest.mark.parametrize("name", ["MedianStopping", "AsyncHyperBand"])
def test_a_trial_without_a_metric_is_compared_with_nobody(name: str, pattern: str, mode: Any, tmp_path: Path) -> None:
    """It goes on to its last step; then comes one that is worse than all that have a metric."""
    own = {"gracePeriod": 1, "minSamplesRequired": 1} if name == "MedianStopping" else {"gracePeriod": 3, "maxT": 4}
    given = searched(numSamples=4, scheduler={"name": name, **own}, mode=mode)
    made: Any = scheduler(given.spec, of(given), Journal(metric="episode_reward_mean", mode=mode), tmp_path)
    rows, controller = reports(METRICS[pattern]), SimpleNamespace(get_live_trials=list)
    for trial in (PastTrial("a"), PastTrial("b")):
        made.on_trial_add(controller, trial)
        decisions = [made.on_trial_result(controller, trial, row) for row in rows]
        made.on_trial_complete(controller, trial, rows[-1])
        assert decisions == ["CONTINUE"] * 3 + ["STOP" if name == "AsyncHyperBand" else "CONTINUE"]
    last = PastTrial("worse")
    made.on_trial_add(controller, last)
    row = {"training_iteration": 3, "episode_reward_mean": 1.0 if mode == "max" else 9.0}
    assert made.on_trial_result(controller, last, row) == ("CONTINUE" if pattern == "none ever" else "STOP")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_hyperband_puts_a_trial_without_a_metric_last(mode: Any, tmp_path: Path) -> None:
    """Of three, halved to one after the first step, the one with the better metric goes on."""
    given = searched(numSamples=3, scheduler={"name": "HyperBand", "maxT": 3}, mode=mode)
    made: Any = scheduler(given.spec, of(given), Journal(metric="episode_reward_mean", mode=mode), tmp_path)
    bracket = made._create_bracket(1)
    trials: list[Any] = [PastTrial(name) for name in ("good", "bad", "none")]
    for trial in trials:
        trial.status, trial.is_saving = "RUNNING", False
        bracket.add_trial(trial)
        made._trial_info[trial] = bracket, 0
    good, bad, none = trials
    value = dict(zip(trials, (9.0, 1.0, None) if mode == "max" else (1.0, 9.0, None), strict=True))
    stopped: list[Any] = []
    for trial in (good, bad):
        row = {"training_iteration": 1, "episode_reward_mean": value[trial]}
        assert made.on_trial_result(SimpleNamespace(stop_trial=stopped.append), trial, row) == "PAUSE"
        trial.status = "PAUSED"
    decision = made.on_trial_result(SimpleNamespace(stop_trial=stopped.append), none, {"training_iteration": 1})
    assert decision == "STOP"
    assert good not in stopped


@pytest.mark.parametrize("name", ["MedianStopping", "AsyncHyperBand"])
def test_a_scheduler_is_shown_rows_without_a_metric(name: str, tmp_path: Path) -> None:
    """And more than one past trial: none is held against another that is done."""
    given = searched(numSamples=4, scheduler={"name": name, "gracePeriod": 1})
    journal = Journal(metric="episode_reward_mean", mode="max")
    past: tuple[list[float | None], ...] = (
        [None, None, None, 3.0],
        [None] * 4,
        [None, 1.0, 1.0, 1.0],
        [9.0] * 4,
        [0.0] * 4,
    )
    for values in past:
        entry = journal.add("PPO_x", {})
        entry.status = "terminated"
        (tmp_path / entry.name).mkdir()
        lines = [json.dumps({**row, "info": {"learner": {"kl": None}}}) for row in reports(values)]
        (tmp_path / entry.name / "result.json").write_text("\n".join(lines) + "\n")
    made: Any = scheduler(given.spec, of(given), journal, tmp_path)
    trial = PastTrial("new")
    made.on_trial_add(None, trial)
    row = {"training_iteration": 4, "episode_reward_mean": -1.0}
    assert made.on_trial_result(SimpleNamespace(get_live_trials=list), trial, row) == "STOP"


# ---- The journal -----------------------------------------------------------------------------------------------------


def filled(mode: Any = "max") -> Journal:
    journal = Journal(metric="episode_reward_mean", mode=mode)
    for reward in (3.0, None, 7.0, 5.0):
        journal.add("PPO_x", {"lr": 0.1}).reward = reward
    journal.trials[0].status, journal.trials[1].status = "terminated", "failed"
    return journal


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 0)])
def test_the_journal_knows_the_best_trial_and_how_all_stand(mode: str, best: int, tmp_path: Path) -> None:
    journal = filled(mode)
    found = journal.best()
    assert found is not None
    assert found.number == best
    counts = journal.counts(expected=6)
    assert (counts.pending, counts.running, counts.terminated, counts.failed) == (4, 0, 1, 1)
    assert counts.done == "2/6"
    assert [entry.number for entry in journal.remaining()] == [2, 3]
    path = journal.write(tmp_path)
    assert journals.read(path) == journal
    assert json.loads(path.read_text())["best"] == f"PPO_x_0000{best}"
    assert journals.read(tmp_path / "nothing") is None


def test_a_search_that_goes_on_with_fewer_samples_and_then_with_more(tmp_path: Path) -> None:
    """0 is done, 1 and 3 are cut off, 2 has not begun: with two samples it is left out, with four it comes back."""
    journal = Journal(metric="episode_reward_mean", mode="max")
    for status in ("terminated", "running", "pending", "running"):
        journal.add("x", {}).status = status
    journal.limit(2)
    assert [entry.number for entry in journal.trials] == [0, 1, 3]
    assert journal.counts(2).done == "1/3"
    again = journals.read(journal.write(tmp_path))
    assert again is not None
    assert again.numbered(2) is None
    again.add("x", {}, 2)
    assert [entry.name for entry in again.trials] == [f"x_0000{i}" for i in range(4)]
    assert again.add("x", {}).number == 4


FAILURES = {
    "Failure # 1 (occurred at 2026-01-01_10-00-00)\nThe actor died unexpectedly before finishing this task.\n"
    "\tclass_name: Trial\n\tpid: 7\nThe actor is dead because its worker process has died. Worker exit type: "
    "SYSTEM_ERROR\n": "its process was lost: The actor died unexpectedly before finishing this task. The actor is dead "
    "because its worker process has died. Worker exit type: SYSTEM_ERROR",
    "Failure # 1 (occurred at 2026-01-01_10-00-00)\nray.exceptions.RayTaskError(ValueError): x\nValueError: first\n"
    "Failure # 2 (occurred at 2026-01-01_10-00-01)\nThe actor died.\n": "its process was lost: The actor died.",
    "Failure # 1 (occurred at 2026-01-01_10-00-00)\n  File x\nValueError: it is 3\n": "ValueError: it is 3",
    "Failure # 1 (occurred at 2026-01-01_10-00-00)\nrltrainer.errors.RunError: no such thing\n": "no such thing",
}


@pytest.mark.parametrize("text", FAILURES)
def test_a_trial_that_failed_has_its_last_reason(text: str, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(text)
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"))
    assert reason(trial) == FAILURES[text]


@pytest.mark.parametrize("name", ["HyperOpt", "Optuna"])
def test_a_searcher_that_begins_again_suggests_what_it_did_and_knows_what_came_of_it(name: str) -> None:
    given = searched(numSamples=8, search={"name": name, "randomTrials": 2})
    journal = Journal(metric="episode_reward_mean", mode="max")
    first = Suggestions(given.spec, of(given), journal, "PPO_x")
    suggested = [first.suggest(f"tune-{number}") for number in range(4)]
    for number in (0, 2):
        journal.trials[number].status, journal.trials[number].reward = "terminated", float(number)
    again = Suggestions(given.spec, of(given), journal, "PPO_x")
    assert [again.suggest("x"), again.suggest("y")] == [suggested[1], suggested[3]]
    assert [entry.options for entry in journal.trials] == [
        {key: value for key, value in (each or {}).items() if key != "trial"} for each in suggested
    ]
    fresh = again.suggest("z")
    assert fresh is not None
    assert fresh["trial"] == 4
    again.on_trial_complete("z", {"episode_reward_mean": 1.0})


def test_a_scheduler_that_begins_again_compares_with_the_trials_that_are_done(tmp_path: Path) -> None:
    given = searched(numSamples=4, scheduler={"name": "AsyncHyperBand", "maxT": 50, "gracePeriod": 2})
    journal = Journal(metric="episode_reward_mean", mode="max")
    for number, reward in enumerate((10.0, 20.0, 30.0)):
        entry = journal.add("PPO_x", {})
        entry.status = "terminated"
        (tmp_path / entry.name).mkdir()
        rows = [{"training_iteration": i, "episode_reward_mean": reward + number} for i in (1, 2, 3)]
        (tmp_path / entry.name / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def decision(made: Any, reward: float) -> str:
        trial: Any = PastTrial("new")
        made.on_trial_add(None, trial)
        return str(made.on_trial_result(None, trial, {"training_iteration": 2, "episode_reward_mean": reward}))

    knowing = scheduler(given.spec, of(given), journal, tmp_path)
    assert decision(knowing, 5.0) == "STOP"
    assert decision(scheduler(given.spec, of(given), journal, tmp_path), 50.0) == "CONTINUE"
    ignorant = scheduler(given.spec, of(given), Journal(metric="episode_reward_mean", mode="max"), tmp_path)
    assert decision(ignorant, 5.0) == "CONTINUE"


# ---- Real searches ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


def rows(entry: TrialEntry, folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / entry.name / "result.json").read_text().splitlines()]


def test_a_search_without_its_journal_does_not_begin_anew(tmp_path: Path) -> None:
    """The operator knows that it has begun."""
    given = searched({"lr": {"grid_search": [0.001]}})
    context = RunContext(tmp_path, expected="s3://b/r/search.json")
    with pytest.raises(RunError, match=r"s3://b/r/search.json is the journal of this search, and is not there"):
        SearchDriver(Plan(given, tmp_path, None, None), context)._open()
    assert not (tmp_path / "search.json").exists()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
class TestRealSearches:
    def test_what_a_search_leaves_behind(self, tmp_path: Path) -> None:
        given = searched({"lr": {"grid_search": [0.001, 0.01]}}, numSamples=1)
        found = tune.run(given, tmp_path, export_formats=("model",))
        assert found.folder == tmp_path / "test"
        assert [entry.name for entry in found.journal.trials] == [f"PPO_Numbers_0000{i}" for i in (0, 1)]
        for entry, lr in zip(found.journal.trials, (0.001, 0.01), strict=True):
            folder = found.folder / entry.name
            assert entry.status == "terminated"
            assert entry.stopped_by == "training_iteration >= 8"
            params = json.loads((folder / "params.json").read_text())
            assert params["config"]["lr"] == lr
            assert "tune" not in params
            table = pandas.read_json(folder / "result.json", lines=True)
            assert list(table["training_iteration"]) == list(range(1, 9))
            assert list(pandas.read_csv(folder / "progress.csv")["config/lr"]) == [lr] * 8
            assert [each["config"] for each in rows(entry, found.folder)] == [{"lr": lr}] * 8
            assert entry.reward == rows(entry, found.folder)[-1]["episode_reward_mean"]
            assert entry.checkpoint is not None
            assert entry.checkpoint.uri == str(folder / "checkpoints" / "checkpoint_000008")
            assert list((folder / "export").rglob("*.safetensors"))
        assert found.best in found.journal.trials
        assert json.loads((found.folder / "run.json").read_text())["stopped_by"] == "all trials are done"
        assert not [path for path in found.folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
        assert "2/2 trials done" in (found.folder / "train.log").read_text()

    def test_half_done_it_goes_on_with_what_remains(self, tmp_path: Path) -> None:
        """The journal of a search that was cut off: one trial done, one in the middle, one not begun."""
        given = searched({"lr": {"grid_search": [0.001, 0.01, 0.02]}}, numSamples=1)
        first = tune.run(given, tmp_path)
        done, cut, missing = first.journal.trials
        before = {path: path.read_bytes() for path in (first.folder / done.name).rglob("*") if path.is_file()}
        journal = first.journal
        cut.status, missing.status = "running", "pending"
        missing.checkpoint = missing.best_checkpoint = None
        journal.write(first.folder)
        (first.folder / "run.json").write_text(json.dumps({"uid": "1234"}))
        for path in (first.folder / missing.name).rglob("*"):
            if path.is_file():
                path.unlink()
        newest = first.folder / cut.name / "checkpoints" / "checkpoint_000008"
        (newest / "manifest.json").unlink()
        again = tune.run(given, tmp_path)
        assert [entry.status for entry in again.journal.trials] == ["terminated"] * 3
        assert {path: path.read_bytes() for path in before} == before, "a trial that was done was touched"
        assert [row["training_iteration"] for row in rows(cut, again.folder)] == list(range(1, 9))
        assert "restored from" in (again.folder / cut.name / "train.log").read_text()
        assert [row["training_iteration"] for row in rows(missing, again.folder)] == list(range(1, 9))

    def test_with_another_space_and_more_samples_it_goes_on_as_the_document_says_now(self, tmp_path: Path) -> None:
        given = searched({"lr": {"grid_search": [0.001, 0.01, 0.02]}}, stop={"training_iteration": 2})
        first = tune.run(given, tmp_path)
        journal = first.journal
        journal.trials[1].status = "running"
        journal.trials[2].status = "pending"
        journal.write(first.folder)
        (first.folder / "run.json").write_text(json.dumps({"uid": "1234"}))
        space = {"lr": {"grid_search": [0.03, 0.04, 0.05, 0.06]}, "gamma": {"choice": [0.5]}}
        again = tune.run(searched(space, stop={"training_iteration": 2}), tmp_path, resume=True)
        assert [entry.status for entry in again.journal.trials] == ["terminated"] * 4
        assert [entry.options for entry in again.journal.trials] == [
            {"lr": 0.001},
            {"lr": 0.01},
            {"lr": 0.05, "gamma": 0.5},
            {"lr": 0.06, "gamma": 0.5},
        ]

    @pytest.mark.parametrize(
        ("scheduler", "search"),
        [
            ({"name": "HyperBand", "maxT": 4, "reductionFactor": 2}, {}),
            ({}, {"name": "Optuna"}),
            ({}, {"name": "HyperOpt"}),
        ],
    )
    def test_a_search_by_evaluations_ends_with_its_best(
        self, scheduler: dict[str, Any], search: dict[str, Any], tmp_path: Path
    ) -> None:
        """The first report of each trial has none, and a process that takes one over does not know the last."""
        given = experiment(
            env=TASKS + "Numbers",
            config=quick(hiddens=[16]),
            stop={"training_iteration": 4},
            evaluation={"interval": 2, "episodes": 2},
            tune={
                "space": LR,
                "numSamples": 3,
                "metric": "evaluation/episode_reward_mean",
                "scheduler": scheduler,
                "search": search,
            },
        )
        found = tune.run(given, tmp_path)
        assert [entry.status for entry in found.journal.trials] == ["terminated"] * 3
        assert found.best is not None
        assert found.best.reward == max(entry.reward or 0 for entry in found.journal.trials)

    def test_a_trial_for_which_there_is_no_room_waits_aloud(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """This cluster was there before, and may grow: it has 2 CPUs."""
        monkeypatch.setattr("rltrainer.backend.ray.cluster.LOG_INTERVAL_S", 0.2)
        given = searched({"lr": {"choice": [0.1]}}, config=quick(num_workers=8))
        interrupt = Interrupt()

        def stop_once_said(record: logging.LogRecord) -> bool:
            if "waiting for room for PPO_Numbers_00000, which reserves 9 CPUs" in record.getMessage():
                interrupt.signum = signal.SIGTERM
            return True

        logging.getLogger("rltrainer.backend.ray.cluster").addFilter(stop_once_said)
        with caplog.at_level(logging.INFO), pytest.raises(Interrupted):
            tune.run(given, tmp_path, interrupt=interrupt)
        logging.getLogger("rltrainer.backend.ray.cluster").removeFilter(stop_once_said)
        assert "waiting for a larger cluster: a trial reserves 9 CPUs, and Ray has 2 here" in caplog.text

    def test_a_lost_process_of_a_trial_is_its_reason(self, tmp_path: Path) -> None:
        given = experiment(
            env=TOYS + "Dies",
            config=quick(hiddens=[16], vector_env="sync"),
            stop={"training_iteration": 6},
            tune={"space": {"gamma": {"grid_search": [0.5]}}, "maxFailures": 0},
        )
        with pytest.raises(RunError, match="its process was lost: The actor"):
            tune.run(given, tmp_path)

    @pytest.mark.parametrize(
        ("scheduler", "search"),
        [
            ({"name": "AsyncHyperBand", "maxT": 8, "gracePeriod": 1, "reductionFactor": 2}, {}),
            ({"name": "HyperBand", "maxT": 8}, {}),
            ({"name": "MedianStopping", "gracePeriod": 2, "minSamplesRequired": 2}, {}),
            ({}, {"name": "HyperOpt", "randomTrials": 2}),
            ({}, {"name": "Optuna", "randomTrials": 2}),
        ],
    )
    def test_every_scheduler_and_searcher_finishes_a_search(
        self, scheduler: dict[str, Any], search: dict[str, Any], tmp_path: Path
    ) -> None:
        """With schedulers, the last trials hardly learn."""
        space = {"lr": {"grid_search": [0.02, 0.021, 1e-7, 2e-7]}} if scheduler else LR
        samples = 1 if scheduler else 4
        given = searched(space, numSamples=samples, scheduler=scheduler, search=search, maxConcurrentTrials=2)
        found = tune.run(given, tmp_path)
        assert [entry.status for entry in found.journal.trials] == ["terminated"] * 4
        assert len({entry.options["lr"] for entry in found.journal.trials}) == 4
        reached = [len(rows(entry, found.folder)) for entry in found.journal.trials]
        assert max(reached) == 8
        early = [entry.stopped_by == "ended by the scheduler" for entry in found.journal.trials]
        if scheduler.get("name") in ("AsyncHyperBand", "MedianStopping"):
            assert any(early)
        assert all(count == 8 for count, ended in zip(reached, early, strict=True) if not ended)

    def test_a_population_takes_over_what_is_better_with_options_changed(self, tmp_path: Path) -> None:
        space = {"lr": {"loguniform": [1e-8, 0.1]}, "epochs": {"randint": [1, 6]}}
        given = searched(
            space,
            stop={"training_iteration": 20},
            numSamples=4,
            scheduler={"name": "PBT", "perturbationInterval": 4},
            maxConcurrentTrials=4,
        )
        found = tune.run(given, tmp_path)
        assert [entry.status for entry in found.journal.trials] == ["terminated"] * 4
        seen = {
            entry.name: [(row["training_iteration"], row["config"]) for row in rows(entry, found.folder)]
            for entry in found.journal.trials
        }
        changed = [name for name, each in seen.items() if len({json.dumps(config) for _, config in each}) > 1]
        assert changed, "no trial's options were changed"
        for each in seen.values():
            iterations = [iteration for iteration, _ in each]
            assert iterations == list(range(1, 21)), "a trial's own count goes on"
            assert all(1e-8 <= config["lr"] <= 0.1 and 1 <= config["epochs"] <= 5 for _, config in each)
        logs = [(found.folder / name / "train.log").read_text() for name in changed]
        assert any("goes on from checkpoint_" in text for text in logs)

    def test_a_trial_that_fails_goes_on_and_one_that_cannot_does_not_disturb_the_others(self, tmp_path: Path) -> None:
        given = experiment(
            env=TOYS + "Fragile",
            env_config={"folder": str(tmp_path)},
            config=quick(hiddens=[16], vector_env="sync"),
            stop={"training_iteration": 6},
            checkpoint={"frequency": 1},
            tune={"space": {"gamma": {"grid_search": [0.5, 0.9]}}, "maxFailures": 1},
        )
        found = tune.run(given, tmp_path)
        log = (found.folder / "train.log").read_text()
        assert [entry.status for entry in found.journal.trials] == ["terminated"] * 2
        assert "failed and goes on from its newest checkpoint" in log
        for entry in found.journal.trials:
            assert [row["training_iteration"] for row in rows(entry, found.folder)] == list(range(1, 7))

    def test_of_an_iteration_that_failed_nothing_is_kept(self, tmp_path: Path) -> None:
        """It was the third, and no checkpoint was due before it: the trial begins anew."""
        given = experiment(
            env=TOYS + "Fragile",
            env_config={"folder": str(tmp_path), "raises": True},
            config=quick(hiddens=[16], vector_env="sync"),
            stop={"training_iteration": 6},
            checkpoint={"frequency": 100},
            tune={"space": {"gamma": {"grid_search": [0.5]}}, "maxFailures": 1},
        )
        found = tune.run(given, tmp_path)
        (entry,) = found.journal.trials
        assert [row["training_iteration"] for row in rows(entry, found.folder)] == list(range(1, 7))
        log = (found.folder / entry.name / "train.log").read_text()
        assert "RunError: environment" in log
        assert "the simulator's server is away" in (found.folder / "train.log").read_text()
        assert "restored from" not in log

    def test_when_every_trial_fails_the_search_says_why(self, tmp_path: Path) -> None:
        given = experiment(
            env=TOYS + "Faulty",
            config=quick(hiddens=[16]),
            stop={"training_iteration": 6},
            tune={"space": {"gamma": {"grid_search": [0.5, 0.9]}}, "maxFailures": 0},
        )
        with pytest.raises(RunError, match="every trial failed") as caught:
            tune.run(given, tmp_path)
        assert "the simulator fell over" in str(caught.value)
        journal = journals.read(tmp_path / "test" / "search.json")
        assert journal is not None
        assert [entry.status for entry in journal.trials] == ["failed"] * 2
