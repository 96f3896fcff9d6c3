"""What keeps pods from running, in words for whoever wrote the document; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from rloperator.kube.names import HEAD_CONTAINER, Manifest
from rloperator.kube.types import parse_time

_NO_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_NO_IMAGE_SAID = (
    'pod {}: image "{}" cannot be pulled: {}. '
    "Correct spec.cluster.image (or trainerImage in the chart), or the pull secret"
)
_MISCONFIGURED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_MISCONFIGURED_SAID = "pod {} cannot start: {}. Once that is there, the pod starts by itself"

TROUBLES = ("ImagePullBackOff", "CreateContainerConfigError", "Unschedulable", "PodsRefused")
"""Every reason below, and that of pods which are not even made."""

_PATIENCE = timedelta(seconds=10)
"""How long a pod may wait, before it is worth a word, for another one to leave its node."""


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run."""

    reason: str
    message: str


def trouble(pods: tuple[Manifest, ...], now: datetime) -> Trouble | None:
    """The first thing that keeps one of the pods from running; None where nothing is known to."""
    return next((found for pod in pods for found in (*_containers(pod), *_placement(pod, now))), None)


def head(pods: tuple[Manifest, ...]) -> Manifest | None:
    """The head pod, where there is one."""
    return next((pod for pod in pods if pod["metadata"]["labels"].get("ray.io/node-type") == "head"), None)


def is_ready(pod: Manifest) -> bool:
    """Whether the pod says that it is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _containers(pod: Manifest) -> Iterator[Trouble]:
    status = pod.get("status", {})
    name = pod["metadata"]["name"]
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _NO_IMAGE:
            # One reason for all of them: the kubelet goes back and forth between trying and waiting.
            yield Trouble("ImagePullBackOff", _NO_IMAGE_SAID.format(name, container["image"], said or reason))
        if reason in _MISCONFIGURED:
            yield Trouble("CreateContainerConfigError", _MISCONFIGURED_SAID.format(name, said or reason))


def _placement(pod: Manifest, now: datetime) -> Iterator[Trouble]:
    name, made = pod["metadata"]["name"], parse_time(pod["metadata"]["creationTimestamp"])
    for condition in pod.get("status", {}).get("conditions", []) if now - made > _PATIENCE else []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield Trouble("Unschedulable", f"pod {name} fits on no node: {condition.get('message', '')}")


def out_of_memory(pods: tuple[Manifest, ...]) -> str:
    """That a container of the head was killed for its memory, in words; empty where none was."""
    found = head(pods)
    for container in (found or {}).get("status", {}).get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated", {})
        if ended.get("reason") == "OOMKilled" and container["name"] == HEAD_CONTAINER:
            return "the head ran out of memory and was killed: raise spec.cluster.head.memory"
    return ""
