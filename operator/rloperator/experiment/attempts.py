"""The attempts of an experiment, brought up to date with what is observed; pure."""

from datetime import datetime

from rloperator.kube import names
from rloperator.kube.names import SUBMITTER_CONTAINER, Manifest
from rloperator.kube.pod_problems import out_of_memory
from rloperator.kube.types import Observed, of, parse_time
from rltrainer.statuses import Attempt

KEPT = 20
"""Attempts that the status remembers."""

FAILURES = ("Failed", "Lost")
_LONGEST = 1024


def attempts_of(observed: Observed, now: datetime) -> tuple[Attempt, ...]:
    """The attempts that the status records, those it does not know of yet, and the end of the newest."""
    recorded = tuple(Attempt.model_validate(item) for item in observed.status.get("attempts", []))
    jobs = {names.attempt_of(job): job for job in of(observed.jobs, observed.object)}
    newest = recorded[-1].number if recorded else int(observed.status.get("attempt", 0))
    adopted = tuple(_adopted(jobs[number]) for number in sorted(jobs) if number > newest)
    known = (*recorded, *adopted)
    return tuple(_judged(attempt, jobs.get(attempt.number), observed, now) for attempt in known)


def failures_of(observed: Observed, attempts: tuple[Attempt, ...]) -> int:
    """Failed and lost attempts, those included that the status no longer lists."""
    before = {item["number"]: item["outcome"] for item in observed.status.get("attempts", [])}
    new = sum(a.outcome in FAILURES and before.get(a.number) not in FAILURES for a in attempts)
    return int(observed.status.get("failures", 0)) + new


def _adopted(job: Manifest) -> Attempt:
    """The record of an attempt that was made just before the operator was cut off."""
    metadata = job["metadata"]
    return Attempt(
        number=names.attempt_of(job),
        outcome="Running",
        started_at=parse_time(metadata["creationTimestamp"]),
        spec_hash=metadata.get("annotations", {}).get(names.SPEC_HASH),
    )


def _judged(attempt: Attempt, job: Manifest | None, observed: Observed, now: datetime) -> Attempt:
    """The attempt with its end, where it has ended."""
    if attempt.outcome in ("Suspended", "Replaced") and job and _succeeded(job):
        return _ended(attempt, now, "Succeeded")  # it reached the end before it was told to go
    if attempt.outcome != "Running":
        return attempt
    finished = _reported_finished(attempt, observed.status)
    if job is None:
        gone = "its RayJob was deleted, or its namespace lost it"
        return _ended(attempt, now, "Succeeded") if finished else _ended(attempt, now, "Lost", "RayJobGone", gone)
    if _succeeded(job):
        return _ended(attempt, now, "Succeeded")
    if not _over(job):
        return attempt
    return _ended(attempt, now, "Succeeded") if finished else _failed(attempt, job, observed, now)


def _failed(attempt: Attempt, job: Manifest, observed: Observed, now: datetime) -> Attempt:
    status = job["status"]
    if status.get("jobDeploymentStatus") == "ValidationFailed":
        return _ended(attempt, now, "Invalid", "ValidationFailed", f"KubeRay refused it: {status.get('message', '')}")
    training = observed.status.get("training") or {}
    if training.get("attempt") == attempt.number and (problem := training.get("error")):
        return _ended(attempt, now, "Invalid", problem["reason"], problem["message"])
    if status.get("jobStatus") == "STOPPED":
        return _ended(attempt, now, "Failed", "Stopped", "its Ray job was stopped by somebody else")
    reason = status.get("reason") or "AppFailed"
    return _ended(attempt, now, "Failed", reason, out_of_memory(observed.pods) or _words(status.get("message", "")))


def _ended(attempt: Attempt, now: datetime, outcome: str, reason: str | None = None, message: str = "") -> Attempt:
    end = attempt.ended_at or now.replace(microsecond=0)
    return attempt.model_copy(
        update={"outcome": outcome, "reason": reason, "message": message[:_LONGEST] or None, "ended_at": end}
    )


def ended(attempt: Attempt, outcome: str, reason: str, message: str, now: datetime) -> Attempt:
    """The attempt as the operator itself ends it."""
    return _ended(attempt, now, outcome, reason, message)


def _succeeded(job: Manifest) -> bool:
    return bool(job.get("status", {}).get("jobStatus") == "SUCCEEDED" and _over(job))


def _over(job: Manifest) -> bool:
    return job.get("status", {}).get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")


def _reported_finished(attempt: Attempt, status: Manifest) -> bool:
    """The trainer said that it reached a stop condition and that everything is in storage."""
    training = status.get("training") or {}
    uploaded = not (training.get("sync") or {}).get("pending")
    return bool(training.get("attempt") == attempt.number and training.get("stoppedBy") and uploaded)


def _words(message: str) -> str:
    """Ray's message without the pages of log in it: the first line, and the last one that says something."""
    if message == "Ray head pod not found." or f"{SUBMITTER_CONTAINER} terminated with exit code 143" in message:
        return "its head pod was lost: deleted, evicted, or its node failed"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return message.strip()
    first = lines[0].split(", last available logs", maxsplit=1)[0]
    return f"{first}: {lines[-1]}"
