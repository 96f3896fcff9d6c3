"""What keeps pods from running, for whoever wrote the document; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from rloperator.kube.names import HEAD_CONTAINER, NODE_TYPE_LABEL, SUBMITTER_CONTAINER
from rloperator.kube.types import Manifest, parse_time

_IMAGE_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_IMAGE_MESSAGE = (
    'Pod {} cannot pull image "{}": {}. Correct spec.cluster.image (or trainerImage in the chart), or the pull secret'
)
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_CONFIG_MESSAGE = "Pod {} cannot start: {}. Once that is there, the pod starts by itself"

REASONS = (
    "ImagePullBackOff", "CreateContainerConfigError", "Unschedulable", "PodsRefused", "HeadMissing", "HeadNotReady",
    "WorkersFail",
)  # fmt: skip
"""Every reason of a PodProblem."""

_UNSCHEDULABLE_AFTER = timedelta(seconds=10)
"""How long a pod may wait, before it is a problem, for another one to leave its node."""
_REFUSED_AFTER = timedelta(seconds=15)
"""How long a start may take before pods that are not made are a problem."""
_NOT_READY_AFTER = timedelta(seconds=15)
"""How long a head may miss its probes before that is a problem."""
_FAILING_WORKERS = 3
"""Workers that end one after the other before that is a problem."""


@dataclass(frozen=True)
class PodProblem:
    """Why a pod does not run."""

    reason: str
    message: str


def first_problem(pods: tuple[Manifest, ...], now: datetime) -> PodProblem | None:
    """The first thing that keeps one of the pods from running; None where nothing is known to."""
    return next((problem for pod in pods for problem in (*_containers(pod), *_placement(pod, now))), None)


def refused_pods(ray_cluster: Manifest | None, age: timedelta) -> PodProblem | None:
    """Pods that the API server refuses, by a quota or a policy, in a cluster that began `age` ago."""
    for condition in (ray_cluster or {}).get("status", {}).get("conditions", []):
        failing = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        if failing and age > _REFUSED_AFTER:
            return PodProblem("PodsRefused", f"KubeRay cannot create the pods: {condition.get('message', '')}")
    return None


def head_problem(pods: tuple[Manifest, ...], now: datetime) -> PodProblem | None:
    """Find the head pod of a cluster that runs gone, or not ready for a while."""
    head = head_pod(pods)
    if head is None:
        return PodProblem("HeadMissing", "The head pod is gone")
    ready = _ready(head)
    since = ready.get("lastTransitionTime")
    if ready.get("status") == "True" or (since and now - parse_time(since) < _NOT_READY_AFTER):
        return None
    why = f": {ready['message']}" if ready.get("message") else ""
    return PodProblem("HeadNotReady", f"The head pod {head['metadata']['name']} is not ready{why}")


def failing_workers(pods: tuple[Manifest, ...]) -> PodProblem | None:
    """Find workers that end again and again, each replaced by one that ends; `pods` are those that are gone too."""
    ended = [pod for pod in pods if has_failed(pod) and not is_head(pod)]
    if len(ended) < _FAILING_WORKERS:
        return None
    last = max(ended, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    statuses = last.get("status", {}).get("containerStatuses", [])
    codes = [f' by exit code {code} of container "{each["name"]}"' for each in statuses if (code := _exit(each))]
    message = f"Workers end again and again: {len(ended)} did of late, the last, {last['metadata']['name']}"
    return PodProblem("WorkersFail", f"{message}{''.join(codes[:1])}")


def has_failed(pod: Manifest) -> bool:
    """Return whether a pod has ended by itself, and not well. One that is deleted ends because of that."""
    return "deletionTimestamp" not in pod["metadata"] and pod.get("status", {}).get("phase") == "Failed"


def _ready(pod: Manifest) -> Manifest:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def head_pod(pods: tuple[Manifest, ...]) -> Manifest | None:
    """The head pod, where there is one."""
    return next(filter(is_head, pods), None)


def is_head(pod: Manifest) -> bool:
    """Return whether a pod is a cluster's head."""
    return bool(pod["metadata"]["labels"].get(NODE_TYPE_LABEL) == "head")


def has_ready_head(pods: tuple[Manifest, ...]) -> bool:
    """Whether there is a head pod, and it is ready."""
    return _ready(head_pod(pods) or {}).get("status") == "True"


def out_of_memory(pods: tuple[Manifest, ...]) -> str:
    """That a container of the head was killed for its memory; empty where none was."""
    for container in (head_pod(pods) or {}).get("status", {}).get("containerStatuses", []):
        terminated = container.get("state", {}).get("terminated", {})
        if terminated.get("reason") == "OOMKilled" and container["name"] == HEAD_CONTAINER:
            return "The head ran out of memory and was killed: raise spec.cluster.head.memory"
    return ""


@dataclass(frozen=True)
class ContainerEnd:
    """How a container of the head ended."""

    container: str
    exit_code: int
    reason: str
    last_line: str

    @property
    def is_success(self) -> bool:
        """Whether the trainer ended as it should: its submitter's exit code is the trainer's."""
        return self.container == SUBMITTER_CONTAINER and self.exit_code == 0

    def __str__(self) -> str:
        why = f", {self.reason}" if self.reason not in ("", "Error", "Completed") else ""
        end = f'Container "{self.container}" of the head pod ended with exit code {self.exit_code}{why}'
        return f"{end}: {self.last_line}" if self.last_line else end


def head_end(pods: tuple[Manifest, ...]) -> ContainerEnd | None:
    """The end of a container without which the head does nothing more; None as long as it may still do something."""
    status = (head_pod(pods) or {}).get("status", {})
    preparing = [each for each in status.get("initContainerStatuses", []) if _exit(each) not in (None, 0)]
    needed = [each for each in status.get("containerStatuses", [])
              if each["name"] in (HEAD_CONTAINER, SUBMITTER_CONTAINER) and _exit(each) is not None]  # fmt: skip
    for container in (*preparing, *sorted(needed, key=lambda each: str(each["name"] != HEAD_CONTAINER))):
        terminated = container["state"]["terminated"]
        lines = [line for line in terminated.get("message", "").splitlines() if line.strip()]
        last_line = lines[-1].strip() if lines else ""
        return ContainerEnd(container["name"], terminated["exitCode"], terminated.get("reason", ""), last_line)
    return None


def _exit(container: Manifest) -> int | None:
    code: int | None = container.get("state", {}).get("terminated", {}).get("exitCode")
    return code


def _containers(pod: Manifest) -> Iterator[PodProblem]:
    status = pod.get("status", {})
    name = pod["metadata"]["name"]
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        reason, detail = waiting.get("reason", ""), waiting.get("message") or waiting.get("reason")
        if reason in _IMAGE_REASONS:
            # One reason for all of them: the kubelet goes back and forth between trying and waiting.
            yield PodProblem("ImagePullBackOff", _IMAGE_MESSAGE.format(name, container["image"], detail))
        if reason in _CONFIG_REASONS:
            yield PodProblem("CreateContainerConfigError", _CONFIG_MESSAGE.format(name, detail))


def _placement(pod: Manifest, now: datetime) -> Iterator[PodProblem]:
    name, created = pod["metadata"]["name"], parse_time(pod["metadata"]["creationTimestamp"])
    for condition in pod.get("status", {}).get("conditions", []) if now - created > _UNSCHEDULABLE_AFTER else []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield PodProblem("Unschedulable", f"Pod {name} fits on no node: {condition.get('message', '')}")
