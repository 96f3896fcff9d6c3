"""The conditions of an experiment, and the events at each of its turns; pure.

An event is what lies between the status that stood and the one that is about to stand, so it is told once.
"""

from collections.abc import Iterator
from typing import Literal

from rloperator.experiment.view import Case, Decision
from rloperator.kube import names
from rloperator.kube.names import Manifest
from rloperator.kube.pod_problems import TROUBLES, head, is_ready
from rloperator.kube.types import Condition, Conditions, Event, conditions_of

_ENDS: dict[str, tuple[str, Literal["Normal", "Warning"]]] = {
    "Failed": ("AttemptFailed", "Warning"),
    "Lost": ("AttemptLost", "Warning"),
    "Replaced": ("AttemptReplaced", "Normal"),
    "Suspended": ("Suspending", "Normal"),
}


def conditions(case: Case, decision: Decision) -> tuple[Manifest, ...]:
    """All conditions, always all of them."""
    new = (
        _accepted(case),
        _cluster_ready(case, decision),
        _training(case, decision),
        _synced(case),
        _suspended(case, decision),
        _final("Succeeded", decision),
        _final("Failed", decision),
    )
    return conditions_of(case.observed.status).updated(new, case.observed.generation, case.now)


def _accepted(case: Case) -> Condition:
    if case.refusal:
        return Condition("Accepted", "False", case.refusal.reason, case.refusal.message)
    newest = case.newest
    if newest and newest.outcome == "Invalid" and newest.spec_hash in (None, case.hash):
        return Condition("Accepted", "False", newest.reason or "Invalid", newest.message or "")
    return Condition("Accepted", "True", "Accepted", "the document can be run")


def _is_live(case: Case, decision: Decision) -> bool:
    attempts = decision.attempts or case.attempts
    return bool(attempts and attempts[-1].outcome == "Running")


def _cluster_ready(case: Case, decision: Decision) -> Condition:
    if not _is_live(case, decision):
        return Condition("ClusterReady", "False", decision.reason, "no cluster: " + decision.message)
    pod = head(case.observed.pods)
    if decision.phase == "Running" or (pod and is_ready(pod)):
        return Condition("ClusterReady", "True", "HeadReady", "the head pod is ready")
    return Condition("ClusterReady", "False", decision.reason, decision.message)


def _training(case: Case, decision: Decision) -> Condition:
    if decision.phase != "Running" or not _is_live(case, decision):
        return Condition("Training", "False", decision.reason, decision.message)
    number, restored = case.attempts[-1].number, case.training.get("restoredFrom")
    if case.training.get("attempt") == number and restored:
        return Condition("Training", "True", "RestoredCheckpoint", f"attempt {number} went on from {restored}")
    return Condition("Training", "True", "Training", f"attempt {number} trains")


def _synced(case: Case) -> Condition:
    sync = case.training.get("sync") or {}
    old = conditions_of(case.observed.status).get("CheckpointSynced")
    if problem := sync.get("error"):
        return Condition("CheckpointSynced", "False", problem["reason"], problem["message"])
    if not case.training.get("checkpoint"):
        return Condition("CheckpointSynced", "Unknown", "NoCheckpoint", "no checkpoint is in storage yet")
    if sync.get("pending") and old:
        # On its way: neither good news nor bad, so it stands as it stood.
        return Condition("CheckpointSynced", old["status"], old["reason"], old["message"])
    return Condition("CheckpointSynced", "True", "Synced", "the checkpoints are in storage")


def _suspended(case: Case, decision: Decision) -> Condition:
    if decision.phase == "Suspended":
        return Condition("Suspended", "True", "Suspended", decision.message)
    if case.wants_suspension and decision.reason == "Suspending":
        return Condition("Suspended", "False", "Suspending", decision.message)
    return Condition("Suspended", "False", "NotSuspended", "")


def _final(kind: Literal["Succeeded", "Failed"], decision: Decision) -> Condition:
    if decision.phase == kind:
        return Condition(kind, "True", decision.reason, decision.message)
    return Condition(kind, "False", "NotFinished" if kind == "Succeeded" else "NotFailed", "")


