"""A search on a cluster: trials on workers that come for them, a head that is lost, and the best trial's policy."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from hack.kubectl import ROOT, KubectlError, Manifest, apply, get, kubectl, wait_until
from tests.e2e.experiments import PATIENCE, Experiment, document, listed

EXAMPLE: Manifest = yaml.safe_load((ROOT / "examples" / "search.yaml").read_text())["spec"]
SPACE: Manifest = {"lr": {"loguniform": [0.0001, 0.01]}, "hiddens": {"choice": [[32], [64, 64]]}}
EVALUATED = "evaluation/episode_reward_mean"


def journal(s3: Any, experiment: Experiment) -> dict[str, Manifest]:
    """The trials by name, as the search has noted them in storage; none before the first note."""
    uri = experiment.status.get("storageUri", "")
    if not uri or "search.json" not in listed(s3, uri):
        return {}
    place = urlsplit(f"{uri}/search.json")
    noted = json.loads(s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read())
    return {trial["name"]: trial for trial in noted["trials"]}


def terminated(trials: dict[str, Manifest]) -> dict[str, Manifest]:
    return {name: trial for name, trial in trials.items() if trial["status"] == "terminated"}


@pytest.mark.timeout(900)
def test_a_search_survives_its_head_and_its_best_trial_is_rolled_out(
    submit: Callable[..., Experiment], s3: Any
) -> None:
    experiment = submit(
        "search",
        tune={"numSamples": 8, "space": SPACE},
        stop={"time_total_s": 10},
        checkpoint={"frequency": 20},
        cluster=EXAMPLE["cluster"],
    )
    experiment.until("the head", lambda e: e.pods("head"))
    assert not experiment.pods("worker"), "a worker came before there was a trial"
    experiment.until("a worker for each of two trials", lambda e: len(e.pods("worker")) == 2)
    experiment.until("two trials done, in storage", lambda e: len(terminated(journal(s3, e))) >= 2)
    assert "trials done" in experiment.status["message"]

    (head,) = experiment.pods("head")
    experiment.kill(head)
    before = terminated(journal(s3, experiment))
    experiment.until("attempt 2 at work", lambda e: e.training.get("attempt") == 2)
    status = experiment.until_phase("Succeeded", timeout=500)

    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Failed", "Succeeded"]
    assert status["training"]["trials"]["done"] == "8/8"
    assert status["training"]["trials"]["terminated"] == 8
    after = journal(s3, experiment)
    assert len(after) == 8
    for name, trial in before.items():
        same = ("options", "stopped_by", "training_iteration", "timesteps_total", "reward")
        assert [after[name][key] for key in same] == [trial[key] for key in same], "a trial that was done was run again"

    best = status["best"]
    assert best == status["training"]["best"]
    assert best["reward"] == max(trial["reward"] for trial in after.values())
    assert best["options"] == after[best["trial"]]["options"]
    assert best["options"].keys() == SPACE.keys()
    folder, _, name = best["checkpoint"]["uri"].rpartition("/")
    assert folder == f"{status['storageUri']}/{best['trial']}/checkpoints"
    assert f"{name}/manifest.json" in listed(s3, folder)
    assert f"The search has 8 of 8 trials done, the best is {best['trial']}" in status["message"]
    shown = kubectl("get", "rlx", "search", "-o", "wide", namespace=experiment.namespace)
    assert "8/8" in shown
    assert best["trial"] in shown
    roll_out(experiment, best["checkpoint"]["uri"])


def roll_out(experiment: Experiment, uri: str) -> None:
    """The best trial's policy runs as a Job."""
    spec = {"experiment": experiment.name, "episodes": 3}
    metadata = {"name": "best-trial"}
    kind = {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLRollout"}
    apply({**kind, "metadata": metadata, "spec": spec}, experiment.namespace)

    def final() -> Manifest | None:
        status: Manifest = (get("rlrollout", "best-trial", experiment.namespace) or {}).get("status", {})
        return status if status.get("phase") in ("Succeeded", "Failed", "Invalid") else None

    status = wait_until("the rollout", final, PATIENCE)
    assert status["phase"] == "Succeeded", status["message"]
    assert status["checkpoint"] == uri
    assert status["results"]["episodes"] == 3


@pytest.mark.timeout(900)
def test_a_suspended_search_keeps_the_last_state_of_each_trial_and_goes_on_from_it(
    submit: Callable[..., Experiment], s3: Any
) -> None:
    """No checkpoint is written but at the end of a trial: those that suspension asks for are all there are."""
    experiment = submit(
        "paused",
        tune={"numSamples": 2, "space": SPACE},
        stop={"time_total_s": 40},
        checkpoint={"frequency": 0},
        cluster=EXAMPLE["cluster"],
    )
    experiment.until("both trials at work", lambda e: e.training.get("trials", {}).get("running") == 2)
    experiment.until_steps(30_000)
    experiment.patch(suspend=True)
    status = experiment.until_phase("Suspended")
    uri, reached = status["storageUri"], status["training"]["iteration"]
    trials = journal(s3, experiment)
    assert [trial["status"] for trial in trials.values()] == ["running", "running"]
    kept = {name: manifests(s3, f"{uri}/{name}/checkpoints") for name in trials}
    assert [len(names) for names in kept.values()] == [1, 1], f"a trial was cut without a checkpoint: {kept}"
    assert sum(int(name.rpartition("_")[2]) for (name,) in kept.values()) >= reached

    experiment.patch(suspend=False)
    status = experiment.until_phase("Succeeded", timeout=500)
    assert status["failures"] == 0
    assert status["training"]["trials"]["done"] == "2/2"
    assert status["training"]["iteration"] > reached
    for name, trial in journal(s3, experiment).items():
        (before,) = kept[name]
        assert trial["training_iteration"] > int(before.rpartition("_")[2])


def manifests(s3: Any, uri: str) -> list[str]:
    """The complete checkpoints below a folder."""
    return sorted(key.split("/")[0] for key in listed(s3, uri) if key.endswith("/manifest.json"))


REFUSED: tuple[tuple[Manifest, str], ...] = (
    ({"tune": {"space": {"lr": {}}}}, "at least 1 properties"),
    ({"tune": {"space": {"lr": {"uniform": [0.1, 0.2], "choice": [1]}}}}, "at most 1 item"),
    ({"tune": {"space": {"learning_rate": {"choice": [1]}}}}, "unknown option"),
    ({"tune": {"space": {"lr": {"unifrm": [0.1, 0.2]}}}}, "spec.tune.space has no field lr.unifrm"),
    ({"tune": {"space": {"lr": {"uniform": [0.2, 0.1]}}}}, "low must be below high"),
    ({"tune": {"space": {"lr": {"loguniform": [0, 0.1]}}}}, "needs a low above 0"),
    ({"tune": {"space": SPACE, "scheduler": {"name": "PBT", "maxT": 9}}}, "maxT belongs to AsyncHyperBand"),
    ({"tune": {"scheduler": {"name": "PBT"}}}, "PBT changes the options in space"),
    ({"tune": {"search": {"name": "Optuna"}}}, "HyperOpt and Optuna search in space"),
    ({"tune": {"space": SPACE, "search": {"randomTrials": 3}}}, "Random takes no randomTrials"),
    ({"tune": {"metric": EVALUATED}}, "spec.tune.metric of an evaluation needs spec.evaluation"),
    ({"stop": {EVALUATED: 475}}, "needs spec.evaluation"),
    ({"checkpoint": {"scoreAttribute": f"min-{EVALUATED}"}}, "needs spec.evaluation"),
    ({"checkpoint": {"scoreAttribute": EVALUATED, "frequency": 15}, "evaluation": {}}, "must be a multiple of"),
)  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[str(spec) for spec, _ in REFUSED])
def test_apply_refuses_a_search_that_cannot_be(namespace: str, spec: Manifest, message: str) -> None:
    with pytest.raises(KubectlError, match=message):
        apply(document("refused", **spec), namespace)


