"""No field of a document is accepted and ignored: each one, set to something else, changes what comes of the document.

The tables are held against the models' own fields: a new one that is not in them fails. What a field changes is seen in
what the operator makes of the document, without the copy of it that the trainer is handed, or in what the trainer does.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from rloperator.config import Settings
from rloperator.experiment import reconcile as of_experiments
from rloperator.kube.types import Observed
from rloperator.rollout import reconcile as of_rollouts

from rltrainer.api.documents import Experiment
from rltrainer.api.experiment import ExperimentSpec, Storage
from rltrainer.api.rollout import RolloutSpec
from rltrainer.api.tune import KINDS

HERE = Path(__file__).parent
Spec = dict[str, Any]
Reader = Callable[[Spec], Any]


class Row(NamedTuple):
    """Another value of a field, who reads it, and what it takes for the field to mean anything."""

    value: Any
    reader: Reader
    where: Spec = {}  # noqa: RUF012 - read only


# ---- Who reads a document -------------------------------------------------------------------------------------------

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SETTINGS = Settings(trainer_image="trainer:1", storage=Storage(uri="s3://ours/runs"))
CHECKPOINTS = {
    kind: {"uri": f"s3://ours/{kind}", "iteration": 1, "timestepsTotal": 1} for kind in ("checkpoint", "bestCheckpoint")
}


def owner(kind: str, spec: Spec, name: str = "mine", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": "0a1b2c3d-0000", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "rltrainer.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}


SOURCE = owner("RLExperiment", {"run": "PPO", "env": "CartPole-v1"}, "other", training=CHECKPOINTS)


def outcome(
    module: Any, document: dict[str, Any], source: dict[str, Any] | None = None, jobs: tuple[dict[str, Any], ...] = ()
) -> str:
    """What the operator does about a document, without the document in it, and without its hash."""
    done = module.reconcile(Observed(document, jobs, source=source), SETTINGS, NOW)
    manifests = [m for m in (*done.apply, *done.create) if m["kind"] != "ConfigMap"]
    for manifest in manifests:
        manifest["metadata"].get("annotations", {}).pop("rltrainer.io/spec-hash", None)
    status = copy.deepcopy(done.status or {})
    for attempt in status.get("attempts", []):
        attempt.pop("specHash", None)
    return json.dumps([manifests, status], sort_keys=True, default=str)


def operator(spec: Spec) -> Any:
    """A new experiment, beside one that it may go on from."""
    return outcome(of_experiments, owner("RLExperiment", spec), SOURCE)


def failures(spec: Spec) -> Any:
    """An experiment whose first attempt has failed."""
    times = {"startedAt": "2029-12-31T00:00:00Z", "endedAt": "2029-12-31T01:00:00Z"}
    attempt = {"number": 1, "outcome": "Failed", "specHash": "a", **times}
    return outcome(of_experiments, owner("RLExperiment", spec, attempt=1, failures=1, attempts=[attempt]))


def silent(spec: Spec) -> Any:
    """An experiment whose first attempt trains, and has reported nothing for an hour."""
    attempt = {"number": 1, "outcome": "Running", "startedAt": "2029-12-31T00:00:00Z"}
    training = {"attempt": 1, "updatedAt": "2029-12-31T23:00:00Z"}
    document = owner("RLExperiment", spec, attempt=1, attempts=[attempt], training=training)
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": {}, "status": {"jobDeploymentStatus": "Running"}}
    reference = {"kind": "RLExperiment", "name": document["metadata"]["name"], "controller": True}
    labels = {"rltrainer.io/attempt": "1"}
    job["metadata"] = {"name": "job", "namespace": "n", "uid": "j", "labels": labels,
                       "ownerReferences": [reference | {"uid": document["metadata"]["uid"]}]}  # fmt: skip
    return outcome(of_experiments, document, jobs=(job,))


def job(spec: Spec) -> Any:
    """A new rollout, of the experiment that it names."""
    return outcome(of_rollouts, owner("RLRollout", spec), SOURCE if "experiment" in spec else None)


TIMES = ("time_", "sample_time", "learn_time", "timesteps_per_second")


@cache
def _training(document: str) -> Any:
    from rltrainer.runs.train import run

    experiment = Experiment.parse({"metadata": {"name": "mine"}, "spec": json.loads(document)})
    with tempfile.TemporaryDirectory() as place:
        result = run(experiment, place)
        rows = [json.loads(line) for line in (result.folder / "result.json").read_text().splitlines()]
        kept = sorted(path.name for path in (result.folder / "checkpoints").glob("*/"))
    rows = [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]
    return result.stopped_by, rows, kept


def training(spec: Spec) -> Any:
    """A short run: why it stopped, its rows, and its checkpoints."""
    return _training(json.dumps(spec, sort_keys=True))


def store(spec: Spec) -> Any:
    """How the trainer reaches S3."""
    from rltrainer.storage.open import open_store

    storage = Storage.model_validate(spec["storage"])
    opened: Any = open_store(storage.uri, storage)
    return opened.client.meta.endpoint_url, opened.client.meta.region_name


def origin(spec: Spec) -> Any:
    """Which checkpoint the trainer starts from."""
    from rltrainer.storage.restore import restore_uri

    return restore_uri(ExperimentSpec.model_validate(spec), None)


def trials(spec: Spec) -> Any:
    """The options of the trials of a random search."""
    from rltrainer.tune.space import draw

    tune = ExperimentSpec.model_validate(spec).tune
    assert tune is not None
    return draw(tune)


def reserved(spec: Spec) -> Any:
    """What a trial reserves of the cluster."""
    from rltrainer.tune.driver import bundles

    read = ExperimentSpec.model_validate(spec)
    assert read.tune is not None
    return bundles(read.tune, read.options())


def scheduler(spec: Spec) -> Any:
    """The scheduler of a search, and what it is made with."""
    from rltrainer.tune import schedulers
    from rltrainer.tune.journal import Journal

    read = ExperimentSpec.model_validate(spec)
    assert read.tune is not None
    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in schedulers.SCHEDULER_CLASSES:
            make = lambda name=name, **arguments: made.append((name, arguments))  # noqa: E731
            patch.setitem(schedulers.SCHEDULER_CLASSES, name, make)
        schedulers.scheduler(read, read.tune, Journal(metric="", mode="max"), Path())
    return [(name, {key: value for key, value in arguments.items() if not callable(value)}) for name, arguments in made]


def request(spec: Spec) -> Any:
    """The rollout that the trainer runs."""
    from rltrainer.cli.play import from_document

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rollout.yaml"
        path.write_text(yaml.safe_dump(owner("RLRollout", spec)))
        return from_document(str(path))


# ---- Every field ----------------------------------------------------------------------------------------------------

QUICK = {"seed": 1, "num_envs_per_worker": 8, "rollout_fragment_length": 16, "hiddens": [8]}
EXPERIMENT: Spec = {"run": "PPO", "env": "CartPole-v1", "config": QUICK}
SHORT: Spec = {"stop": {"training_iteration": 4}}
TINY: Spec = {**SHORT, "envConfig": {"max_episode_steps": 1}}
EVALUATED: Spec = {**SHORT, "evaluation": {"interval": 2, "episodes": 2}}
OFTEN: Spec = {**SHORT, "checkpoint": {"frequency": 1, "keep": 1}}
STORED: Spec = {"storage": {"uri": "s3://bucket/a", "region": "eu-west-1"}}
WITH_SECRET: Spec = {"storage": {"uri": "s3://bucket/a", "credentialsSecret": "secret"}}
KEYS = ("accessKeyId", "secretAccessKey", "sessionToken")
POOL: Spec = {"cluster": {"workers": [{"name": "cpu", "maxReplicas": 2}]}}
GPUS: Spec = {"cluster": {"workers": [{"name": "cpu", "gpus": 1}]}}
SEARCHED: Spec = {"tune": {"space": {"lr": {"uniform": [0.1, 0.2]}}}}
TRIAL_GPU: Spec = {"config": {"num_gpus": 1}, **SEARCHED}
TOLERATIONS = [{"key": "gpu", "operator": "Exists"}]


def scheduled(name: str) -> Spec:
    return {"tune": {**SEARCHED["tune"], "scheduler": {"name": name}}}


def pods(path: str, reader: Reader, where: Spec) -> dict[str, Row]:
    values = {
        "cpu": "3",
        "memory": "3Gi",
        "nodeSelector": {"disk": "fast"},
        "tolerations": TOLERATIONS,
        "podTemplate": {"metadata": {"labels": {"team": "a"}}},
    }
    return {f"{path}.{name}": Row(value, reader, where) for name, value in values.items()}


DOMAINS: dict[str, Any] = {
    "grid_search": [0.3],
    "choice": [0.3],
    "uniform": [0.3, 0.4],
    "quniform": [0.3, 0.4, 0.05],
    "loguniform": [0.3, 0.4],
    "qloguniform": [0.3, 0.4, 0.05],
    "randn": [0.3, 0.4],
    "qrandn": [0.3, 0.4, 0.05],
    "randint": [3, 9],
    "qrandint": [3, 9, 3],
    "lograndint": [3, 9],
    "qlograndint": [3, 9, 3],
}

EXPERIMENT_ROWS = {
    "run": Row("A2C", training, SHORT),
    "env": Row("Acrobot-v1", training, SHORT),
    "envConfig": Row({"max_episode_steps": 3}, training, SHORT),
    "config": Row({**QUICK, "lr": 0.1}, training, SHORT),
    "stop.episode_reward_mean": Row(0.5, training, TINY),
    "stop.evaluation/episode_reward_mean": Row(0.0, training, EVALUATED),
    "stop.timesteps_total": Row(1, training, SHORT),
    "stop.training_iteration": Row(3, training, SHORT),
    "stop.episodes_total": Row(1, training, TINY),
    "stop.time_total_s": Row(0, training, SHORT),
    "checkpoint.frequency": Row(1, training, SHORT),
    "checkpoint.atEnd": Row(False, training, SHORT),
    "checkpoint.keep": Row(2, training, OFTEN),
    "checkpoint.scoreAttribute": Row("min-episode_reward_mean", training, OFTEN),
    "evaluation.interval": Row(1, training, EVALUATED),
    "evaluation.episodes": Row(3, training, EVALUATED),
    "evaluation.deterministic": Row(False, training, EVALUATED),
    "storage.uri": Row("s3://bucket/b", operator, STORED),
    "storage.endpoint": Row("http://s3:9000", store, STORED),
    "storage.region": Row("eu-west-2", store, STORED),
    "storage.credentialsSecret": Row("secret", operator, STORED),
    **{f"storage.credentialsKeys.{key}": Row("mine", operator, WITH_SECRET) for key in KEYS},
    "tune.numSamples": Row(2, trials, SEARCHED),
    **{f"tune.space.*.{kind}": Row(value, trials, {"tune": {}}) for kind, value in DOMAINS.items()},
    "tune.metric": Row("episode_len_mean", scheduler, scheduled("HyperBand")),
    "tune.mode": Row("min", scheduler, scheduled("HyperBand")),
    "tune.scheduler.name": Row("PBT", scheduler, SEARCHED),
    "tune.scheduler.timeAttr": Row("timesteps_total", scheduler, scheduled("PBT")),
    "tune.scheduler.maxT": Row(7, scheduler, scheduled("HyperBand")),
    "tune.scheduler.gracePeriod": Row(7, scheduler, scheduled("MedianStopping")),
    "tune.scheduler.reductionFactor": Row(7, scheduler, scheduled("HyperBand")),
    "tune.scheduler.brackets": Row(7, scheduler, scheduled("AsyncHyperBand")),
    "tune.scheduler.minSamplesRequired": Row(7, scheduler, scheduled("MedianStopping")),
    "tune.scheduler.perturbationInterval": Row(7, scheduler, scheduled("PBT")),
    "tune.scheduler.quantileFraction": Row(0.4, scheduler, scheduled("PBT")),
    "tune.scheduler.resampleProbability": Row(0.4, scheduler, scheduled("PBT")),
    "tune.search.seed": Row(3, trials, SEARCHED),
    "tune.resourcesPerTrial.cpu": Row(3, reserved, SEARCHED),
    "tune.resourcesPerTrial.gpu": Row(0.5, reserved, TRIAL_GPU),
    "maxFailures": Row(0, failures),
    "restoreFrom.uri": Row("s3://bucket/c", origin),
    "restoreFrom.experiment": Row("other", operator),
    "restoreFrom.which": Row("best", operator, {"restoreFrom": {"experiment": "other"}}),
    "suspend": Row(True, operator),
    "cluster.image": Row("mine:2", operator),
    "cluster.imagePullPolicy": Row("Always", operator),
    "cluster.imagePullSecrets": Row(["registry"], operator),
    "cluster.serviceAccount.name": Row("ml", operator),
    "cluster.serviceAccount.annotations": Row({"role": "arn"}, operator),
    **pods("cluster.head", operator, {}),
    **pods("cluster.workers.0", operator, POOL),
    "cluster.workers.0.name": Row("more", operator, POOL),
    "cluster.workers.0.minReplicas": Row(1, operator, POOL),
    "cluster.workers.0.maxReplicas": Row(3, operator, POOL),
    "cluster.workers.0.gpus": Row(1, operator, POOL),
    "cluster.workers.0.gpuResource": Row("amd.com/gpu", operator, GPUS),
    "cluster.autoscaling.idleTimeoutSeconds": Row(7, operator, POOL),
    "cluster.autoscaling.upscalingMode": Row("Aggressive", operator, POOL),
    "cluster.gracePeriodSeconds": Row(7, operator),
    "cluster.keepSecondsAfterFinished": Row(7, operator),
    "cluster.startDeadlineSeconds": Row(7, operator),
    "cluster.activeDeadlineSeconds": Row(7, operator),
    "cluster.stallTimeoutSeconds": Row(7, silent),
    "cluster.ingress": Row([{"ports": [{"port": 8080}]}], operator),
    "cluster.queueName": Row("queue", operator),
    "cluster.priorityClassName": Row("high", operator),
}
"""By the keys that lead to a field of an RLExperiment's spec; * is an option."""
ELSEWHERE = {
    "tune.search.name": "trainer/test_tune.py",
    "tune.search.randomTrials": "trainer/test_tune.py",
    "tune.maxConcurrentTrials": "trainer/test_tune.py",
    "tune.maxFailures": "trainer/test_tune.py",
}
"""Fields that only whole searches read, and the tests that set them."""

