"""The whole behavior of a rollout: from what is observed to its Job; pure and level-based."""

from collections.abc import Callable
from datetime import datetime

from rloperator.config import Settings
from rloperator.decisions import SOON, Decision, first_decision, outcome_of, soon, source_state, status_of
from rloperator.kube import names
from rloperator.kube.pod_problems import first_problem
from rloperator.kube.types import Observed, Outcome, is_terminating, reference
from rloperator.rollout.conditions import default_conditions, events
from rloperator.rollout.job import job, support_of
from rloperator.rollout.view import RolloutView
from rltrainer.api.status import Phase


def episodes_finished(view: RolloutView) -> Decision | None:
    """All episodes are done and reported: final, whatever becomes of the Job."""
    if not view.results.get("done"):
        return None
    message = f"Finished {view.results['episodes']} episodes with return {view.results.get('reward')}"
    if view.is_changed:
        message += ". The document was changed after that, and is not run again: for more, write a new rollout"
    return Decision("Succeeded", "EpisodesFinished", message).with_condition("Succeeded", "True")


def document_invalid(view: RolloutView) -> Decision | None:
    """The document cannot be run. A Job that runs already is left alone."""
    if view.rejection is None or view.job:
        return None
    return Decision("Invalid", view.rejection.reason, view.rejection.message).with_condition("Accepted", "False")


def earlier_job_exists(view: RolloutView) -> Decision | None:
    """A Job of an earlier document, or of an earlier rollout of this name, has to go first."""
    jobs, owner = view.observed.jobs, view.observed.object
    earlier = [item for item in jobs if not names.is_owned(item, owner) or is_terminating(item)]
    if view.job and not view.job_is_current and view.job not in earlier:
        earlier.append(view.job)
    if not earlier:
        return None
    return Decision(
        "Pending",
        "Replacing",
        "Waiting for an earlier Job to be deleted",
        tried=(job(view),) if view.checkpoint and not view.rejection else (),
        delete=tuple(reference(item) for item in earlier if not is_terminating(item)),
        requeue_after=soon(earlier[0]["metadata"].get("deletionTimestamp"), view.now),
    )


def trainer_rejected_document(view: RolloutView) -> Decision | None:
    """The pod reported that no retry helps."""
    problem = view.results.get("error")
    if not problem or not view.job_failure:
        return None
    return Decision("Invalid", problem["reason"], problem["message"]).with_condition("Accepted", "False")


def source_has_no_checkpoint(view: RolloutView) -> Decision | None:
    """The experiment has no checkpoint yet."""
    if view.checkpoint:
        return None
    message = f'Waiting for experiment "{view.document.experiment}" to have a checkpoint'
    return Decision("Pending", "WaitingForCheckpoint", f"{message}{source_state(view.observed.source)}")


def job_failed(view: RolloutView) -> Decision | None:
    """The Job has failed for good."""
    if view.job_failure is None:
        return None
    reason, message = view.job_failure.get("reason") or "JobFailed", view.job_failure.get("message") or "The Job failed"
    message = f"{message.rstrip('.')}. Its log: kubectl logs job/{view.owner.name}"
    return Decision("Failed", reason, message).with_condition("Failed", "True")


def job_under_way(view: RolloutView) -> Decision | None:
    """The Job is under way."""
    if view.job is None:
        return None
    next_look = soon(view.job["metadata"].get("creationTimestamp"), view.now)
    if problem := first_problem(view.observed.pods, view.now):
        return Decision("Pending", problem.reason, problem.message, requeue_after=next_look)
    if view.observed.complaint and not view.observed.pods:
        message = f"The Job cannot make its pod: {view.observed.complaint}. It is tried again by itself"
        return Decision("Pending", "PodsRefused", message)
    is_ready = bool(view.job.get("status", {}).get("ready", 0))
    phase: Phase = "Running" if is_ready or view.results else "Pending"
    return Decision(
        phase, "JobRunning", f"The Job runs {view.checkpoint}", requeue_after=None if is_ready else next_look
    )


def no_job(view: RolloutView) -> Decision:
    """Nothing is in the way of the Job: it starts."""
    return Decision(
        "Pending",
        "JobStarted",
        f"The Job runs {view.checkpoint}",
        fields={"job": view.owner.name, "checkpoint": view.checkpoint},
        apply=support_of(view),
        create=(job(view),),
        requeue_after=SOON,
    )


CHECKS: tuple[Callable[[RolloutView], Decision | None], ...] = (
    episodes_finished,
    document_invalid,
    earlier_job_exists,
    trainer_rejected_document,
    source_has_no_checkpoint,
    job_failed,
    job_under_way,
    no_job,
)


def reconcile(observed: Observed, settings: Settings, now: datetime) -> Outcome:
    """Decide what to do about a rollout, given what is observed of it, its Job and its experiment."""
    if is_terminating(observed.object):
        return Outcome()
    view = RolloutView.of(observed, settings, now)
    decision = first_decision(CHECKS, view)
    status = status_of(view, decision, default_conditions(decision))
    return outcome_of(view, decision, status, events(view, decision))
