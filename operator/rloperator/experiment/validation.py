"""What must hold before anything is made: ordered, pure rules for a document.

Each is a fact that keeps a document from being run, and says so to whoever wrote it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from rloperator.config import PodTemplates
from rloperator.decisions import Rejection, waited_for
from rloperator.kube.merge import malformed
from rloperator.kube.names import HEAD_CONTAINER, WORKER_CONTAINER
from rloperator.kube.pod_security import forbidden
from rloperator.kube.types import Manifest
from rltrainer.api.cluster import Cluster, Head, Pods, Workers
from rltrainer.api.experiment import ExperimentSpec, Storage
from rltrainer.api.options import OptionError

_SCALE = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)
}

_RAY_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH"}


@dataclass(frozen=True)
class ValidationInput:
    """The facts that the rules look at."""

    name: str
    spec: ExperimentSpec
    storage: Storage | None
    source: Manifest | None
    """The experiment that restoreFrom names, where there is one."""
    pod_templates: PodTemplates = "restricted"
    """How much a podTemplate may ask for."""
    account_refusal: str | None = None
    """Why the document may not run as the ServiceAccount that it names, where it may not."""
    has_checkpoint: bool = False
    """Whether the run has a checkpoint of its own, from which it goes on whatever becomes of the source."""


def validate(document: ValidationInput) -> Rejection | None:
    """The first reason not to run a document, or None."""
    return next((rejection for rule in RULES if (rejection := rule(document))), None)


def option_invalid(document: ValidationInput) -> Rejection | None:
    """An option that the algorithm has not, or a value that it cannot take, in the document or in a trial."""
    spec = document.spec
    try:
        spec.options()
        if spec.tune is not None:
            spec.tune.check(spec.run, spec.config)
    except OptionError as error:
        return Rejection("InvalidOption", str(error))
    return None


def storage_missing(document: ValidationInput) -> Rejection | None:
    """Neither the document nor the operator names a storage."""
    if document.storage is not None:
        return None
    return Rejection(
        "NoStorage", "The experiment names no storage, and the operator has none: set spec.storage.uri, "
        "or storage.uri in the operator's Helm values"
    )  # fmt: skip


def pod_template_malformed(document: ValidationInput) -> Rejection | None:
    """A pod template that cannot be merged over ours."""
    for place, pods in _places(document.spec.cluster).items():
        if problem := malformed(pods.pod_template):
            return Rejection("InvalidPodTemplate", f"{place}.{problem}")
    return None


def pod_template_forbidden(document: ValidationInput) -> Rejection | None:
    """A pod template that asks for more than the operator's settings allow."""
    for place, pods in _places(document.spec.cluster).items():
        is_head = isinstance(pods, Head)
        name, has_account = HEAD_CONTAINER if is_head else WORKER_CONTAINER, is_head or document.spec.tune is not None
        if problem := forbidden(pods.pod_template, name, document.pod_templates, has_account):
            return Rejection("PodTemplateForbidden", f"{place}.{problem}")
    return None


def account_forbidden(document: ValidationInput) -> Rejection | None:
    """A ServiceAccount that the operator's settings do not let documents run as."""
    problem = document.account_refusal
    return Rejection("ServiceAccountForbidden", f"spec.cluster.{problem}") if problem else None


def ray_authentication_changed(document: ValidationInput) -> Rejection | None:
    """A pod template that sets how Ray knows who may talk to it: KubeRay leaves a variable that is there as it is."""
    for place, pods in _places(document.spec.cluster).items():
        for container in (pods.pod_template.get("spec") or {}).get("containers") or []:
            names = {variable.get("name") for variable in container.get("env") or []}
            if changed := names & _RAY_AUTHENTICATION:
                where = f"{place}.podTemplate.spec.containers: {container['name']}: env: {min(changed)}"
                return Rejection("PodTemplateForbidden", f"{where}: KubeRay sets it, with a token for each cluster")
    return None


def _places(cluster: Cluster) -> dict[str, Head | Workers]:
    """The groups of pods by their place in the document."""
    groups = {f"spec.cluster.workers[{index}]": group for index, group in enumerate(cluster.workers)}
    return {"spec.cluster.head": cluster.head, **groups}


