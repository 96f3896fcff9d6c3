"""From an experiment to the RayJob of one attempt, and to what is changed on it while it runs; pure."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rloperator.config import Settings
from rloperator.kube import names
from rloperator.kube.merge import merge
from rloperator.kube.names import Manifest
from rloperator.kube.pods import (
    DOCUMENT_MOUNT,
    RAY_VERSION,
    RESTRICTED,
    TMP_MOUNT,
    TMP_VOLUME,
    Owner,
    container,
    credentials,
    document_volume,
    environment,
    pod_spec,
    support,
    variables,
)
from rltrainer.spec import Cluster, ExperimentSpec, Head, Storage, Workers

_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001}
_AUTOSCALER_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "500m", "memory": "512Mi"},
}
_SUBMITTER_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "500m", "memory": "512Mi"},
}
_AUTOSCALER_RULES: list[Manifest] = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
]
"""What Ray's autoscaler does in the head pod. KubeRay draws the cluster's name too late to name it here."""

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # After SIGTERM Ray waits 30 s for its node to fall idle. By then the trainer has ended, and nobody else works here.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}

_RAYS_OWN = "IDLE|DashboardAgent|RuntimeEnvAgent|SPILL|RESTORE|DELETE"
AWAIT_TRIALS = (
    f"while grep -qsaP '^ray::(?!{_RAYS_OWN})' /proc/[0-9]*/cmdline "
    f"&& grep -qs ':{_PORTS['gcs']:04X} 01' /proc/net/tcp /proc/net/tcp6; do sleep 0.5; done"
)
"""Waits while an actor lives in this pod and the head is connected. An actor's process is titled ray:: and its class;
01 is an established connection."""


@dataclass(frozen=True)
class Plan:
    """All that the children of an experiment are rendered from."""

    owner: Owner
    spec: ExperimentSpec
    storage: Storage | None
    settings: Settings
    restore_uri: str | None = None

    @property
    def image(self) -> str:
        """The document's image, or the operator's."""
        return self.spec.cluster.image or self.settings.trainer_image

    @property
    def restore(self) -> dict[str, str]:
        """Tells a trainer which checkpoint restoreFrom.experiment has come to."""
        return {"RLTRAINER_RESTORE_URI": self.restore_uri} if self.restore_uri else {}


def spec_hash(spec: ExperimentSpec) -> str:
    """Of what an attempt cannot change while it runs.

    Defaults are left out, so that a field that a later version adds does not restart what runs.
    """
    document = spec.model_dump(by_alias=True, exclude_defaults=True, mode="json")
    for live in ("suspend", "maxFailures"):
        document.pop(live, None)
    cluster = document.get("cluster", {})
    cluster.pop("keepSecondsAfterFinished", None)
    for group in cluster.get("workers", []):
        group.pop("minReplicas", None)
        group.pop("maxReplicas", None)
    if not cluster:
        document.pop("cluster", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def support_of(plan: Plan) -> list[Manifest]:
    """What the attempts share."""
    return support(plan.owner, plan.storage, _AUTOSCALER_RULES if plan.spec.cluster.workers else [])


def rayjob(plan: Plan, number: int) -> Manifest:
    """Attempt `number`: a Ray cluster of its own that runs the trainer once."""
    cluster = plan.spec.cluster
    labels = {names.ATTEMPT: str(number)}
    if cluster.queue_name:
        labels["kueue.x-k8s.io/queue-name"] = cluster.queue_name
    metadata = plan.owner.metadata(names.rayjob(plan.owner.name, number), **labels)
    document = f"{names.DOCUMENT_FOLDER}/{names.DOCUMENT_KEY['RLExperiment']}"
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata | {"annotations": {names.SPEC_HASH: spec_hash(plan.spec)}},
        "spec": {
            "entrypoint": f"rltrainer train -f {document} --attempt {number}",
            "submissionMode": "SidecarMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": cluster.keep_seconds_after_finished,
            "backoffLimit": 0,
            "rayClusterSpec": _ray_cluster(plan, number),
        },
    }


def _ray_cluster(plan: Plan, number: int) -> Manifest:
    cluster = plan.spec.cluster
    head = {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": _head(plan, number)}  # noqa: S104 - in its pod
    if not cluster.workers:
        return {"rayVersion": RAY_VERSION, "headGroupSpec": head}
    # With workers the head takes no Ray work: its CPUs are the trainer's.
    head["rayStartParams"]["num-cpus"] = "0"
    return {
        "rayVersion": RAY_VERSION,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(cluster),
        "headGroupSpec": head,
        "workerGroupSpecs": [_group(plan, group, number) for group in cluster.workers],
    }


def _autoscaler(cluster: Cluster) -> Manifest:
    return {
        "version": "v2",
        "idleTimeoutSeconds": cluster.autoscaling.idle_timeout_seconds,
        "upscalingMode": cluster.autoscaling.upscaling_mode,
        "imagePullPolicy": cluster.image_pull_policy,
        "resources": _AUTOSCALER_RESOURCES,
        "securityContext": RESTRICTED,
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "volumeMounts": [TMP_MOUNT],
    }


def _head(plan: Plan, number: int) -> Manifest:
    cluster = plan.spec.cluster
    values = _RAY_ENVIRONMENT | {
        # How long Ray waits for the trainer between SIGTERM and SIGKILL; 3 s by default, too short for a checkpoint.
        "RAY_JOB_STOP_WAIT_TIME_S": str(cluster.grace_period_seconds),
        **plan.restore,
    }
    main = container(
        names.HEAD_CONTAINER,
        plan.image,
        cluster.image_pull_policy,
        cluster.head,
        env=environment(plan.owner, plan.storage, **values),
        ports=[{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        volumeMounts=[TMP_MOUNT, DOCUMENT_MOUNT],
        # SIGTERM reaches `ray start`, not the trainer: this tells the trainer, and waits for its checkpoint.
        lifecycle={"preStop": {"exec": {"command": ["rltrainer", "terminate"]}}},
    )
    return _template(
        plan, cluster.head, number, main,
        volumes=[TMP_VOLUME, document_volume(plan.owner)],
        serviceAccountName=plan.owner.support,
        terminationGracePeriodSeconds=cluster.grace_period_seconds,
    )  # fmt: skip


def _group(plan: Plan, group: Workers, number: int) -> Manifest:
    cluster = plan.spec.cluster
    main = container(
        names.WORKER_CONTAINER, plan.image, cluster.image_pull_policy, group,
        env=variables({"HOME": "/tmp"} | _RAY_ENVIRONMENT),  # noqa: S108
        volumeMounts=[TMP_MOUNT],
    )  # fmt: skip
    fields: Manifest = {"automountServiceAccountToken": False}
    if plan.spec.tune is not None:
        main, more = _trains(plan, main)
        fields |= more
    if group.gpus:
        main["resources"]["limits"][group.gpu_resource] = str(group.gpus)
        main["resources"]["requests"][group.gpu_resource] = str(group.gpus)
    return {
        "groupName": group.name,
        "replicas": group.min_replicas,
        "minReplicas": group.min_replicas,
        "maxReplicas": group.max_replicas,
        "rayStartParams": {"num-gpus": str(group.gpus)} if group.gpus else {},
        "template": _template(plan, group, number, main, volumes=[TMP_VOLUME], **fields),
    }


def _trains(plan: Plan, main: Manifest) -> tuple[Manifest, Manifest]:
    """A worker's container, and fields of its pod, where trials of a search run.

    A trial keeps its own checkpoints, so it reaches storage as the head does, and it is given the time to keep its last
    one: the trainer in the head ends the trials, and Ray on this node must not have ended before.
    """
    await_trials = {"preStop": {"exec": {"command": ["/bin/bash", "-c", AWAIT_TRIALS]}}}
    env = [*main["env"], *variables(plan.restore), *credentials(plan.storage)]
    grace = plan.spec.cluster.grace_period_seconds
    more = {"serviceAccountName": plan.owner.support, "terminationGracePeriodSeconds": grace}
    return main | {"env": env, "lifecycle": await_trials}, more


def _template(plan: Plan, pods: Head | Workers, number: int, main: Manifest, **fields: Any) -> Manifest:
    """A pod template that is ours by label, with the document's own pod template merged over it."""
    cluster = plan.spec.cluster
    # The first process of a container ignores SIGTERM unless it handles it. KubeRay's autoscaler, submitter and init
    # containers do not, and would stay for the whole grace period. In a shared namespace none of them is the first.
    fields["shareProcessNamespace"] = True
    if cluster.image_pull_secrets:
        fields["imagePullSecrets"] = [{"name": name} for name in cluster.image_pull_secrets]
    if cluster.priority_class_name:
        fields["priorityClassName"] = cluster.priority_class_name
    labels = names.labels(plan.owner.object) | {names.ATTEMPT: str(number)}
    template = {"metadata": {"labels": labels}, "spec": pod_spec(pods, main, **fields)}
    return dict(merge(template, pods.pod_template))


