"""From a rollout to its Job; pure."""

from rloperator.kube import names
from rloperator.kube.pods import (
    DOCUMENT_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    Account,
    container,
    document_volume,
    environment,
    pod_spec,
    pull_secrets,
    support,
    with_template,
)
from rloperator.kube.types import Manifest
from rloperator.rollout.view import RolloutView

_NO_RETRY_HELPS = 2
"""The trainer's exit code for a document or a checkpoint that cannot be run."""


def support_of(view: RolloutView) -> tuple[Manifest, ...]:
    """The objects that the Job needs beside itself."""
    return tuple(support(view.owner, view.document, view.storage, _account(view)))


def job(view: RolloutView) -> Manifest:
    """The Job that runs the rollout."""
    annotations = {
        names.SPEC_HASH_ANNOTATION: view.spec_hash,
        names.CHECKPOINT_ANNOTATION: view.checkpoint,
        names.GENERATION_ANNOTATION: str(view.observed.generation),
    }
    # A pod that its node loses is not the rollout's failure, and exit code 2 is: neither is worth a retry's count.
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": names.ROLLOUT_CONTAINER, "operator": "In", "values": [_NO_RETRY_HELPS]},
        },
    ]
    return {
        "apiVersion": names.BATCH_API,
        "kind": "Job",
        "metadata": view.owner.metadata(view.owner.name) | {"annotations": annotations},
        "spec": {
            "backoffLimit": view.document.backoff_limit,
            "podFailurePolicy": {"rules": rules},
            "podReplacementPolicy": "Failed",
            "template": _template(view),
        },
    }


def _account(view: RolloutView) -> Account:
    return Account.of(view.owner, view.account, view.settings)


def _template(view: RolloutView) -> Manifest:
    owner, spec, cluster = view.owner, view.document, view.source_cluster
    main = container(
        names.ROLLOUT_CONTAINER,
        spec.image or cluster.get("image") or view.settings.trainer_image,
        cluster.get("imagePullPolicy", "IfNotPresent"),
        spec.pods,
        command=["rltrainer", "rollout", "-f", f"{names.DOCUMENT_FOLDER}/{names.DOCUMENT_KEY[owner.kind]}"],
        env=environment(
            owner,
            view.storage,
            RLTRAINER_CHECKPOINT_URI=view.checkpoint or "",
            RLTRAINER_GENERATION=str(view.observed.generation),
        ),
        volumeMounts=[TMP_MOUNT, DOCUMENT_MOUNT],
    )
    secrets = pull_secrets(cluster.get("imagePullSecrets") or (), view.settings)
    fields: Manifest = {"serviceAccountName": _account(view).name, **secrets}
    volumes = [TMP_VOLUME, document_volume(owner)]
    pod = {"metadata": {"labels": names.labels(owner.object)}, "spec": pod_spec(spec.pods, main, volumes, **fields)}
    return with_template(pod, spec.pods)