def test_apply_keeps_values_of_any_type_as_they_are(namespace: str) -> None:
    space = {
        "hiddens": {"choice": [[64, 64], [256]]},
        "activation": {"grid_search": ["tanh", "relu"]},
        "seed": {"choice": [None, 3]},
        "custom": {"choice": [{"depth": {"of": [1, 2.5]}}]},
    }
    apply(document("kept", suspend=True, tune={"space": space}), namespace)
    found = get("rlexperiment", "kept", namespace)
    assert found is not None
    assert found["spec"]["tune"]["space"] == space


def test_what_the_schema_cannot_say_is_a_condition(submit: Callable[..., Experiment]) -> None:
    grid = {"space": {"lr": {"grid_search": [0.1, 0.01]}}, "search": {"name": "Optuna"}}
    experiment = submit("grid", tune=grid)
    accepted = experiment.until_condition("Accepted", "False", "InvalidOption")
    assert "Optuna knows no grids: give lr a choice instead" in accepted["message"]
    experiment.patch(tune={"search": {"name": "Random"}, "resourcesPerTrial": {"cpu": 64}})
    accepted = experiment.until_condition("Accepted", "False", "NotEnoughCPUs")
    assert "resourcesPerTrial.cpu: 64 CPUs fit no pod" in accepted["message"]
