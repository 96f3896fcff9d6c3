"""Every name, label and S3 folder that the operator uses, built once."""

import re
from typing import Any

from rltrainer.spec import API_VERSION, GROUP

Manifest = dict[str, Any]

MANAGER = "rloperator"
"""Field manager of all that the operator applies."""

EXPERIMENT = f"{GROUP}/experiment"
ROLLOUT = f"{GROUP}/rollout"
OWNER_UID = f"{GROUP}/owner-uid"
ATTEMPT = f"{GROUP}/attempt"
SPEC_HASH = f"{GROUP}/spec-hash"
CHECKPOINT = f"{GROUP}/checkpoint"

OWNER_LABEL = {"RLExperiment": EXPERIMENT, "RLRollout": ROLLOUT}
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
    """What every child of `owner` carries."""
    return {
        "app.kubernetes.io/managed-by": MANAGER,
        OWNER_LABEL[owner["kind"]]: owner["metadata"]["name"],
        OWNER_UID: owner["metadata"]["uid"],
    }


def selector(kind: str, name: str) -> str:
    """The label selector of the children of one object."""
    return f"{OWNER_LABEL[kind]}={name}"


def owner_reference(owner: Manifest) -> Manifest:
    """Makes the garbage collector remove the child with its owner."""
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
    number = child["metadata"].get("labels", {}).get(ATTEMPT, "")
    return int(number) if re.fullmatch(r"[0-9]{1,9}", number) else 0


def is_of(child: Manifest, owner: Manifest) -> bool:
    """Whether the child is this very owner's, and not that of an earlier object of the same name."""
    return bool(child["metadata"].get("labels", {}).get(OWNER_UID) == owner["metadata"]["uid"])


def storage_of(folder: str) -> str:
    """The storage URI that a run's folder was made from."""
    return folder.rsplit("/", 3)[0]
