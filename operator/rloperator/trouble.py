"""What keeps pods from running, in words for whoever wrote the document; pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from rloperator.names import HEAD_CONTAINER, Manifest

_NO_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_NO_IMAGE_SAID = (
    'pod {}: image "{}" cannot be pulled: {}. '
    "Correct spec.cluster.image (or trainerImage in the chart), or the pull secret"
)
_MISCONFIGURED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_MISCONFIGURED_SAID = "pod {} cannot start: {}. Once that is there, the pod starts by itself"


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run."""

    reason: str
    message: str


def trouble(pods: tuple[Manifest, ...]) -> Trouble | None:
    """The first thing that keeps one of the pods from running; None where nothing is known to."""
    return next((found for pod in pods for found in _of_pod(pod)), None)


def head(pods: tuple[Manifest, ...]) -> Manifest | None:
    """The head pod, where there is one."""
    return next((pod for pod in pods if pod["metadata"]["labels"].get("ray.io/node-type") == "head"), None)


def is_ready(pod: Manifest) -> bool:
    """Whether the pod says that it is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _of_pod(pod: Manifest) -> Iterator[Trouble]:
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
    for condition in status.get("conditions", []):
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
