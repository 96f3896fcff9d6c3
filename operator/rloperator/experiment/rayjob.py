"""From an experiment to the RayJob of one attempt; pure."""

from typing import Any

from rloperator.experiment.network import PORTS, policies
from rloperator.experiment.view import ExperimentView
from rloperator.kube import names
from rloperator.kube.pods import (
    DOCUMENT_MOUNT,
    RAY_VERSION,
    RESTRICTED,
    TMP_MOUNT,
    TMP_VOLUME,
    Account,
    container,
    credentials,
    document_volume,
    environment,
    pod_spec,
    pull_secrets,
    support,
    variables,
    with_template,
)
from rloperator.kube.types import Manifest
from rltrainer.api.cluster import Cluster, Head, Workers

_AUTHENTICATION = {"mode": "token"}
"""KubeRay makes a token for each cluster, in a Secret that goes with it. Without it Ray runs what anybody sends it."""
_AUTOSCALER_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "500m", "memory": "512Mi"},
}

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # After SIGTERM Ray waits 30 s for its node to fall idle. By then the trainer has ended, and nobody else works here.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}

_RAY_PROCESSES = "IDLE|DashboardAgent|RuntimeEnvAgent|SPILL|RESTORE|DELETE"
AWAIT_TRIALS = (
    f"while grep -qsaP '^ray::(?!{_RAY_PROCESSES})' /proc/[0-9]*/cmdline "
    f"&& grep -qs ':{PORTS['gcs']:04X} 01' /proc/net/tcp /proc/net/tcp6; do sleep 0.5; done"
)
"""Wait while an actor lives in this pod and the head is connected. An actor's process is titled ray:: and its class;
01 is an established connection."""


def support_of(view: ExperimentView) -> tuple[Manifest, ...]:
    """The objects that the attempts share."""
    return (*support(view.owner, view.document, view.storage, _account(view)), *policies(view))


def rayjob(view: ExperimentView, number: int) -> Manifest:
    """Attempt `number`: a Ray cluster of its own that runs the trainer once."""
    cluster = view.document.cluster
    labels = {names.ATTEMPT_LABEL: str(number)}
    if cluster.queue_name:
        labels[names.QUEUE_NAME_LABEL] = cluster.queue_name
    metadata = view.owner.metadata(names.rayjob(view.owner.name, number), **labels)
    document = f"{names.DOCUMENT_FOLDER}/{names.DOCUMENT_KEY['RLExperiment']}"
    return {
        "apiVersion": names.RAY_API,
        "kind": "RayJob",
        "metadata": metadata | {"annotations": {names.SPEC_HASH_ANNOTATION: view.spec_hash}},
        "spec": {
            "entrypoint": f"rltrainer train -f {document} --attempt {number}",
            "submissionMode": "SidecarMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": cluster.keep_seconds_after_finished,
            "backoffLimit": 0,
            **_deadlines(cluster),
            "rayClusterSpec": _ray_cluster(view, number),
        },
    }


def _deadlines(cluster: Cluster) -> Manifest:
    seconds = {
        "preRunningDeadlineSeconds": cluster.start_deadline_seconds,
        "activeDeadlineSeconds": cluster.active_deadline_seconds,
    }
    return {field: value for field, value in seconds.items() if value is not None}