ROLLOUT: Spec = {"checkpoint": "s3://bucket/a", "storage": {"uri": "s3://bucket/a"}}
OF_EXPERIMENT: Spec = {"checkpoint": None, "experiment": "other"}
ROLLOUT_ROWS = {
    "experiment": Row("other", job, {"checkpoint": None}),
    "which": Row("latest", job, OF_EXPERIMENT),
    "checkpoint": Row("s3://bucket/b", job),
    "storage.uri": Row("s3://bucket/b", request, {"out": True}),
    "storage.endpoint": Row("http://s3:9000", request),
    "storage.region": Row("eu-west-2", request),
    "storage.credentialsSecret": Row("secret", job),
    **{f"storage.credentialsKeys.{key}": Row("mine", job, WITH_SECRET) for key in KEYS},
    "episodes": Row(3, request),
    "steps": Row(3, request),
    "deterministic": Row(False, request),
    "seed": Row(3, request),
    "out": Row(True, request),
    "video": Row(True, request),
    "image": Row("mine:2", job),
    "serviceAccount.name": Row("ml", job),
    "serviceAccount.annotations": Row({"role": "arn"}, job),
    **pods("pods", job, {}),
    "backoffLimit": Row(7, job),
}
"""By the keys that lead to a field of an RLRollout's spec."""


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The keys that lead to each field of a model that holds no other fields; 0 is an item of a list, * any key."""
    for name, field in model.model_fields.items():
        here = f"{path}{field.alias or name}"
        inner = list(_models(field.annotation))
        for more, each in inner:
            yield from fields(each, f"{here}{more}.")
        if not inner:
            yield here


def _models(annotation: Any, more: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield more, annotation
    item = ".0" if get_origin(annotation) is list else ".*" if get_origin(annotation) is dict else ""
    for part in get_args(annotation):
        yield from _models(part, more + item)


def merged(spec: Spec, more: Spec) -> Spec:
    """`spec` with `more` over it; None takes a field away."""
    both = dict(spec)
    for name, value in more.items():
        both[name] = merged(both[name], value) if isinstance(both.get(name), dict) and value else value
    return {name: value for name, value in both.items() if value is not None}


def changed(spec: Spec, path: str, value: Any) -> Spec:
    """`spec` with another value of the field at `path`."""
    spec = copy.deepcopy(spec)
    *parents, last = path.replace("*", "lr").split(".")
    inner: Any = spec
    for key in parents:
        inner = inner[int(key)] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[last] = value
    return spec


def test_the_tables_have_every_field() -> None:
    assert set(fields(ExperimentSpec)) == EXPERIMENT_ROWS.keys() | ELSEWHERE.keys()
    assert set(fields(RolloutSpec)) == ROLLOUT_ROWS.keys()
    assert DOMAINS.keys() == set(KINDS)


APART = (
    "cluster.serviceAccount.name",
    "restoreFrom.uri",
    "stop.evaluation/",
    "tune.space.",
    "tune.scheduler.",
    "tune.search.",
)
"""Beginnings of fields that exclude each other, or need what is set elsewhere: of these a document has one."""


def test_a_document_with_every_field_set_renders() -> None:
    """All at once: the operator makes an attempt of it, and finds nothing in it that it does not know."""
    spec: Spec = merged(EXPERIMENT, merged(POOL, STORED))
    for path, row in EXPERIMENT_ROWS.items():
        if not path.startswith(APART):
            spec = changed(spec, path, row.value)
    spec["env"], spec["run"], spec["suspend"] = "CartPole-v1", "PPO", False
    spec["config"] |= {"num_gpus": 1}
    spec["tune"] |= {"space": {"lr": {"uniform": [0.1, 0.2]}}, "maxConcurrentTrials": 2, "maxFailures": 1}
    spec["cluster"]["workers"][0] |= {"gpus": 1}
    read = ExperimentSpec.model_validate(spec)
    assert [path for path in fields(ExperimentSpec) if not path.startswith(APART) and not is_set(read, path)] == []
    manifests, status = json.loads(operator(spec))
    assert [manifest["kind"] for manifest in manifests][-1] == "RayJob", status


def is_set(model: Any, path: str) -> bool:
    """Whether a document says something of the field at `path`."""
    for key in path.replace("*", "lr").split("."):
        if isinstance(model, list):
            model = model[int(key)]
        elif isinstance(model, dict):
            model = model.get(key)
        else:
            names = {field.alias or name: name for name, field in type(model).model_fields.items()}
            if names[key] not in model.model_fields_set:
                return False
            model = getattr(model, names[key])
    return True


@pytest.mark.parametrize(("path", "file"), ELSEWHERE.items())
def test_fields_of_other_tests_are_set_there(path: str, file: str) -> None:
    text = (HERE / file).read_text()
    *_, parent, name = path.split(".")
    assert f"{name}=" in text or f'"{name}":' in text or f"{parent}=" in text


def test_the_same_document_gives_the_same_and_the_operators_copy_of_it_does_not_count() -> None:
    _training.cache_clear()
    spec = merged(EXPERIMENT, EVALUATED)
    first = training(spec)
    _training.cache_clear()
    assert training(spec) == first
    assert operator(spec) == operator(EXPERIMENT)
    assert job(ROLLOUT) == job({**ROLLOUT, "episodes": 3})


@pytest.mark.parametrize("path", EXPERIMENT_ROWS)
def test_every_field_of_an_experiment_is_read(path: str) -> None:
    row = EXPERIMENT_ROWS[path]
    spec = merged(EXPERIMENT, row.where)
    other = changed(spec, path, row.value)
    for each in (spec, other):
        ExperimentSpec.model_validate(each)
    assert row.reader(spec) != row.reader(other)


@pytest.mark.parametrize("path", ROLLOUT_ROWS)
def test_every_field_of_a_rollout_is_read(path: str) -> None:
    row = ROLLOUT_ROWS[path]
    spec = merged(ROLLOUT, row.where)
    other = changed(spec, path, row.value)
    RolloutSpec.model_validate(other)
    assert row.reader(spec) != row.reader(other)
