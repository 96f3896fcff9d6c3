"""What pods of both kinds need: identity, rights, the document's ConfigMap, restricted containers; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from rloperator.config import Settings
from rloperator.kube import names
from rloperator.kube.merge import merge
from rloperator.kube.types import Manifest
from rltrainer.api.base import API_VERSION, GROUP, PLURAL
from rltrainer.api.cluster import Pods, ServiceAccount
from rltrainer.api.experiment import Storage

RAY_VERSION = "2.60.0"
"""The Ray of the trainer image: KubeRay chooses its probes by it."""

RESTRICTED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of every container: what the restricted Pod Security Standard asks for, and a read-only root."""

TMP_MOUNT: Manifest = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - an emptyDir of the pod, the only place to write
TMP_VOLUME: Manifest = {"name": "tmp", "emptyDir": {}}
DOCUMENT_MOUNT: Manifest = {"name": "document", "mountPath": names.DOCUMENT_FOLDER, "readOnly": True}


_WITHOUT_DEFAULTS: Any = {"by_alias": True, "exclude_defaults": True, "mode": "json"}


@dataclass(frozen=True)
class Owner:
    """The object that manifests are rendered for."""

    object: Manifest

    @property
    def kind(self) -> str:
        """RLExperiment or RLRollout."""
        return str(self.object["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace, and that of all its children."""
        return str(self.object["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """The identity that no earlier object of the same name has."""
        return str(self.object["metadata"]["uid"])

    @property
    def support(self) -> str:
        """Name of its ServiceAccount, Role, RoleBinding and ConfigMap."""
        return names.support(self.kind, self.name)

    def metadata(self, name: str, **labels: str) -> Manifest:
        """Metadata of a child: ours by label and by owner reference."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": names.labels(self.object) | labels,
            "ownerReferences": [names.owner_reference(self.object)],
        }


@dataclass(frozen=True)
class Account:
    """The ServiceAccount that pods run as."""

    name: str
    annotations: Manifest | None = None
    """Those of one that is made for its owner; None where it is somebody's own."""

    @classmethod
    def of(cls, owner: Owner, given: ServiceAccount, settings: Settings) -> "Account":
        """The one that a document names, else the owner's own."""
        if given.name is not None:
            return cls(given.name)
        return cls(owner.support, {**settings.account_annotations, **given.annotations})

    @property
    def made(self) -> bool:
        """Return whether it is made for its owner."""
        return self.annotations is not None


def account_refusal(given: ServiceAccount, settings: Settings) -> str | None:
    """Say why a document may not run as the ServiceAccount that it names; None where it may."""
    if given.name is None or given.name in settings.accounts or settings.pod_templates == "allowed":
        return None
    return (
        f'serviceAccount.name: the operator lets nobody run as "{given.name}", for its rights would be anybody\'s who '
        "writes documents here: add it to the Helm value trainer.serviceAccount.allowed"
    )


def pull_secrets(names_of_secrets: Sequence[str], settings: Settings) -> Manifest:
    """The field of a pod with the Secrets for its registry, where there are any."""
    secrets = names_of_secrets or settings.image_pull_secrets
    return {"imagePullSecrets": [{"name": name} for name in secrets]} if secrets else {}


def support(owner: Owner, spec: BaseModel, storage: Storage | None, account: Account) -> list[Manifest]:
    """ServiceAccount, Role, RoleBinding and ConfigMap: what the pod of `owner` needs beside itself."""
    metadata = owner.metadata(owner.support)
    subject = {"kind": "ServiceAccount", "name": account.name, "namespace": owner.namespace}
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": owner.support}
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        *([_account(account, metadata)] if account.made else []),
        {"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": [_report_rule(owner)]},
        {"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata, "roleRef": role_ref, "subjects": [subject]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": _document(owner, spec, storage)},
    ]


def _account(account: Account, metadata: Manifest) -> Manifest:
    annotations = {"annotations": account.annotations} if account.annotations else {}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata | annotations}


def _report_rule(owner: Owner) -> Manifest:
    """The trainer reports into the status of its own resource: it changes no spec, and none of another resource."""
    status = f"{PLURAL[owner.kind]}/status"
    return {"apiGroups": [GROUP], "resources": [status], "resourceNames": [owner.name], "verbs": ["get", "patch"]}


def _document(owner: Owner, spec: BaseModel, storage: Storage | None) -> dict[str, str]:
    """The whole document as the trainer reads it, with the storage that holds for it.

    Defaults, which the API server has filled in, are left out: a trainer image that is older than the operator does
    not know the fields that came later.
    """
    stated = spec.model_dump(**_WITHOUT_DEFAULTS)
    if storage is not None:
        stated["storage"] = storage.model_dump(**_WITHOUT_DEFAULTS)
    metadata = {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid}
    document = {"apiVersion": API_VERSION, "kind": owner.kind, "metadata": metadata, "spec": stated}
    return {names.DOCUMENT_KEY[owner.kind]: yaml.safe_dump(document, sort_keys=False)}


def environment(owner: Owner, storage: Storage | None, **values: str) -> list[Manifest]:
    """Environment of the trainer's container: who it is, where to write, and credentials by reference."""
    plain = {
        "HOME": "/tmp",  # noqa: S108
        "PYTHONUNBUFFERED": "1",
        "RLTRAINER_NAMESPACE": owner.namespace,
        "RLTRAINER_NAME": owner.name,
        "RLTRAINER_UID": owner.uid,
    } | values
    return [*variables(plain), *credentials(storage)]


def variables(values: dict[str, str]) -> list[Manifest]:
    """Environment variables of a container."""
    return [{"name": name, "value": value} for name, value in values.items()]


def credentials(storage: Storage | None) -> list[Manifest]:
    """The environment variables that S3 is reached with, by reference."""
    if storage is None or not storage.credentials_secret:
        return []
    references: dict[str, Manifest] = {
        variable: {"name": storage.credentials_secret, "key": key}
        for variable, key in storage.credentials_keys.variables().items()
    }
    references["AWS_SESSION_TOKEN"]["optional"] = True
    return [{"name": variable, "valueFrom": {"secretKeyRef": each}} for variable, each in references.items()]


def container(name: str, image: str, pull_policy: str, pods: Pods, **fields: Any) -> Manifest:
    """A restricted container with the resources of `pods`, requested and limited alike."""
    amounts = {"cpu": pods.cpu, "memory": pods.memory}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": RESTRICTED,
    } | fields


def with_template(pod: Manifest, pods: Pods) -> Manifest:
    """A pod template with the document's own merged over it; it stays ours by label, whatever that one says."""
    merged: Manifest = merge(pod, pods.pod_template)
    ours = pod["metadata"]["labels"]
    labels = {**(merged["metadata"].get("labels") or {}), **ours}
    return merged | {"metadata": merged["metadata"] | {"labels": labels}}


def document_volume(owner: Owner) -> Manifest:
    """The ConfigMap with the document, as a volume."""
    return {"name": "document", "configMap": {"name": owner.support}}


def pod_spec(pods: Pods, main: Manifest, volumes: list[Manifest], **fields: Any) -> Manifest:
    """A restricted pod around one container."""
    spec: Manifest = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "restartPolicy": "Never",
        "containers": [main],
        "volumes": volumes,
    } | fields
    if pods.node_selector:
        spec["nodeSelector"] = pods.node_selector
    if pods.tolerations:
        spec["tolerations"] = pods.tolerations
    return spec