def cpus_insufficient(document: ValidationInput) -> Rejection | None:
    """Workers and learners that the pods have no room for."""
    needed, cluster = _Processes.of(document.spec), document.spec.cluster
    room = sum(replicas * int(cpus / needed.worker_cpus) for replicas, cpus in _pods(cluster))
    if needed.workers <= room and needed.cpus <= sum(replicas * cpus for replicas, cpus in _pods(cluster)):
        return None
    processes = f"num_workers {needed.workers} of {needed.worker_cpus:g} CPUs each"
    processes += f" and {needed.learners} learners of 1" if needed.learners else ""
    place = f"the groups in spec.cluster.workers have room for {room}" if cluster.workers else (
        f"without spec.cluster.workers they share the head, which has room for {room}"
    )  # fmt: skip
    return Rejection(
        "NotEnoughCPUs", f"spec.config: {processes} do not fit: {place}. Raise maxReplicas or cpu, or add a group"
    )


def gpus_insufficient(document: ValidationInput) -> Rejection | None:
    """Learners on GPUs that the groups have not, or not enough of."""
    processes, groups = _Processes.of(document.spec), document.spec.cluster.workers
    share = processes.learner_gpus
    needed = processes.learners if share else 0
    if not needed or needed <= sum(group.max_replicas * int(group.gpus / share) for group in groups):
        return None
    gpus = sum(group.max_replicas * group.gpus for group in groups)
    if not gpus:
        return Rejection(
            "NoGPUs", "spec.config.num_gpus is 1 and no group in spec.cluster.workers has GPUs: set gpus in one of them"
        )
    each = "a GPU" if share == 1 else f"{share:g} GPUs"
    return Rejection(
        "NoGPUs",
        f"spec.config: {needed} learners with {each} each do not fit: the groups in spec.cluster.workers have {gpus} "
        "GPUs. Raise maxReplicas or gpus",
    )


def trial_too_large(document: ValidationInput) -> Rejection | None:
    """A trial that fits nowhere.

    Beside its learners and workers a trial has a process that drives it, which is no driver in the head.
    """
    tune, cluster = document.spec.tune, document.spec.cluster
    if tune is None:
        return None
    driver, processes = tune.resources_per_trial.cpu or 1.0, _Processes.of(document.spec).cpus
    total, largest = sum(n * cpus for n, cpus in _pods(cluster)), max(cpus for _, cpus in _pods(cluster))
    place = "the groups in spec.cluster.workers have" if cluster.workers else (
        "without spec.cluster.workers trials share the head, which has"
    )  # fmt: skip
    if driver > largest:
        return Rejection(
            "NotEnoughCPUs",
            f"spec.tune.resourcesPerTrial.cpu: {driver:g} CPUs fit no pod: {place} at most {largest} in one. Raise cpu",
        )
    if driver + processes > total:
        trial = f"{driver + processes:g} CPUs, {driver:g} of its own and {processes:g} of its learners and workers"
        return Rejection(
            "NotEnoughCPUs",
            f"spec.tune: one trial takes {trial}, and {place} {total}. Raise maxReplicas or cpu, or add a group",
        )
    return None


def source_missing(document: ValidationInput) -> Rejection | None:
    """An experiment to restore from that is this one, or is not there."""
    source = document.spec.restore_from.experiment if document.spec.restore_from else None
    if source == document.name:
        return Rejection("RestoreFromItself", "spec.restoreFrom.experiment names this experiment itself")
    if source and waited_for(document.source) == document.name and not document.has_checkpoint:
        return Rejection(
            "RestoreFromRing",
            f'spec.restoreFrom.experiment: "{source}" waits for a checkpoint of this experiment itself',
        )
    if source and document.source is None and not document.has_checkpoint:
        return Rejection(
            "ExperimentNotFound", f'spec.restoreFrom.experiment: there is no RLExperiment "{source}" in this namespace'
        )
    return None


RULES: tuple[Callable[[ValidationInput], Rejection | None], ...] = (
    option_invalid,
    storage_missing,
    pod_template_malformed,
    pod_template_forbidden,
    account_forbidden,
    ray_authentication_changed,
    cpus_insufficient,
    gpus_insufficient,
    trial_too_large,
    source_missing,
)


def quantity(text: str) -> float:
    """The number that a Kubernetes quantity stands for."""
    digits = text.rstrip("mkKMGTPi")
    return float(digits) * _SCALE[text[len(digits) :]]


def ray_cpus(pods: Pods) -> int:
    """CPUs that Ray counts in such a pod: whole ones, rounded up."""
    return math.ceil(quantity(pods.cpu))


@dataclass(frozen=True)
class _Processes:
    """The processes that Ray places for a run beside its driver, or for one trial of a search: learners of one CPU
    each, and workers.

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


def _pods(cluster: Cluster) -> list[tuple[int, int]]:
    """Pods that Ray places processes in, and the CPUs that it counts in each."""
    return [(group.max_replicas, ray_cpus(group)) for group in cluster.workers] or [(1, ray_cpus(cluster.head))]