def search(case: Case) -> str:
    """How a search stands, in words; empty where there is none, or nothing is known of it yet."""
    counts = case.training.get("trials")
    if not case.is_search or not counts:
        return ""
    failed = counts.get("failed", 0)
    done = counts.get("terminated", 0) + failed
    every = done + counts.get("running", 0) + counts.get("pending", 0)
    words = f"search: {done} of {every} trials done" + (f", {failed} of them failed" if failed else "")
    return words + (f", best {case.best['trial']} with {case.best['reward']:.5g}" if case.best else "")


def events(case: Case, before: Manifest, after: Manifest) -> tuple[Event, ...]:
    """What happened between two statuses, in the order in which one tells it."""
    old, new = conditions_of(before), conditions_of(after)
    return (
        *_attempts(case, before, after),
        *_turn(old, new, "Accepted", {"False": "Warning"}, {}),
        *_cluster_turn(old, new),
        *_trains(old, new),
        *_turn(old, new, "CheckpointSynced", {"False": "Warning"}, {"False": "CheckpointSyncFailed"}),
        *_recovered(old, new),
        *_turn(old, new, "Suspended", {"True": "Normal"}, {"True": "Suspended"}),
        *_resumed(old, new),
        *_turn(old, new, "Succeeded", {"True": "Normal"}, {"True": "Succeeded"}),
        *_turn(old, new, "Failed", {"True": "Warning"}, {"True": "Failed"}),
    )


def _attempts(case: Case, before: Manifest, after: Manifest) -> Iterator[Event]:
    outcomes = {item["number"]: item["outcome"] for item in before.get("attempts", [])}
    for item in after.get("attempts", []):
        number, outcome = item["number"], item["outcome"]
        if number not in outcomes:
            job = names.rayjob(case.owner.name, number)
            yield Event("AttemptStarted", f"attempt {number} is RayJob {job}", anchor=str(number))
        if outcomes.get(number) != outcome and outcome in _ENDS:
            reason, kind = _ENDS[outcome]
            yield Event(reason, f"attempt {number}: {item.get('message', '')}", kind, anchor=str(number))


def _turn(
    old: Conditions,
    new: Conditions,
    kind: str,
    types: dict[str, Literal["Normal", "Warning"]],
    reasons: dict[str, str],
) -> Iterator[Event]:
    """An event where a condition takes one of the statuses in `types`, or changes its reason within it."""
    was, now = old.get(kind), new.get(kind)
    same = (was.get("status"), was.get("reason")) == (now["status"], now["reason"])
    if not same and now["status"] in types:
        reason: str = reasons.get(now["status"]) or now["reason"]
        yield Event(reason, now["message"], types[now["status"]], _anchor(was, now))


def _anchor(was: Manifest, now: Manifest) -> str:
    """What tells this turn from an earlier one alike: the turn that it follows."""
    return f"{was.get('lastTransitionTime')} {was.get('reason')} {now['reason']} {now['observedGeneration']}"


def _cluster_turn(old: Conditions, new: Conditions) -> Iterator[Event]:
    now = new.get("ClusterReady")
    if now["status"] == "True":
        yield from _turn(old, new, "ClusterReady", {"True": "Normal"}, {"True": "ClusterReady"})
    elif now["reason"] in (*TROUBLES, "WaitingForAdmission"):
        yield from _turn(old, new, "ClusterReady", {"False": "Warning"}, {})


def _trains(old: Conditions, new: Conditions) -> Iterator[Event]:
    was, now = old.get("Training"), new.get("Training")
    if now["status"] == "True" and was.get("reason") != now["reason"]:
        yield Event(now["reason"], now["message"], anchor=now["message"])


def _recovered(old: Conditions, new: Conditions) -> Iterator[Event]:
    was, now = old.get("CheckpointSynced"), new.get("CheckpointSynced")
    if was.get("status") == "False" and now["status"] == "True":
        yield Event("CheckpointSyncRecovered", now["message"], anchor=_anchor(was, now))


def _resumed(old: Conditions, new: Conditions) -> Iterator[Event]:
    was, now = old.get("Suspended"), new.get("Suspended")
    if was.get("status") == "True" and now["status"] == "False":
        yield Event("Resumed", "goes on from the newest checkpoint", anchor=_anchor(was, now))