def _ray_cluster(view: ExperimentView, number: int) -> Manifest:
    cluster = view.document.cluster
    head = {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": _head(view, number)}  # noqa: S104 - in its pod
    spec = {"rayVersion": RAY_VERSION, "authOptions": _AUTHENTICATION, "headGroupSpec": head}
    if not cluster.workers:
        return spec
    # With workers the head takes no Ray work: its CPUs are the trainer's.
    head["rayStartParams"]["num-cpus"] = "0"
    return {
        **spec,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(cluster),
        "workerGroupSpecs": [_group(view, group, number) for group in cluster.workers],
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


def _head(view: ExperimentView, number: int) -> Manifest:
    cluster = view.document.cluster
    values = _RAY_ENVIRONMENT | {
        # How long Ray waits for the trainer between SIGTERM and SIGKILL; 3 s by default, too short for a checkpoint.
        "RAY_JOB_STOP_WAIT_TIME_S": str(cluster.grace_period_seconds),
        **_restore(view),
        **_expected(view),
    }
    main = container(
        names.HEAD_CONTAINER,
        _image(view),
        cluster.image_pull_policy,
        cluster.head,
        env=environment(view.owner, view.storage, **values),
        ports=[{"name": name, "containerPort": port} for name, port in PORTS.items()],
        volumeMounts=[TMP_MOUNT, DOCUMENT_MOUNT],
        # SIGTERM reaches `ray start`, not the trainer: this tells the trainer, and waits for its checkpoint.
        lifecycle={"preStop": {"exec": {"command": ["rltrainer", "terminate"]}}},
    )
    return _template(
        view, cluster.head, number, main,
        volumes=[TMP_VOLUME, document_volume(view.owner)],
        serviceAccountName=_account(view).name,
        terminationGracePeriodSeconds=cluster.grace_period_seconds,
    )  # fmt: skip


def _group(view: ExperimentView, group: Workers, number: int) -> Manifest:
    cluster = view.document.cluster
    main = container(
        names.WORKER_CONTAINER, _image(view), cluster.image_pull_policy, group,
        env=variables({"HOME": "/tmp"} | _RAY_ENVIRONMENT),  # noqa: S108
        volumeMounts=[TMP_MOUNT],
    )  # fmt: skip
    fields: Manifest = {"automountServiceAccountToken": False}
    if view.document.tune is not None:
        main, trial_fields = _with_trials(view, main)
        fields |= trial_fields
    if group.gpus:
        main["resources"]["limits"][group.gpu_resource] = str(group.gpus)
        main["resources"]["requests"][group.gpu_resource] = str(group.gpus)
    return {
        "groupName": group.name,
        "replicas": group.min_replicas,
        "minReplicas": group.min_replicas,
        "maxReplicas": group.max_replicas,
        "rayStartParams": {"num-gpus": str(group.gpus)} if group.gpus else {},
        "template": _template(view, group, number, main, volumes=[TMP_VOLUME], **fields),
    }


def _with_trials(view: ExperimentView, main: Manifest) -> tuple[Manifest, Manifest]:
    """A worker's container, and fields of its pod, where trials of a search run.

    A trial keeps its own checkpoints, so it reaches storage as the head does, and it has the time to keep its last
    one: the trainer in the head ends the trials, and Ray on this node must not have ended before.
    """
    await_trials = {"preStop": {"exec": {"command": ["/bin/bash", "-c", AWAIT_TRIALS]}}}
    env = [*main["env"], *variables({"RLTRAINER_TRIALS": "1"} | _restore(view)), *credentials(view.storage)]
    grace = view.document.cluster.grace_period_seconds
    fields = {"serviceAccountName": _account(view).name, "terminationGracePeriodSeconds": grace}
    return main | {"env": env, "lifecycle": await_trials}, fields


def _template(view: ExperimentView, pods: Head | Workers, number: int, main: Manifest, **fields: Any) -> Manifest:
    """A pod template that is ours by label, with the document's own pod template merged over it."""
    cluster = view.document.cluster
    # The first process of a container ignores SIGTERM unless it handles it. KubeRay's autoscaler, submitter and init
    # containers do not, and would stay for the whole grace period. In a shared namespace none of them is the first.
    fields["shareProcessNamespace"] = True
    fields |= pull_secrets(cluster.image_pull_secrets, view.settings)
    if cluster.priority_class_name:
        fields["priorityClassName"] = cluster.priority_class_name
    labels = names.labels(view.owner.object) | {names.ATTEMPT_LABEL: str(number)}
    template = {"metadata": {"labels": labels}, "spec": pod_spec(pods, main, **fields)}
    return with_template(template, pods)


def _account(view: ExperimentView) -> Account:
    return Account.of(view.owner, view.document.cluster.service_account, view.settings)


def _image(view: ExperimentView) -> str:
    return view.document.cluster.image or view.settings.trainer_image


def _restore(view: ExperimentView) -> dict[str, str]:
    """The variable that tells a trainer which checkpoint restoreFrom.experiment has come to."""
    return {"RLTRAINER_RESTORE_URI": view.restore_uri} if view.restore_uri else {}


def _expected(view: ExperimentView) -> dict[str, str]:
    """The variable that names what earlier attempts have kept: without it the trainer must not begin anew."""
    return {"RLTRAINER_EXPECTED_CHECKPOINT": view.expected} if view.expected else {}
