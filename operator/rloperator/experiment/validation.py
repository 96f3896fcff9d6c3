"""What must hold before anything is made: ordered, pure checks of a document.

Each gives a reason and a message for whoever wrote the document, or nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from rloperator.config import Settings
from rloperator.kube.names import Manifest, storage_of
from rltrainer.options import OptionError, complaint
from rltrainer.spec import Cluster, ExperimentSpec, Pods, RolloutSpec, Storage

_SCALE = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)
}


@dataclass(frozen=True)
class Refusal:
    """Why a document cannot be run."""

    reason: str
    message: str


@dataclass(frozen=True)
class Subject:
    """What a policy looks at."""

    name: str
    spec: ExperimentSpec
    storage: Storage | None
    source: Manifest | None
    """The experiment that restoreFrom names, where there is one."""
    has_checkpoint: bool = False
    """Whether the run has a checkpoint of its own, from which it goes on whatever becomes of the source."""


Policy = Callable[[Subject], Refusal | None]
Spec = TypeVar("Spec", ExperimentSpec, RolloutSpec)


def quantity(text: str) -> float:
    """The number that a Kubernetes quantity stands for."""
    digits = text.rstrip("mkKMGTPi")
    return float(digits) * _SCALE[text[len(digits) :]]


def ray_cpus(pods: Pods) -> int:
    """CPUs that Ray counts in such a pod: whole ones, rounded up."""
    return math.ceil(quantity(pods.cpu))


def storage_of_run(spec: ExperimentSpec, status: Manifest, settings: Settings) -> Storage | None:
    """The document's storage or the operator's; a run stays where it began when the operator's default moves."""
    if spec.storage is not None or settings.storage is None:
        return spec.storage
    if began := status.get("storageUri"):
        return settings.storage.model_copy(update={"uri": storage_of(began)})
    return settings.storage


def parse(spec: Manifest) -> ExperimentSpec | Refusal:
    """The document's spec, or why it is none."""
    return _parsed(ExperimentSpec, spec)


def parse_rollout(spec: Manifest) -> RolloutSpec | Refusal:
    """A rollout's spec, or why it is none."""
    return _parsed(RolloutSpec, spec)


def _parsed(kind: type[Spec], spec: Manifest) -> Spec | Refusal:
    try:
        return kind.model_validate(spec)
    except ValidationError as error:
        return Refusal("InvalidDocument", complaint(error, "spec", kind))


def _options(subject: Subject) -> Refusal | None:
    spec = subject.spec
    try:
        spec.options()
        if spec.tune is not None:
            spec.tune.check(spec.run, spec.config)
    except OptionError as error:
        return Refusal("InvalidOption", str(error))
    return None


def _storage(subject: Subject) -> Refusal | None:
    if subject.storage is None:
        return Refusal(
            "NoStorage", "the experiment names no storage and the operator has none: set spec.storage.uri, "
            "or storage.uri in the operator's Helm values"
        )  # fmt: skip
    return None


@dataclass(frozen=True)
class _Processes:
    """What Ray places for a run beside its driver, or for one trial of a search: learners of one CPU each, and workers.

    Where a search is over one of these numbers, it is the largest.
    """

    workers: int
    worker_cpus: float
    learners: int
    learner_gpus: float

    @classmethod
    def of(cls, spec: ExperimentSpec) -> "_Processes":
        gpus, share = int(_largest(spec, "num_gpus")), spec.tune.resources_per_trial.gpu if spec.tune else None
        learners = max(int(_largest(spec, "num_learners")), gpus)
        workers = max(int(_largest(spec, "num_workers")), min(1, learners))  # an actor that learns does not sample
        return cls(workers, _largest(spec, "num_cpus_per_worker"), learners, gpus * (share or 1.0))

    @property
    def cpus(self) -> float:
        """Of all of them."""
        return self.workers * self.worker_cpus + self.learners


def _largest(spec: ExperimentSpec, option: str) -> float:
    domain = spec.tune.space.get(option) if spec.tune else None
    return float(max(domain.examples()) if domain else getattr(spec.options(), option))


