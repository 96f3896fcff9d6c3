"""The events of an experiment; pure.

An event is what lies between the status that stood and the one that is about to stand, so it is recorded once.
"""

from collections.abc import Iterator
from typing import Literal

from rloperator.experiment.attempts import describe_end
from rloperator.experiment.view import ExperimentView
from rloperator.kube import names, pod_problems
from rloperator.kube.types import Conditions, Event, Manifest, conditions_of

EventType = Literal["Normal", "Warning"]

_ENDS: dict[str, tuple[str, EventType]] = {
    "Failed": ("AttemptFailed", "Warning"),
    "Lost": ("AttemptLost", "Warning"),
    "Replaced": ("AttemptReplaced", "Normal"),
    "Suspended": ("Suspending", "Normal"),
}


def events(view: ExperimentView, after: Manifest) -> tuple[Event, ...]:
    """The events between the status that stands and `after`, in the order in which one reads it."""
    before = view.observed.own_status
    old, new = conditions_of(before), conditions_of(after)
    return (
        *_attempts(view, before, after),
        *_transition(old, new, "Accepted", "False", "Warning"),
        *_cluster(old, new),
        *_training(old, new),
        *_transition(old, new, "CheckpointSynced", "False", "Warning", "CheckpointSyncFailed"),
        *_recovered(old, new),
        *_transition(old, new, "Suspended", "True", "Normal", "Suspended"),
        *_resumed(old, new),
        *_transition(old, new, "Succeeded", "True", "Normal", "Succeeded"),
        *_transition(old, new, "Failed", "True", "Warning", "Failed"),
    )


def _attempts(view: ExperimentView, before: Manifest, after: Manifest) -> Iterator[Event]:
    outcomes = {item["number"]: item["outcome"] for item in before.get("attempts", [])}
    for item in after.get("attempts", []):
        number, outcome = item["number"], item["outcome"]
        if number not in outcomes:
            job = names.rayjob(view.owner.name, number)
            yield Event("AttemptStarted", f"Attempt {number} is RayJob {job}", dedup_key=str(number))
        if outcomes.get(number) != outcome and outcome in _ENDS:
            reason, kind = _ENDS[outcome]
            message = describe_end(number, outcome, item.get("message"))
            yield Event(reason, message, kind, dedup_key=str(number))


def _transition(
    old: Conditions, new: Conditions, kind: str, status: str, event_type: EventType, reason: str = ""
) -> Iterator[Event]:
    """An event where a condition takes `status`, or another reason within it. Unless `reason` is given, it is that."""
    before, after = old.get(kind), new.get(kind)
    is_same = (before.get("status"), before.get("reason")) == (after["status"], after["reason"])
    if not is_same and after["status"] == status:
        yield Event(reason or after["reason"], after["message"], event_type, _dedup_key(before, after))


def _dedup_key(before: Manifest, after: Manifest) -> str:
    """The mark that tells this transition from an earlier one alike: the transition that it follows."""
    return f"{before.get('lastTransitionTime')} {before.get('reason')} {after['reason']} {after['observedGeneration']}"


def _cluster(old: Conditions, new: Conditions) -> Iterator[Event]:
    yield from _transition(old, new, "ClusterReady", "True", "Normal", "ClusterReady")
    if new.get("ClusterReady")["reason"] in (*pod_problems.REASONS, "WaitingForAdmission"):
        yield from _transition(old, new, "ClusterReady", "False", "Warning")


def _training(old: Conditions, new: Conditions) -> Iterator[Event]:
    yield from _transition(old, new, "Training", "Unknown", "Warning")
    before, after = old.get("Training"), new.get("Training")
    if after["status"] == "True" and before.get("reason") != after["reason"]:
        yield Event(after["reason"], after["message"], dedup_key=after["message"])


def _recovered(old: Conditions, new: Conditions) -> Iterator[Event]:
    before, after = old.get("CheckpointSynced"), new.get("CheckpointSynced")
    if before.get("status") == "False" and after["status"] == "True":
        yield Event("CheckpointSyncRecovered", after["message"], dedup_key=_dedup_key(before, after))


def _resumed(old: Conditions, new: Conditions) -> Iterator[Event]:
    before, after = old.get("Suspended"), new.get("Suspended")
    if before.get("status") == "True" and after["status"] == "False":
        yield Event("Resumed", "The run goes on from the newest checkpoint", dedup_key=_dedup_key(before, after))