def scaling(spec: ExperimentSpec, ray_cluster: Manifest) -> Iterator[Manifest]:
    """JSON patch operations that bring the document's bounds of each group to the running cluster.

    The list is the autoscaler's too, so it is never applied as a whole.
    """
    wanted = {group.name: group for group in spec.cluster.workers}
    for index, live in enumerate(ray_cluster["spec"].get("workerGroupSpecs", [])):
        group = wanted.get(live["groupName"])
        if group is None:
            continue
        path = f"/spec/workerGroupSpecs/{index}"
        bounds = {"minReplicas": group.min_replicas, "maxReplicas": group.max_replicas}
        changed = {field: value for field, value in bounds.items() if live.get(field) != value}
        if changed:
            yield {"op": "test", "path": f"{path}/groupName", "value": group.name}
        for field, value in changed.items():
            yield {"op": "add", "path": f"{path}/{field}", "value": value}


def submitter(ray_cluster: Manifest) -> Iterator[Manifest]:
    """JSON patch operations that restrict the container that KubeRay adds to the head pod in SidecarMode.

    KubeRay 1.6 gives it no security context and takes no template for it. Where Pod Security is enforced, its
    first head pod is refused for that; the one that it makes after this patch is not.
    """
    containers = ray_cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    for index, found in enumerate(containers):
        if found["name"] != names.SUBMITTER_CONTAINER or "securityContext" in found:
            continue
        path = f"/spec/headGroupSpec/template/spec/containers/{index}"
        yield {"op": "test", "path": f"{path}/name", "value": names.SUBMITTER_CONTAINER}
        yield {"op": "add", "path": f"{path}/securityContext", "value": RESTRICTED}
        yield {"op": "add", "path": f"{path}/resources", "value": _SUBMITTER_RESOURCES}
        yield {"op": "add", "path": f"{path}/volumeMounts", "value": [TMP_MOUNT]}
        yield {"op": "add", "path": f"{path}/env/-", "value": {"name": "HOME", "value": "/tmp"}}  # noqa: S108