def _places(cluster: Cluster) -> list[tuple[int, int]]:
    """Pods that Ray places processes in, and the CPUs that it counts in each."""
    return [(group.max_replicas, ray_cpus(group)) for group in cluster.workers] or [(1, ray_cpus(cluster.head))]


def _cpus(subject: Subject) -> Refusal | None:
    needed, cluster = _Processes.of(subject.spec), subject.spec.cluster
    fitting = sum(replicas * int(cpus / needed.worker_cpus) for replicas, cpus in _places(cluster))
    whole = sum(replicas * cpus for replicas, cpus in _places(cluster))
    if needed.workers <= fitting and needed.cpus <= whole:
        return None
    asked = f"num_workers {needed.workers} of {needed.worker_cpus:g} CPUs each"
    asked += f" and {needed.learners} learners of 1" if needed.learners else ""
    where = f"the groups in spec.cluster.workers have room for {fitting}" if cluster.workers else (
        f"without spec.cluster.workers they share the head, which has room for {fitting}"
    )  # fmt: skip
    return Refusal(
        "NotEnoughCPUs", f"spec.config: {asked} do not fit: {where}. Raise maxReplicas or cpu, or add a group"
    )


def _trial(subject: Subject) -> Refusal | None:
    """A trial has, beside its learners and workers, a process that drives it: it is no driver in the head."""
    tune, cluster = subject.spec.tune, subject.spec.cluster
    if tune is None:
        return None
    own, more = tune.resources_per_trial.cpu or 1.0, _Processes.of(subject.spec).cpus
    whole, largest = sum(n * cpus for n, cpus in _places(cluster)), max(cpus for _, cpus in _places(cluster))
    there = "the groups in spec.cluster.workers have" if cluster.workers else (
        "without spec.cluster.workers trials share the head, which has"
    )  # fmt: skip
    if own > largest:
        said = f"spec.tune.resourcesPerTrial.cpu: {own:g} CPUs fit no pod: {there} at most {largest} in one. Raise cpu"
        return Refusal("NotEnoughCPUs", said)
    if own + more > whole:
        asked = f"{own + more:g} CPUs, {own:g} of its own and {more:g} of its learners and workers"
        said = f"spec.tune: one trial takes {asked}, and {there} {whole}. Raise maxReplicas or cpu, or add a group"
        return Refusal("NotEnoughCPUs", said)
    return None


def _gpus(subject: Subject) -> Refusal | None:
    processes, groups = _Processes.of(subject.spec), subject.spec.cluster.workers
    share = processes.learner_gpus
    needed = processes.learners if share else 0
    there = sum(group.max_replicas * group.gpus for group in groups)
    if not needed or needed <= sum(group.max_replicas * int(group.gpus / share) for group in groups):
        return None
    if not there:
        return Refusal(
            "NoGPUs", "spec.config.num_gpus is 1 and no group in spec.cluster.workers has GPUs: set gpus in one of them"
        )
    each = "a GPU" if share == 1 else f"{share:g} GPUs"
    return Refusal(
        "NoGPUs",
        f"spec.config: {needed} learners with {each} each do not fit: the groups in spec.cluster.workers have {there} "
        "GPUs. Raise maxReplicas or gpus",
    )


def _restore(subject: Subject) -> Refusal | None:
    asked = subject.spec.restore_from.experiment if subject.spec.restore_from else None
    if asked == subject.name:
        return Refusal("RestoreFromItself", "spec.restoreFrom.experiment names this experiment itself")
    if asked and subject.source is None and not subject.has_checkpoint:
        return Refusal(
            "ExperimentNotFound", f'spec.restoreFrom.experiment: there is no RLExperiment "{asked}" in this namespace'
        )
    return None


POLICIES: tuple[Policy, ...] = (_options, _storage, _cpus, _gpus, _trial, _restore)


def refusal(subject: Subject) -> Refusal | None:
    """The first objection to a document, or None."""
    return next((found for policy in POLICIES if (found := policy(subject))), None)
