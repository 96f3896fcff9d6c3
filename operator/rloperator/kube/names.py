"""Every name, label, annotation and folder that the operator uses, built once."""

import re

from rloperator.kube.types import Manifest
from rltrainer.api.base import API_VERSION, GROUP

MANAGER = "rloperator"
"""Field manager of all that the operator applies."""

RAY_API = "ray.io/v1"
BATCH_API = "batch/v1"
NETWORK_API = "networking.k8s.io/v1"

EXPERIMENT_LABEL = f"{GROUP}/experiment"
ROLLOUT_LABEL = f"{GROUP}/rollout"
OWNER_UID_LABEL = f"{GROUP}/owner-uid"
ATTEMPT_LABEL = f"{GROUP}/attempt"
SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"
CHECKPOINT_ANNOTATION = f"{GROUP}/checkpoint"
GENERATION_ANNOTATION = f"{GROUP}/generation"

NODE_TYPE_LABEL = "ray.io/node-type"
QUEUE_NAME_LABEL = "kueue.x-k8s.io/queue-name"

OWNER_LABEL = {"RLExperiment": EXPERIMENT_LABEL, "RLRollout": ROLLOUT_LABEL}
_PREFIX = {"RLExperiment": "rlx", "RLRollout": "rlr"}

DOCUMENT_KEY = {"RLExperiment": "experiment.yaml", "RLRollout": "rollout.yaml"}
DOCUMENT_FOLDER = "/etc/rltrainer"

HEAD_CONTAINER = "ray-head"
WORKER_CONTAINER = "ray-worker"
SUBMITTER_CONTAINER = "ray-job-submitter"
ROLLOUT_CONTAINER = "rollout"


def support(kind: str, name: str) -> str:
    """The ServiceAccount, Role, RoleBinding and ConfigMap of an object; an experiment's differ from a rollout's."""
    return f"{_PREFIX[kind]}-{name}"


def rayjob(experiment: str, attempt: int) -> str:
    """The RayJob of an attempt."""
    return f"{experiment}-a{attempt}"


def labels(owner: Manifest) -> dict[str, str]:
    """Labels that every child of `owner` carries."""
    return {"app.kubernetes.io/managed-by": MANAGER, **identity(owner)}


def identity(owner: Manifest) -> dict[str, str]:
    """Labels that the children of `owner` carry, and those of no other object, an earlier one of its name included."""
    return {OWNER_LABEL[owner["kind"]]: owner["metadata"]["name"], OWNER_UID_LABEL: owner["metadata"]["uid"]}


def selector(kind: str, name: str) -> str:
    """The label selector of the children of one object."""
    return f"{OWNER_LABEL[kind]}={name}"


def owner_reference(owner: Manifest) -> Manifest:
    """The reference by which the garbage collector removes a child with its owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def attempt_of(child: Manifest) -> int:
    """The number of the attempt that a child belongs to; 0 where it carries none."""
    number = child["metadata"].get("labels", {}).get(ATTEMPT_LABEL, "")
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else 0


def controller(child: Manifest) -> Manifest:
    """The reference to what made a child; empty where nothing claims to have. Labels are copied, this is not."""
    references = child["metadata"].get("ownerReferences") or []
    return next((dict(reference) for reference in references if reference.get("controller")), {})


def is_owned(child: Manifest, owner: Manifest) -> bool:
    """Whether the child is this very owner's, and not that of an earlier object of the same name."""
    return bool(controller(child).get("uid") == owner["metadata"]["uid"])


def descends(child: Manifest, kind: str, name: str) -> bool:
    """Whether a child, or what made it, was made for an object of this kind and name, or an earlier one of the name.

    KubeRay names a RayCluster after its RayJob. A pod outlives its cluster for a while, so it is known by that name.
    """
    maker = controller(child)
    if maker.get("kind") in ("RayJob", "RayCluster"):
        return re.fullmatch(rf"{re.escape(name)}-a[0-9]+(-.+)?", maker["name"]) is not None
    return maker.get("kind") in (kind, "Job") and maker["name"] == name


def owned(children: tuple[Manifest, ...], owner: Manifest) -> tuple[Manifest, ...]:
    """The children of this very owner."""
    return tuple(child for child in children if is_owned(child, owner))


def annotation(child: Manifest, key: str) -> str | None:
    """The value of an annotation, where the child carries it."""
    value = child["metadata"].get("annotations", {}).get(key)
    return None if value is None else str(value)


def storage_of(folder: str) -> str:
    """The storage URI that a run's folder was made from."""
    return folder.rsplit("/", 3)[0]
