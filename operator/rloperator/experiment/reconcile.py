"""The whole behaviour of an experiment: from what is observed to what should be done; pure and level-based.

The first check that has something to say decides. What a check may rely on is that those above it had nothing to say.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from rloperator.config import Settings
from rloperator.experiment import conditions as story
from rloperator.experiment import rayjob as attempt
from rloperator.experiment.attempts import FAILURES, KEPT, ended
from rloperator.experiment.view import Case, Decision
from rloperator.kube.names import Manifest
from rloperator.kube.pod_problems import Trouble, is_ready, trouble
from rloperator.kube.pod_problems import head as head_of
from rloperator.kube.types import Observed, Outcome, Patch, reference
from rltrainer.spec import Metadata
from rltrainer.statuses import Attempt, Phase
from rltrainer.storage.paths import run_uri

Check = Callable[[Case], Decision | None]

SOON = 2.0
"""Seconds until the next look where something is about to happen in pods, which are not watched."""
_FRESH = timedelta(seconds=90)
_PATIENCE = timedelta(seconds=15)
_FIRST_DELAY, _LONGEST_DELAY = 10.0, 300.0


def finished(case: Case) -> Decision | None:
    """A run that reached a stop condition is final: nothing runs it again."""
    if case.newest is None or case.newest.outcome != "Succeeded":
        return None
    why = case.training.get("stoppedBy") or "its stop condition"
    steps, reward = case.training.get("timestepsTotal", 0), case.training.get("reward", "unknown")
    if case.is_search:
        return Decision("Succeeded", "SearchFinished", f"{story.search(case) or 'search done'}, after {steps} steps")
    return Decision("Succeeded", "StopConditionReached", f"stopped by {why} after {steps} steps, reward {reward}")


def suspended(case: Case) -> Decision | None:
    """Asked to let the cluster go: first the checkpoint, then the pods, then the word Suspended."""
    if not case.wants_suspension:
        return None
    phase: Phase = case.observed.status.get("phase") or "Pending"
    if case.live:
        return _end_live(case, phase, "Suspended", "Suspending", "suspension is asked for")
    if case.remains:
        return Decision(phase, "Suspending", _leaving(case), delete=case.to_delete, requeue_after=SOON)
    at = (case.training.get("checkpoint") or {}).get("uri") or "the newest checkpoint, if there is one,"
    if found := story.search(case):
        at = f"the checkpoints of its trials ({found})"
    return Decision("Suspended", "Suspended", f"goes on from {at} once spec.suspend is false")


def letting_go(case: Case) -> Decision | None:
    """An attempt that was told to go goes all the way, whatever the document says by now."""
    if case.newest and case.newest.outcome in ("Suspended", "Replaced") and case.remains:
        return Decision("Provisioning", "LettingGo", _leaving(case), delete=case.to_delete, requeue_after=SOON)
    return None


def refused(case: Case) -> Decision | None:
    """A document that cannot be run. What already runs of an earlier one is left alone."""
    if case.refusal and not case.live:
        return Decision("Invalid", case.refusal.reason, case.refusal.message)
    return None


def rejected(case: Case) -> Decision | None:
    """The trainer said that no retry helps: only another document does."""
    newest = case.newest
    if newest and newest.outcome == "Invalid" and newest.spec_hash in (None, case.hash):
        return Decision("Invalid", newest.reason or "Invalid", newest.message or "the trainer refused the document")
    return None


def out_of_attempts(case: Case) -> Decision | None:
    """More failures than the document allows."""
    newest, allowed = case.newest, case.spec.max_failures if case.spec else 0
    if newest is None or newest.outcome not in FAILURES or case.failures <= allowed:
        return None
    message = f"failed {case.failures} times, maxFailures is {allowed}; attempt {newest.number}: {newest.message}. "
    return Decision(
        "Failed", newest.reason or "Failed", message + "Raise maxFailures to go on from the last checkpoint"
    )


def changed(case: Case) -> Decision | None:
    """The document asks for something that the running attempt cannot become."""
    live = case.live
    if live is None or case.refusal or live.spec_hash in (None, case.hash):
        return None
    why = f"the document changed, and attempt {live.number + 1} runs what it says now"
    return _end_live(case, "Provisioning", "Replaced", "DocumentChanged", why)


def backing_off(case: Case) -> Decision | None:
    """After a failure the next attempt waits, twice as long each time."""
    newest = case.newest
    if newest is None or newest.outcome not in FAILURES or newest.ended_at is None:
        return None
    delay = min(_FIRST_DELAY * 2 ** (case.failures - 1), _LONGEST_DELAY)
    left = (newest.ended_at + timedelta(seconds=delay) - case.now).total_seconds()
    if left <= 0:
        return None
    message = (
        f"attempt {newest.number} ended: {newest.message}. Attempt {newest.number + 1} follows after {delay:.0f} s"
    )
    return Decision("Retrying", newest.reason or "Failed", message, requeue_after=left)


def waiting_for_checkpoint(case: Case) -> Decision | None:
    """The experiment to restore from has no checkpoint yet."""
    asked = case.spec.restore_from if case.spec else None
    if case.live or asked is None or asked.experiment is None or case.restore_uri or case.training.get("checkpoint"):
        return None
    return Decision(
        "Pending", "WaitingForCheckpoint", f'waits for experiment "{asked.experiment}" to have a checkpoint'
    )


def clearing(case: Case) -> Decision | None:
    """Never two trainers: nothing may be left of earlier attempts when the next one starts."""
    if case.live or not case.remains:
        return None
    phase: Phase = "Retrying" if case.newest and case.newest.outcome in FAILURES else "Pending"
    return Decision(phase, "WaitingForPods", _leaving(case), delete=case.to_delete, requeue_after=SOON)


def starting(case: Case) -> Decision | None:
    """Nothing runs and nothing is in the way."""
    if case.live:
        return None
    number = case.next_number
    begun = Attempt(number=number, outcome="Running", started_at=case.now.replace(microsecond=0), spec_hash=case.hash)
    return Decision(
        "Provisioning",
        "Provisioning",
        f"attempt {number} waits for its cluster",
        attempts=(*case.attempts, begun),
        apply=tuple(attempt.support_of(case.plan)),
        create=(attempt.rayjob(case.plan, number),),
        requeue_after=SOON,
    )


def running(case: Case) -> Decision:
    """The attempt under way is kept as the document wants it."""
    phase, reason, message = _progress(case)
    fresh = case.live and case.live.started_at and case.now - case.live.started_at < _FRESH
    return Decision(
        phase,
        reason,
        message,
        apply=() if case.refusal else tuple(attempt.support_of(case.plan)),
        patch=tuple(_adjustments(case)),
        requeue_after=SOON if phase != "Running" and fresh else None,
    )


CHECKS: tuple[Check, ...] = (
    finished,
    suspended,
    letting_go,
    refused,
    rejected,
    out_of_attempts,
    changed,
    backing_off,
    waiting_for_checkpoint,
    clearing,
    starting,
)


def reconcile(observed: Observed, settings: Settings, now: datetime) -> Outcome:
    """What to do about an experiment, given what is observed of it and its children.

    An object that is being deleted is left to the garbage collector: every child carries an owner reference.
    """
    if "deletionTimestamp" in observed.object["metadata"]:
        return Outcome()
    case = Case(observed, settings, now)
    decision = next((said for check in CHECKS if (said := check(case))), None) or running(case)
    status = _status(case, decision)
    before = {key: value for key, value in observed.status.items() if key != "training"}
    return Outcome(
        apply=decision.apply,
        create=decision.create,
        patch=decision.patch,
        events=story.events(case, before, status),
        status=status if status != before else None,
        delete=decision.delete,
        requeue_after=decision.requeue_after,
    )


def _status(case: Case, decision: Decision) -> Manifest:
    """The whole status but what the trainer reports."""
    attempts = (decision.attempts or case.attempts)[-KEPT:]
    owner = case.owner
    folder = run_uri(case.storage.uri, Metadata.model_validate(owner.object["metadata"])) if case.storage else None
    fields = {
        "phase": decision.phase,
        "message": decision.message,
        "observedGeneration": case.observed.generation,
        "attempt": attempts[-1].number if attempts else case.next_number - 1,
        "failures": case.failures,
        "attempts": [item.model_dump(by_alias=True, exclude_none=True, mode="json") for item in attempts],
        "cluster": (case.job or {}).get("status", {}).get("rayClusterName"),
        "storageUri": folder or case.observed.status.get("storageUri"),
        "best": case.best,
        "conditions": list(story.conditions(case, decision)),
    }
    return {key: value for key, value in fields.items() if value not in (None, [])}


def _end_live(case: Case, phase: Phase, outcome: str, reason: str, why: str) -> Decision:
    """End the attempt under way: it is written down first, and then its RayJob is deleted."""
    assert case.live is not None  # noqa: S101 - for the type checker: the callers asked
    end = ended(case.live, outcome, reason, why, case.now)
    return Decision(
        phase,
        reason,
        f"attempt {end.number} writes a checkpoint and goes: {why}",
        attempts=(*case.attempts[:-1], end),
        delete=case.to_delete,
        requeue_after=SOON,
    )


def _leaving(case: Case) -> str:
    left = [f"{item['kind'].lower()} {item['metadata']['name']}" for item in case.remains]
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return f"waits for what is left of an earlier attempt to go: {', '.join(left[:3])}{more}"


def _progress(case: Case) -> tuple[Phase, str, str]:
    """How the attempt under way stands: phase, reason, message."""
    number = case.live.number if case.live else 0
    status = (case.job or {}).get("status", {})
    found = trouble(case.observed.pods, case.now)
    if status.get("jobDeploymentStatus") in ("Suspended", "Suspending"):
        return "Pending", "WaitingForAdmission", f"attempt {number} waits for its queue to admit it"
    if status.get("jobStatus") == "RUNNING" or case.training.get("attempt") == number:
        said = (f"attempt {number} trains", story.search(case), found.message if found else "")
        return "Running", "Training", "; ".join(part for part in said if part)
    found = found or _refused_pods(case)
    if found:
        return "Provisioning", found.reason, found.message
    if (pod := head_of(case.observed.pods)) and is_ready(pod):
        return "Provisioning", "ClusterReady", f"attempt {number}: the head is ready and starts the trainer"
    return "Provisioning", "Provisioning", f"attempt {number} waits for its head pod"


def _refused_pods(case: Case) -> Trouble | None:
    """Pods that the API server refuses, by a quota or a policy, for longer than a start takes."""
    for condition in (case.cluster or {}).get("status", {}).get("conditions", []):
        failing = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        if failing and case.live and case.live.started_at and case.now - case.live.started_at > _PATIENCE:
            return Trouble("PodsRefused", f"KubeRay cannot make the pods: {condition.get('message', '')}")
    return None


def _adjustments(case: Case) -> list[Patch]:
    """What the document may change on a running attempt, and what KubeRay leaves out of its pods."""
    found: list[Patch] = []
    if case.cluster:
        operations = [*attempt.submitter(case.cluster)]
        operations += attempt.scaling(case.spec, case.cluster) if case.spec and not case.refusal else []
        found += [Patch(reference(case.cluster), tuple(operations))] if operations else []
    if case.job and case.spec and not case.refusal:
        keep = case.spec.cluster.keep_seconds_after_finished
        if case.job["spec"].get("ttlSecondsAfterFinished") != keep:
            operation = {"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": keep}
            found.append(Patch(reference(case.job), (operation,)))
    return found
