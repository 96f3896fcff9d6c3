"""What the operator is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rltrainer.api.experiment import Storage

PodTemplates = Literal["allowed", "restricted", "refused"]
"""All that a Pod can be; what the Pod Security Standard "restricted" allows, as the run's own identity; nothing."""


@dataclass(frozen=True)
class Settings:
    """The operator's own settings, the same for all experiments."""

    trainer_image: str
    """Image of experiments and rollouts that name none."""
    storage: Storage | None = None
    """Storage of experiments that name none."""
    pod_templates: PodTemplates = "restricted"
    """How much a document's podTemplate may ask for."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets for the registry of documents that name none."""
    account_annotations: Mapping[str, str] = field(default_factory=dict)
    """Annotations of each ServiceAccount that is made for a run."""
    accounts: tuple[str, ...] = ()
    """ServiceAccounts that documents may name."""
    network_policies: bool = True
    """Whether each experiment has a NetworkPolicy."""
    network_ingress: tuple[dict[str, Any], ...] = ()
    """Rules of a NetworkPolicy's ingress that hold for all experiments."""
    kuberay_namespace: str | None = None
    """Namespace of KubeRay's operator; None finds it by its label in any."""
    namespace: str | None = None
    """The one namespace to serve; None serves all."""
    sweep_seconds: float = 15.0
    """Time between two looks at everything that is not finished."""
    workers: int = 16
    """Objects that are reconciled at the same time."""
