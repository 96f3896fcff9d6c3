"""Pods that are taken from a run by what is around it: a lost node, an eviction, a preemption; pure.

Nodes themselves are not read, which would need a right in the whole cluster: whoever deletes a pod for its node's sake
says so on the pod first.
"""

import re
from datetime import datetime

from rloperator.kube.pod_problems import out_of_memory
from rloperator.kube.types import Manifest
from rltrainer.api.status import Disruption

_CONDITION = "DisruptionTarget"
_BY_CONDITION = {
    "PreemptionByScheduler": "was preempted for a pod of higher priority",
    "DeletionByTaintManager": "was deleted for a taint of its node",
    "EvictionByEvictionAPI": "was evicted, as when its node is drained",
    "DeletionByPodGC": "was deleted, because its node is gone or out of service",
    "TerminationByKubelet": "was ended by its node",
}
_BY_STATUS = {
    "Evicted": "was evicted by its node",
    "Preempted": "was preempted",
    "Preempting": "was preempted",
    "NodeLost": "was lost with its node",
    "NodeShutdown": "was ended as its node shut down",
    "Shutdown": "was ended as its node shut down",
    "Terminated": "was ended as its node shut down",
}
_OWN_LIMIT = re.compile(r"exceed(s|ed) .*\blimit\b")
"""What the kubelet says where it evicts a pod for a limit of its own, and not for what else is on the node."""
_REASON = re.compile(r"[A-Z][A-Za-z]{0,63}")


def disruption(pod: Manifest, now: datetime) -> Disruption | None:
    """Tell that a pod is, or was, taken away by what is around it, and by what; None where nothing says so."""
    status, metadata = pod.get("status", {}), pod["metadata"]
    reason, did, detail = _of_condition(status) or _of_status(status) or ("", "", "")
    if not did:
        return None
    node = (pod.get("spec") or {}).get("nodeName")
    place = f" on node {node}" if node else ""
    why = f"{reason}: {detail}" if detail else reason
    return Disruption(
        pod=metadata["name"],
        node=node,
        reason=reason,
        message=f"Pod {metadata['name']}{place} {did} ({why})"[:1024],
        seen_at=now.replace(microsecond=0),
    )


def own_fault(pods: tuple[Manifest, ...]) -> str:
    """Tell that a run used more than it may, for which its head was ended; empty where it did not."""
    if killed := out_of_memory(pods):
        return killed
    evicted = (pod for pod in pods if is_over_limit(pod.get("status", {})))
    return next((f"Pod {pod['metadata']['name']} was evicted: {pod['status']['message']}" for pod in evicted), "")


def is_over_limit(status: Manifest) -> bool:
    """Return whether a pod was evicted for a limit of its own."""
    return status.get("reason") == "Evicted" and bool(_OWN_LIMIT.search(status.get("message", "")))


def _of_condition(status: Manifest) -> tuple[str, str, str] | None:
    for condition in status.get("conditions") or []:
        if condition["type"] != _CONDITION or condition["status"] != "True":
            continue
        reason = condition.get("reason", "")
        named = reason if _REASON.fullmatch(reason) else _CONDITION
        return named, _BY_CONDITION.get(reason, "was taken away"), _line(condition)
    return None


def _of_status(status: Manifest) -> tuple[str, str, str] | None:
    reason = status.get("reason", "")
    if reason not in _BY_STATUS or is_over_limit(status):
        return None
    return reason, _BY_STATUS[reason], _line(status)


def _line(said: Manifest) -> str:
    return " ".join((said.get("message") or "").split()).rstrip(".")
