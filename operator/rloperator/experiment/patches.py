"""What is changed on a running attempt: what its document may change, and what KubeRay leaves out; pure."""

from collections.abc import Iterator

from rloperator.experiment.view import ExperimentView
from rloperator.kube import names
from rloperator.kube.pods import RESTRICTED, TMP_MOUNT
from rloperator.kube.types import Manifest, Patch, is_terminating, reference
from rltrainer.api.experiment import ExperimentSpec

_SUBMITTER_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "500m", "memory": "512Mi"},
}


def live_patches(view: ExperimentView) -> tuple[Patch, ...]:
    """Patches of the running attempt. A rejected document changes nothing."""
    spec = None if view.rejection else view.spec
    patches = []
    if view.cluster:
        operations = (*_submitter(view.cluster), *(_scaling(spec, view.cluster) if spec else ()))
        patches.append((view.cluster, operations))
    changes = tuple(Patch(reference(child), operations) for child, operations in patches if operations)
    return (*changes, *kept_cluster(view))


def kept_cluster(view: ExperimentView) -> tuple[Patch, ...]:
    """The patch that keeps the cluster after the end as long as the document says by now."""
    if view.rejection or view.spec is None or view.job is None or is_terminating(view.job):
        return ()
    operations = tuple(_time_to_live(view.spec, view.job))
    return (Patch(reference(view.job), operations),) if operations else ()


def _submitter(ray_cluster: Manifest) -> Iterator[Manifest]:
    """Restrict the container that KubeRay adds to the head pod in SidecarMode.

    KubeRay 1.6 gives it no security context and takes no template for it. Where Pod Security is enforced, its
    first head pod is refused for that; the one that it makes after this patch is not.
    """
    containers = ray_cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    for index, container in enumerate(containers):
        if container["name"] != names.SUBMITTER_CONTAINER or "securityContext" in container:
            continue
        path = f"/spec/headGroupSpec/template/spec/containers/{index}"
        yield {"op": "test", "path": f"{path}/name", "value": names.SUBMITTER_CONTAINER}
        yield {"op": "add", "path": f"{path}/securityContext", "value": RESTRICTED}
        yield {"op": "add", "path": f"{path}/resources", "value": _SUBMITTER_RESOURCES}
        yield {"op": "add", "path": f"{path}/volumeMounts", "value": [TMP_MOUNT]}
        yield {"op": "add", "path": f"{path}/env/-", "value": {"name": "HOME", "value": "/tmp"}}  # noqa: S108


def _scaling(spec: ExperimentSpec, ray_cluster: Manifest) -> Iterator[Manifest]:
    """Bring the document's bounds of each group to the running cluster.

    The list is the autoscaler's too, so it is never applied as a whole.
    """
    groups = {group.name: group for group in spec.cluster.workers}
    for index, live in enumerate(ray_cluster["spec"].get("workerGroupSpecs", [])):
        group = groups.get(live["groupName"])
        if group is None:
            continue
        path = f"/spec/workerGroupSpecs/{index}"
        bounds = {"minReplicas": group.min_replicas, "maxReplicas": group.max_replicas}
        changes = {field: value for field, value in bounds.items() if live.get(field) != value}
        if changes:
            yield {"op": "test", "path": f"{path}/groupName", "value": group.name}
        for field, value in changes.items():
            yield {"op": "add", "path": f"{path}/{field}", "value": value}


def _time_to_live(spec: ExperimentSpec, job: Manifest) -> Iterator[Manifest]:
    """Keep the cluster after the end as long as the document says."""
    seconds = spec.cluster.keep_seconds_after_finished
    if job["spec"].get("ttlSecondsAfterFinished") != seconds:
        yield {"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": seconds}
