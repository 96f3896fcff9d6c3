"""The attempts of an experiment, brought up to date with what is observed; pure."""

import hashlib
import json
from datetime import datetime

from rloperator.experiment.disruptions import excused, is_excused, noticed
from rloperator.kube import names
from rloperator.kube.disruption import own_fault
from rloperator.kube.pod_problems import head_end
from rloperator.kube.types import Manifest, Observed, parse_time
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.status import Attempt

FAILURES = ("Failed", "Lost")
"""Outcomes that count as a failure, unless they are excused."""

_END_VERBS = {"Failed": "failed", "Lost": "was lost", "Suspended": "ends", "Replaced": "ends"}
_DEADLINES = {
    "PreRunningDeadlineExceeded": "Its cluster was not there within spec.cluster.startDeadlineSeconds",
    "DeadlineExceeded": "It took longer than spec.cluster.activeDeadlineSeconds",
}
_MAX_RECORDED = 20
_MAX_MESSAGE = 1024


def spec_hash(spec: ExperimentSpec) -> str:
    """Hash what an attempt cannot change while it runs.

    Defaults are left out, so that a field that a later version adds does not restart what runs.
    """
    document = spec.model_dump(by_alias=True, exclude_defaults=True, mode="json")
    for live in ("suspend", "maxFailures"):
        document.pop(live, None)
    cluster = document.get("cluster", {})
    for live in ("keepSecondsAfterFinished", "ingress"):
        cluster.pop(live, None)
    for group in cluster.get("workers", []):
        group.pop("minReplicas", None)
        group.pop("maxReplicas", None)
    if not cluster:
        document.pop("cluster", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def attempts_of(observed: Observed, now: datetime, stall_timeout: int | None = None) -> tuple[Attempt, ...]:
    """The attempts that the status records, those it does not know of yet, and the end of the newest.

    One that has reported nothing new for `stall_timeout` seconds has failed.
    """
    recorded = tuple(Attempt.model_validate(item) for item in observed.status.get("attempts", []))
    jobs = {names.attempt_of(job): job for job in names.owned(observed.jobs, observed.object)}
    newest = recorded[-1].number if recorded else int(observed.status.get("attempt", 0))
    adopted = tuple(_adopted(jobs[number]) for number in sorted(jobs) if number > newest)
    known = (*recorded, *adopted)
    return tuple(
        _seen(attempt, known[:index], jobs.get(attempt.number), observed, now, stall_timeout)
        for index, attempt in enumerate(known)
    )


def failures_of(observed: Observed, attempts: tuple[Attempt, ...]) -> int:
    """Failed and lost attempts in a row, those included that the status no longer lists.

    A checkpoint that is newer than at the failure before ends the row: a run of weeks may lose many a node.
    """
    before = {item["number"]: item["outcome"] for item in observed.status.get("attempts", [])}
    failures, last = int(observed.status.get("failures", 0)), None
    for attempt in attempts:
        if attempt.outcome not in FAILURES or is_excused(attempt):
            continue
        if before.get(attempt.number) not in FAILURES:
            has_progressed = last is not None and (attempt.checkpoint_iteration or 0) > last
            failures = 1 if has_progressed else failures + 1
        last = attempt.checkpoint_iteration or 0
    return failures


def status_fields(attempts: tuple[Attempt, ...], newest: int) -> Manifest:
    """The attempts as the status records them: the newest twenty, and the number of the newest."""
    kept = attempts[-_MAX_RECORDED:]
    records = [attempt.model_dump(by_alias=True, exclude_none=True, mode="json") for attempt in kept]
    return {"attempt": newest, "attempts": records}


def begun(number: int, spec_hash: str | None, now: datetime) -> Attempt:
    """An attempt that begins now."""
    return Attempt(number=number, outcome="Running", started_at=now.replace(microsecond=0), spec_hash=spec_hash)


def ended(attempt: Attempt, now: datetime, outcome: str, reason: str | None = None, message: str = "") -> Attempt:
    """The attempt with its end, which was seen now unless it was seen before."""
    end = attempt.ended_at or now.replace(microsecond=0)
    return attempt.model_copy(
        update={"outcome": outcome, "reason": reason, "message": message[:_MAX_MESSAGE] or None, "ended_at": end}
    )


def describe_end(number: int, outcome: str, message: str | None) -> str:
    """Say in a sentence how an attempt ended, and in another one why, where that is known."""
    end = f"Attempt {number} {_END_VERBS[outcome]}"
    return f"{end}. {message.rstrip('.')}" if message else end


def _adopted(job: Manifest) -> Attempt:
    """The record of an attempt that was made just before the operator was cut off."""
    return Attempt(
        number=names.attempt_of(job),
        outcome="Running",
        started_at=parse_time(job["metadata"]["creationTimestamp"]),
        spec_hash=names.annotation(job, names.SPEC_HASH_ANNOTATION),
    )


def _seen(
    attempt: Attempt,
    earlier: tuple[Attempt, ...],
    job: Manifest | None,
    observed: Observed,
    now: datetime,
    stall_timeout: int | None,
) -> Attempt:
    """The attempt with its end, and the checkpoint that it then had come to, where it has ended."""
    before = noticed(attempt, observed, now) if attempt.outcome == "Running" else attempt
    after = _stalled(_with_outcome(before, job, observed, now), observed, now, stall_timeout)
    if after.outcome not in FAILURES or attempt.outcome in FAILURES:
        return after
    checkpoint = (observed.status.get("training") or {}).get("checkpoint") or {}
    return excused(after.model_copy(update={"checkpoint_iteration": checkpoint.get("iteration")}), earlier)


def _with_outcome(attempt: Attempt, job: Manifest | None, observed: Observed, now: datetime) -> Attempt:
    """The attempt with its end, where it has ended."""
    is_finished = _has_reported_end(attempt, observed.status)
    if attempt.outcome in ("Suspended", "Replaced") and job and _has_succeeded(job) and is_finished:
        return ended(attempt, now, "Succeeded")  # it reached its end before it was ended
    if attempt.outcome != "Running":
        return attempt
    if job is None:
        gone = "Its RayJob was deleted, or its namespace lost it"
        return ended(attempt, now, "Succeeded") if is_finished else ended(attempt, now, "Lost", "RayJobGone", gone)
    if not is_over(job):
        return _before_kuberay(attempt, job, observed, now)
    if is_finished:
        return ended(attempt, now, "Succeeded")
    return _unreported(attempt, now) if _has_succeeded(job) else _failed(attempt, job, observed, now)


def _unreported(attempt: Attempt, now: datetime) -> Attempt:
    """The attempt, whose trainer ended as it should without that being known here: what is known is from before."""
    message = "Its trainer ended with exit code 0, but its last report is missing: the next attempt finds how it ended"
    return ended(attempt, now, "Failed", "ReportMissing", message)


def _before_kuberay(attempt: Attempt, job: Manifest, observed: Observed, now: datetime) -> Attempt:
    """The attempt with an end that KubeRay does not look for.

    The trainer runs as soon as there is a head. KubeRay asks nothing of it before all workers are there, which may be
    never, and replaces a head that ends meanwhile, again and again.
    """
    end = head_end(observed.pods)
    if end is None or job.get("status", {}).get("jobDeploymentStatus", "") not in ("", "Initializing", "Waiting"):
        return attempt
    if _has_reported_end(attempt, observed.status):
        return ended(attempt, now, "Succeeded")
    if end.is_success:
        return _unreported(attempt, now)
    if problem := _reported_problem(attempt, observed.status):
        return ended(attempt, now, "Invalid", problem["reason"], problem["message"])
    return ended(attempt, now, "Failed", "HeadEnded", own_fault(observed.pods) or str(end))


def _stalled(attempt: Attempt, observed: Observed, now: datetime, timeout: int | None) -> Attempt:
    """The attempt, failed where it trains and has reported nothing new for too long."""
    training = observed.status.get("training") or {}
    if attempt.outcome != "Running" or timeout is None or training.get("attempt") != attempt.number:
        return attempt
    reported = training.get("updatedAt")
    if reported is None or (now - parse_time(reported)).total_seconds() <= timeout:
        return attempt
    message = f"It reported no progress for {timeout} s, which is spec.cluster.stallTimeoutSeconds"
    return ended(attempt, now, "Failed", "Stalled", message)


def _reported_problem(attempt: Attempt, status: Manifest) -> Manifest | None:
    """The problem that the trainer of this attempt reported, against which no retry helps."""
    training = status.get("training") or {}
    problem: Manifest | None = training.get("error") if training.get("attempt") == attempt.number else None
    return problem


def _failed(attempt: Attempt, job: Manifest, observed: Observed, now: datetime) -> Attempt:
    status = job["status"]
    if status.get("jobDeploymentStatus") == "ValidationFailed":
        return ended(
            attempt, now, "Invalid", "ValidationFailed", f"KubeRay rejected its RayJob: {status.get('message', '')}"
        )
    if problem := _reported_problem(attempt, observed.status):
        return ended(attempt, now, "Invalid", problem["reason"], problem["message"])
    if status.get("jobStatus") == "STOPPED":
        return ended(attempt, now, "Failed", "Stopped", "Its Ray job was stopped by somebody else")
    reason = status.get("reason") or "AppFailed"
    if reason in _DEADLINES:
        return ended(attempt, now, "Failed", reason, _DEADLINES[reason])
    return ended(attempt, now, "Failed", reason, own_fault(observed.pods) or _summary(status.get("message", "")))


def _has_succeeded(job: Manifest) -> bool:
    return bool(job.get("status", {}).get("jobStatus") == "SUCCEEDED" and is_over(job))


def is_over(job: Manifest) -> bool:
    """Whether KubeRay has done with a RayJob."""
    return job.get("status", {}).get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")


def _has_reported_end(attempt: Attempt, status: Manifest) -> bool:
    """Whether the trainer reported that it reached a stop condition and that everything is in storage."""
    training = status.get("training") or {}
    is_uploaded = not (training.get("sync") or {}).get("pending")
    return bool(training.get("attempt") == attempt.number and training.get("stoppedBy") and is_uploaded)


def _summary(message: str) -> str:
    """Ray's message without the pages of log in it: its first line, and its last one."""
    if message == "Ray head pod not found." or f"{names.SUBMITTER_CONTAINER} terminated with exit code 143" in message:
        return "Its head pod was lost: it was deleted or evicted, or its node failed"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return message.strip()
    first = lines[0].split(", last available logs", maxsplit=1)[0]
    return f"{first}: {lines[-1]}"
