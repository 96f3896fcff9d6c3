"""The Ray cluster of a document, and the pods that it is made of."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from rltrainer.api.base import INT32_MAX, INT64_MAX, OPEN, Deadline, Model, Quantity, Seconds32, rules

_AMOUNTS = ("limits", "requests", "overhead", "sizeLimit", "divisor", "storage")
"""Fields of a Pod that hold quantities, or a map of them: only these may need more than 32 bits."""


def _numbers(value: Any, path: str = "", limit: int = INT32_MAX) -> Iterator[tuple[str, float, int]]:
    """Walk the numbers in a part of a Pod: where each is, the number, and the largest that may stand there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}", INT64_MAX if key in _AMOUNTS else limit)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]", limit)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value, limit


def _fits_a_pod(part: Any) -> Any:
    """Return a part of a Pod as it is. Raises ValueError for a number that a field of a Pod cannot hold.

    The API server takes such a number in a RayJob, and KubeRay then fails to read the RayJobs of the whole cluster.
    A Pod has wider fields than 32 bits, seconds and ids of users among them, but none that means more than that.
    """
    for path, number, limit in _numbers(part):
        if not (float(number).is_integer() and -limit <= number <= limit):
            raise ValueError(f"{path.lstrip('.')}: {number} is no whole number from {-limit} to {limit}")
    return part


class Pods(Model):
    """The pods of the head, or of a group of workers."""

    cpu: Quantity = Field("1", description="CPU requested, and the limit. Ray counts it in whole CPUs.")
    memory: Quantity = Field("2Gi", description="Memory requested, and the limit.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes to run on.")
    tolerations: Annotated[list[dict[str, Any]], AfterValidator(_fits_a_pod)] = Field(
        default_factory=list,
        description="Taints to tolerate, as in a Pod.",
        json_schema_extra={"items": {"type": "object", **OPEN}},
    )
    pod_template: Annotated[dict[str, Any], AfterValidator(_fits_a_pod)] = Field(
        default_factory=dict,
        description="Merged over the operator's own pod template; containers, volumes and env are merged by name.",
        json_schema_extra=OPEN,
    )


class Workers(Pods):
    """A group of equal workers, scaled by Ray's autoscaler between minReplicas and maxReplicas."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas"))
    )

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=20)] = Field(
        description="Name of the group."
    )
    min_replicas: Annotated[int, Field(ge=0, le=10000)] = Field(0, description="Fewest workers.")
    max_replicas: Annotated[int, Field(ge=1, le=10000)] = Field(1, description="Most workers.")
    gpus: Annotated[int, Field(ge=0, le=64)] = Field(0, description="GPUs of each worker.")
    gpu_resource: Annotated[str, Field(max_length=128)] = Field("nvidia.com/gpu", description="Resource name of a GPU.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} exceeds maxReplicas {self.max_replicas}")
        return self


class Head(Pods):
    """The head pod: Ray's control plane, and the trainer itself."""

    cpu: Quantity = Field(
        "1", description="CPU requested, and the limit. The trainer runs here; samplers run on workers."
    )
    memory: Quantity = Field("4Gi", description="Memory requested, and the limit.")


class ServiceAccount(Model):
    """The identity of the pods that report and reach storage."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.name) || !has(self.annotations) || size(self.annotations) == 0",
                "serviceAccount takes either name or annotations: one that is named is not the operator's to annotate",
            )
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        None,
        description="One that is there already, and that the operator's Helm value trainer.serviceAccount.allowed "
        "lists. It is given the right to report. Unset, one is made for the run.",
    )
    annotations: dict[str, str] = Field(
        default_factory=dict,
        description="Annotations of the one that is made, such as eks.amazonaws.com/role-arn for IRSA or "
        "iam.gke.io/gcp-service-account; over those of the operator's Helm values.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.name is not None and self.annotations:
            raise ValueError("takes either name or annotations: one that is named is not the operator's to annotate")
        return self


class Autoscaling(Model):
    """Ray's in-tree autoscaler."""

    idle_timeout_seconds: Annotated[Seconds32, Field(ge=1)] = Field(
        60, description="Seconds after which an idle worker goes."
    )
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = Field(
        "Default", description="How fast workers are added."
    )


class Cluster(Model):
    """The Ray cluster of each attempt. Not read on a laptop."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Trainer image. Unset, the one of the operator's Helm values."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="As in a Pod.")
    image_pull_secrets: list[str] = Field(
        default_factory=list,
        description="Names of Secrets for the registry. Unset, those of the operator's Helm values.",
    )
    service_account: ServiceAccount = Field(
        default_factory=ServiceAccount, description="Who the head is, and in a search the workers too."
    )
    head: Head = Field(default_factory=Head, description="The head pod.")
    workers: Annotated[list[Workers], Field(max_length=16)] = Field(
        default_factory=list,
        description="Groups of workers. Needed where config.num_workers or config.num_gpus is above 0.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    autoscaling: Autoscaling = Field(default_factory=Autoscaling, description="The autoscaler.")
    grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        60, description="Seconds that the trainer has to write a checkpoint when it is told to end."
    )
    keep_seconds_after_finished: Seconds32 = Field(
        0, description="Seconds that the cluster stays after the run has ended, to look at it."
    )
    start_deadline_seconds: Deadline | None = Field(
        None,
        description="Seconds within which an attempt's cluster must be there, or the attempt fails. Unset, it waits.",
    )
    active_deadline_seconds: Deadline | None = Field(
        None, description="Seconds that an attempt may take in all, or it fails. Unset, as long as it takes."
    )
    stall_timeout_seconds: Deadline | None = Field(
        None, description="Seconds without progress after which an attempt that trains fails. Unset, it is let be."
    )
    ingress: Annotated[list[dict[str, Any]], AfterValidator(_fits_a_pod), Field(max_length=64)] = Field(
        default_factory=list,
        description="Who else may connect to the pods: rules as in a NetworkPolicy's ingress.",
        json_schema_extra={"items": {"type": "object", **OPEN}},
    )
    queue_name: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Kueue LocalQueue that admits the attempts."
    )
    priority_class_name: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Priority class of the pods."
    )
