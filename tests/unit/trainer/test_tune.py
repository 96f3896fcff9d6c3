"""Searches: where options come from, what the journal keeps, and real ones under every scheduler and searcher."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import ray

from rltrainer import tune
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OptionError
from rltrainer.api.tune import INTEGERS
from rltrainer.errors import RunError
from rltrainer.runs.context import RunContext
from rltrainer.tune import journal as journals
from rltrainer.tune.driver import SearchDriver, bundles
from rltrainer.tune.journal import Journal, TrialEntry
from rltrainer.tune.search import PastTrial, Suggestions, scheduler
from rltrainer.tune.space import checked, clamped, draw, trial_count
from rltrainer.tune.trial import Plan
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

    def test_without_its_journal_it_does_not_begin_anew(self, tmp_path: Path) -> None:
        """The operator knows that it has begun."""
        given = searched({"lr": {"grid_search": [0.001]}})
        context = RunContext(tmp_path, expected="s3://b/r/search.json")
        with pytest.raises(RunError, match=r"s3://b/r/search.json is the journal of this search, and is not there"):
            SearchDriver(Plan(given, tmp_path, None, None), context)._open()
        assert not (tmp_path / "search.json").exists()

    def test_with_another_space_and_more_samples_it_goes_on_as_the_document_says_now(self, tmp_path: Path) -> None:
        given = searched({"lr": {"grid_search": [0.001, 0.01, 0.02]}}, stop={"training_iteration": 2})
        first = tune.run(given, tmp_path)
        journal = first.journal
        journal.trials[1].status = "running"
        journal.trials[2].status = "pending"
        journal.write(first.folder)
        (first.folder / "run.json").write_text(json.dumps({"uid": "1234"}))
        space = {"lr": {"grid_search": [0.03, 0.04, 0.05, 0.06]}, "gamma": {"choice": [0.5]}}
        again = tune.run(searched(space, stop={"training_iteration": 2}), tmp_path)
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
