"""The whole behavior of an experiment: from what is observed to what should be done; pure and level-based."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from rloperator.config import Settings
from rloperator.decisions import SOON, Decision, first_decision, outcome_of, soon, source_state, status_of
from rloperator.experiment.attempts import FAILURES, begun, describe_end, ended, status_fields
from rloperator.experiment.conditions import HEAD_READY, default_conditions, training
from rloperator.experiment.disruptions import is_excused, losses_in_a_row
from rloperator.experiment.events import events
from rloperator.experiment.network import policies, unproven, unwanted
from rloperator.experiment.patches import kept_cluster, live_patches
from rloperator.experiment.rayjob import rayjob, support_of
from rloperator.experiment.view import ExperimentView
from rloperator.kube import names
from rloperator.kube.pod_problems import failing_workers, first_problem, has_ready_head, head_problem, refused_pods
from rloperator.kube.types import Condition, Observed, Outcome, is_terminating
from rltrainer.api.status import Attempt, Phase

_FRESH = timedelta(seconds=90)
"""How long a start is looked at often."""
_FIRST_DELAY, _LONGEST_DELAY = 10.0, 300.0
"""Seconds between a failure and the next attempt."""
_DOUBLINGS = 5
"""From the first delay to the longest."""


def run_succeeded(view: ExperimentView) -> Decision | None:
    """A run that reached a stop condition is final: nothing runs it again."""
    if view.newest is None or view.newest.outcome != "Succeeded":
        return None
    steps, reward = view.training.get("timestepsTotal", 0), view.training.get("reward", "unknown")
    if view.is_search:
        reason, message = "SearchFinished", f"{view.search_progress or 'The search is done'}, after {steps} steps"
    else:
        stop = view.training.get("stoppedBy") or "its stop condition"
        reason, message = "StopConditionReached", f"Stopped by {stop} after {steps} steps, reward {reward}"
    if view.newest.spec_hash not in (None, view.spec_hash):
        message += ". The document was changed after that, and is not run again: for more, write a new experiment with "
        message += f"restoreFrom.experiment {view.owner.name}"
    decision = Decision("Succeeded", reason, message).with_condition("Succeeded", "True")
    # A cluster that is kept to be looked at goes earlier, or lets others look, where the document says so by now.
    is_open = view.job is not None and not view.rejection
    return replace(
        decision,
        tried=unproven(view) if is_open else (),
        apply=policies(view) if is_open else (),
        patch=kept_cluster(view),
        delete=view.jobs_to_delete if view.suspend_requested else view.unnoticed,
    )


def suspend_requested(view: ExperimentView) -> Decision | None:
    """The cluster is let go: first the checkpoint is written, then the pods go, then the experiment is Suspended."""
    if not view.suspend_requested:
        return None
    phase: Phase = view.observed.status.get("phase") or "Pending"
    if view.live:
        return _suspending(_ending(view, view.live, phase, "Suspended", "Suspending", "Suspension was requested"))
    if view.leftovers:
        return _suspending(_waiting_for_deletion(view, phase, "Suspending"))
    checkpoint = (view.training.get("checkpoint") or {}).get("uri") or "the newest checkpoint, if there is one,"
    message = f"The run goes on from {checkpoint} once spec.suspend is false"
    if view.search_progress:
        message = f"The trials go on from their checkpoints once spec.suspend is false. {view.search_progress}"
    return Decision("Suspended", "Suspended", message).with_condition("Suspended", "True")


def spec_changed(view: ExperimentView) -> Decision | None:
    """The document has what the running attempt cannot become, which ends."""
    live = view.live
    if live is None or view.rejection or live.spec_hash in (None, view.spec_hash):
        return None
    why = f"The document changed, and attempt {live.number + 1} runs it as it is now"
    ending = _ending(view, live, "Provisioning", "Replaced", "DocumentChanged", why)
    return replace(ending, tried=(*unproven(view), rayjob(view, live.number + 1)))


def attempt_under_way(view: ExperimentView) -> Decision | None:
    """The attempt under way is kept as the document has it; a rejected document leaves it alone."""
    if view.live is None:
        return None
    progress = _progress(view, view.live)
    is_fresh = view.live.started_at is not None and view.now - view.live.started_at < _FRESH
    return replace(
        progress,
        tried=() if view.rejection else unproven(view),
        apply=() if view.rejection else support_of(view),
        patch=live_patches(view),
        delete=unwanted(view),
        requeue_after=SOON if progress.phase != "Running" and is_fresh else None,
    )


def attempt_ending(view: ExperimentView) -> Decision | None:
    """An attempt that was ended goes all the way, whatever the document says by now."""
    if view.newest and view.newest.outcome in ("Suspended", "Replaced") and view.leftovers:
        return _waiting_for_deletion(view, "Provisioning", "LettingGo")
    return None


def document_invalid(view: ExperimentView) -> Decision | None:
    """The document cannot be run."""
    return Decision("Invalid", view.rejection.reason, view.rejection.message) if view.rejection else None


def trainer_rejected_document(view: ExperimentView) -> Decision | None:
    """The trainer reported that no retry helps: only another document does."""
    attempt = view.rejected_attempt
    if attempt is None:
        return None
    message = attempt.message or "The trainer rejected the document"
    return Decision("Invalid", attempt.reason or "Invalid", message, delete=view.unnoticed)


def retries_exhausted(view: ExperimentView) -> Decision | None:
    """There were more failures than the document allows."""
    newest, allowed = view.newest, view.document.max_failures
    if newest is None or newest.outcome not in FAILURES or is_excused(newest) or view.failures <= allowed:
        return None
    message = (
        f"{describe_end(newest.number, newest.outcome, newest.message)}. There were {view.failures} failures, and "
        f"maxFailures is {allowed}: raise it to go on from the last checkpoint"
    )
    return Decision("Failed", newest.reason or "Failed", message, delete=view.unnoticed).with_condition(
        "Failed", "True"
    )


def in_backoff(view: ExperimentView) -> Decision | None:
    """After a failure or a loss the next attempt waits, twice as long each time, and never longer than minutes."""
    newest = view.newest
    if newest is None or newest.outcome not in FAILURES or newest.ended_at is None:
        return None
    losses = losses_in_a_row(view.attempts, newest.checkpoint_iteration)
    in_a_row = losses if is_excused(newest) else view.failures
    delay = min(_FIRST_DELAY * 2.0 ** min(in_a_row - 1, _DOUBLINGS), _LONGEST_DELAY)
    left = min((newest.ended_at + timedelta(seconds=delay) - view.now).total_seconds(), delay)  # clocks go back
    if left <= 0:
        return None
    end = describe_end(newest.number, newest.outcome, newest.message)
    message = f"{end}. Attempt {newest.number + 1} follows after {delay:.0f} s"
    return Decision("Retrying", newest.reason or "Failed", message, delete=view.unnoticed, requeue_after=left)


def source_has_no_checkpoint(view: ExperimentView) -> Decision | None:
    """The experiment to restore from has no checkpoint yet, and neither has this one."""
    restore = view.document.restore_from
    if restore is None or restore.experiment is None or view.restore_uri or view.training.get("checkpoint"):
        return None
    message = f'Waiting for experiment "{restore.experiment}" to have a checkpoint'
    return Decision("Pending", "WaitingForCheckpoint", f"{message}{source_state(view.observed.source)}")


def leftovers_exist(view: ExperimentView) -> Decision | None:
    """Never two trainers: nothing may be left of earlier attempts when the next one starts."""
    if not view.leftovers:
        return None
    has_failed = view.newest is not None and view.newest.outcome in FAILURES
    return _waiting_for_deletion(view, "Retrying" if has_failed else "Pending", "WaitingForPods")


def no_attempt(view: ExperimentView) -> Decision:
    """Nothing runs and nothing is in the way: the next attempt starts."""
    number = view.newest_number + 1
    attempt = begun(number, view.spec_hash, view.now)
    return Decision(
        "Provisioning",
        "Provisioning",
        f"Attempt {number} is waiting for its cluster",
        fields=status_fields((*view.attempts, attempt), number),
        tried=unproven(view),
        apply=support_of(view),
        create=(rayjob(view, number),),
        delete=unwanted(view),
        requeue_after=SOON,
    )


CHECKS: tuple[Callable[[ExperimentView], Decision | None], ...] = (
    run_succeeded,
    suspend_requested,
    # An attempt under way:
    spec_changed,
    attempt_under_way,
    # None under way:
    attempt_ending,
    document_invalid,
    trainer_rejected_document,
    retries_exhausted,
    in_backoff,
    source_has_no_checkpoint,
    leftovers_exist,
    no_attempt,
)


def reconcile(observed: Observed, settings: Settings, now: datetime) -> Outcome:
    """Decide what to do about an experiment, given what is observed of it and its children.

    An object that is being deleted is left to the garbage collector: every child carries an owner reference.
    """
    if is_terminating(observed.object):
        return Outcome()
    view = ExperimentView.of(observed, settings, now)
    decision = first_decision(CHECKS, view)
    status = status_of(view, decision, default_conditions(view, decision))
    return outcome_of(view, decision, status, events(view, status))


def _ending(view: ExperimentView, live: Attempt, phase: Phase, outcome: str, reason: str, why: str) -> Decision:
    """End the attempt under way: it is written down first, and then its RayJob is deleted."""
    attempts = (*view.attempts[:-1], ended(live, view.now, outcome, reason, why))
    return Decision(
        phase,
        reason,
        f"Attempt {live.number} writes a checkpoint and ends. {why}",
        fields=status_fields(attempts, live.number),
        delete=view.jobs_to_delete,
        requeue_after=SOON,
    )


def _waiting_for_deletion(view: ExperimentView, phase: Phase, reason: str) -> Decision:
    """Delete the RayJobs that are left, and wait until all that they made is gone too."""
    children = [f"{item['kind'].lower()} {item['metadata']['name']}" for item in view.leftovers]
    more = f" and {len(children) - 3} more" if len(children) > 3 else ""
    message = f"Waiting for what is left of an earlier attempt to be deleted: {', '.join(children[:3])}{more}"
    since = max((item["metadata"].get("deletionTimestamp", "") for item in view.leftovers), default="")
    next_look = soon(since or None, view.now)
    return Decision(phase, reason, message, delete=view.jobs_to_delete, requeue_after=next_look)


def _suspending(decision: Decision) -> Decision:
    """Until nothing is left the phase stays what it was, and so does the condition of a phase of rest."""
    if decision.phase == "Suspended":
        return replace(decision, conditions=(Condition("Suspended", "True", "Suspended", decision.message),))
    decision = decision.with_condition("Suspended", "False")
    return decision.with_condition(decision.phase, "True") if decision.phase in ("Succeeded", "Failed") else decision


def _progress(view: ExperimentView, attempt: Attempt) -> Decision:
    """How the attempt under way stands."""
    job, pods, number = (view.job or {}).get("status", {}), view.observed.pods, attempt.number
    problem = first_problem(pods, view.now)
    head_ready = (HEAD_READY,) if has_ready_head(pods) else ()
    if job.get("jobDeploymentStatus") in ("Suspended", "Suspending"):
        message = f"Attempt {number} is waiting for its queue to admit it"
        return Decision("Pending", "WaitingForAdmission", message, head_ready)
    if job.get("jobStatus") == "RUNNING" or view.training.get("attempt") == number:
        return _running(view, attempt)
    if problem := problem or refused_pods(view.cluster, _age(view, attempt)):
        return Decision("Provisioning", problem.reason, problem.message, head_ready)
    if head_ready:
        message = f"Attempt {number} has a ready head pod, which starts the trainer"
        return Decision("Provisioning", "ClusterReady", message, head_ready)
    return Decision("Provisioning", "Provisioning", f"Attempt {number} is waiting for its head pod")


def _running(view: ExperimentView, attempt: Attempt) -> Decision:
    """Decide how an attempt stands whose trainer runs: what is so now, of its cluster and of its report."""
    pods, lost = view.observed.pods, view.observed.lost
    problem = (
        head_problem(pods, view.now)
        or first_problem(pods, view.now)
        or refused_pods(view.cluster, _age(view, attempt))
        or failing_workers(tuple(pod for pod in (*pods, *lost) if names.attempt_of(pod) == attempt.number))
    )
    cluster = Condition("ClusterReady", "False", problem.reason, problem.message) if problem else HEAD_READY
    trains = training(view, attempt)
    parts = (
        trains.message if trains.status != "True" else f"Attempt {attempt.number} is training",
        view.search_progress,
        problem.message if problem else "",
        attempt.disruption.message if attempt.disruption else "",
    )
    message = ". ".join(part.rstrip(".") for part in parts if part)
    return Decision("Running", "Training", message, (cluster, trains))


def _age(view: ExperimentView, attempt: Attempt) -> timedelta:
    return view.now - attempt.started_at if attempt.started_at else timedelta()
