"""What is observed of an object and its children, and what comes of it: the two ends of the pure functions."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Manifest = dict[str, Any]
"""An object as the API server holds it."""

REPORTED_FIELDS = ("training", "results")
"""Fields of a status that the pods report. All others are the operator's."""

_MAX_CONDITION_MESSAGE = 2048


@dataclass(frozen=True)
class Observed:
    """An object and all that is in the cluster for it, read afresh from the API server."""

    object: Manifest
    jobs: tuple[Manifest, ...] = ()
    """RayJobs of an experiment, Jobs of a rollout; those of an earlier object of the same name included."""
    clusters: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    source: Manifest | None = None
    """The experiment that the object names, where it names one and there is one."""
    refusal: str | None = None
    """Why the API server does not take what its document asks for, where it was asked and does not."""
    policies: tuple[Manifest, ...] = ()
    """NetworkPolicies of an experiment, looked for only where the operator is to make none."""
    lost: tuple[Manifest, ...] = ()
    """Pods as they were when they were taken away or failed, not long ago, and are no more."""
    complaint: str = ""
    """Why the Job of a rollout could not make its pod, by its newest event, where it has none."""

    @property
    def status(self) -> Manifest:
        """The status as it stands; empty before the first one."""
        return dict(self.object.get("status") or {})

    @property
    def own_status(self) -> Manifest:
        """The operator's part of the status."""
        return {key: value for key, value in self.status.items() if key not in REPORTED_FIELDS}

    @property
    def generation(self) -> int:
        """The number of changes of the spec."""
        return int(self.object["metadata"].get("generation", 0))

    @property
    def source_training(self) -> Manifest:
        """The report of the source's trainer; empty where there is no source."""
        return dict(((self.source or {}).get("status") or {}).get("training") or {})


@dataclass(frozen=True)
class Event:
    """An event about an object, as `kubectl describe` lists it."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    dedup_key: str = ""
    """The same for the same transition, another one for each occurrence of a reason."""


@dataclass(frozen=True)
class Patch:
    """JSON patch operations for one child."""

    target: Manifest
    operations: tuple[Manifest, ...]


@dataclass(frozen=True)
class Outcome:
    """Work to do, in this order: apply, create, patch, record the events, write the status, delete.

    A child is made before the status speaks of it, and an end is written down before its child is deleted. So
    whatever the last thing done was, the next call goes on from there.
    """

    tried: tuple[Manifest, ...] = ()
    """Manifests that the API server must be willing to take before any of this is done: a bad edit ends nothing."""
    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    patch: tuple[Patch, ...] = ()
    events: tuple[Event, ...] = ()
    status: Manifest | None = None
    """The whole status of the operator; None where it stands as it should."""
    delete: tuple[Manifest, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Condition:
    """One condition before it is put in time."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Conditions:
    """The conditions as they stand in the status."""

    items: tuple[Manifest, ...] = field(default=())

    def get(self, kind: str) -> Manifest:
        """The condition of this type, or an empty one."""
        return next((item for item in self.items if item["type"] == kind), {})

    def updated(self, new: tuple[Condition, ...], generation: int, now: datetime) -> tuple[Manifest, ...]:
        """`new` as of `generation`; the time moves only where the status does."""
        result = []
        for condition in new:
            old = self.get(condition.type)
            has_moved = old.get("status") != condition.status
            result.append(
                {
                    "type": condition.type,
                    "status": condition.status,
                    "observedGeneration": generation,
                    "lastTransitionTime": format_time(now) if has_moved else old["lastTransitionTime"],
                    "reason": condition.reason,
                    "message": condition.message[:_MAX_CONDITION_MESSAGE],
                }
            )
        return tuple(result)


def conditions_of(status: Manifest) -> Conditions:
    """The conditions in a status."""
    return Conditions(tuple(status.get("conditions", [])))


def format_time(time: datetime) -> str:
    """A time as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def reference(child: Manifest) -> Manifest:
    """As much of a child as it takes to delete or patch this one and no later one of its name."""
    metadata = {key: child["metadata"].get(key) for key in ("name", "namespace", "uid")}
    return {"apiVersion": child["apiVersion"], "kind": child["kind"], "metadata": metadata}


def is_terminating(child: Manifest) -> bool:
    """Whether an object is being deleted."""
    return "deletionTimestamp" in child["metadata"]
