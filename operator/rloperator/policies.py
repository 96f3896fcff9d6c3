"""What must hold before anything is made: ordered, pure checks of a document.

Each gives a reason and a message for whoever wrote the document, or nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from rloperator.config import Settings
from rloperator.names import Manifest, storage_of
from rltrainer.options import OptionError, describe
from rltrainer.spec import ExperimentSpec, Pods, RolloutSpec, Storage

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
    try:
        return ExperimentSpec.model_validate(spec)
    except ValidationError as error:
        return Refusal("InvalidDocument", "; ".join(describe(problem, "spec") for problem in error.errors()))


def parse_rollout(spec: Manifest) -> RolloutSpec | Refusal:
    """A rollout's spec, or why it is none."""
    try:
        return RolloutSpec.model_validate(spec)
    except ValidationError as error:
        return Refusal("InvalidDocument", "; ".join(describe(problem, "spec") for problem in error.errors()))


def _options(subject: Subject) -> Refusal | None:
    try:
        subject.spec.options()
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


def _cpus(subject: Subject) -> Refusal | None:
    options, cluster = subject.spec.options(), subject.spec.cluster
    places = [(group.max_replicas, ray_cpus(group)) for group in cluster.workers] or [(1, ray_cpus(cluster.head))]
    fitting = sum(replicas * int(cpus / options.num_cpus_per_worker) for replicas, cpus in places)
    learners = max(options.num_learners, options.num_gpus)  # actors of one CPU each, beside the workers
    whole = sum(replicas * int(cpus) for replicas, cpus in places)
    if options.num_workers <= fitting and options.num_workers * options.num_cpus_per_worker + learners <= whole:
        return None
    asked = f"num_workers {options.num_workers} of {options.num_cpus_per_worker:g} CPUs each"
    asked += f" and {learners} learners of 1" if learners else ""
    where = f"the groups in spec.cluster.workers have room for {fitting}" if cluster.workers else (
        f"without spec.cluster.workers they share the head, which has room for {fitting}"
    )  # fmt: skip
    return Refusal(
        "NotEnoughCPUs", f"spec.config: {asked} do not fit: {where}. Raise maxReplicas or cpu, or add a group"
    )


def _gpus(subject: Subject) -> Refusal | None:
    options, groups = subject.spec.options(), subject.spec.cluster.workers
    needed = options.num_gpus * max(1, options.num_learners)
    there = sum(group.max_replicas * group.gpus for group in groups)
    if needed <= there:
        return None
    if not there:
        return Refusal(
            "NoGPUs", "spec.config.num_gpus is 1 and no group in spec.cluster.workers has GPUs: set gpus in one of them"
        )
    return Refusal(
        "NoGPUs",
        f"spec.config: {needed} learners with a GPU each do not fit: the groups in spec.cluster.workers have {there} "
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


POLICIES: tuple[Policy, ...] = (_options, _storage, _cpus, _gpus, _restore)


def refusal(subject: Subject) -> Refusal | None:
    """The first objection to a document, or None."""
    return next((found for policy in POLICIES if (found := policy(subject))), None)
