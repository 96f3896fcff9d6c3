"""Who may connect to an experiment's pods: its NetworkPolicy; pure."""

from rloperator.experiment.view import ExperimentView
from rloperator.kube import names
from rloperator.kube.types import Manifest, reference

PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}
"""Ports of the head that Ray listens on."""
_KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
"""Label of KubeRay's operator, by its Helm chart and by its plain manifests."""


def policies(view: ExperimentView) -> tuple[Manifest, ...]:
    """The NetworkPolicy of all attempts; none where the operator is told to make none."""
    if not view.settings.network_policies:
        return ()
    pods = {"matchLabels": names.identity(view.owner.object)}
    rules = (
        *view.document.cluster.ingress,  # first: what the API server says of the first one is of the document's first
        {"from": [{"podSelector": pods}]},
        {"from": [_kuberay(view.settings.kuberay_namespace)], "ports": [{"port": PORTS["dashboard"]}]},
        *view.settings.network_ingress,
    )
    policy = {
        "apiVersion": names.NETWORK_API,
        "kind": "NetworkPolicy",
        "metadata": view.owner.metadata(view.owner.support),
        "spec": {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": list(rules)},
    }
    return (policy,)


def unproven(view: ExperimentView) -> tuple[Manifest, ...]:
    """The NetworkPolicy where the document has rules in it: the API server may not take them."""
    return policies(view) if view.document.cluster.ingress else ()


def unwanted(view: ExperimentView) -> tuple[Manifest, ...]:
    """The NetworkPolicy of an operator that was told to make some, where this one is told to make none."""
    owned = names.owned(view.observed.policies, view.observed.object)
    return () if view.settings.network_policies else tuple(map(reference, owned))


def _kuberay(namespace: str | None) -> Manifest:
    """KubeRay's operator, which asks Ray how the job stands: in the namespace that is named, else in any."""
    place = {"matchLabels": {"kubernetes.io/metadata.name": namespace}} if namespace else {}
    return {"namespaceSelector": place, "podSelector": {"matchLabels": _KUBERAY}}
