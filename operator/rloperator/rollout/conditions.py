"""The conditions of a rollout, and the event where it goes from one state to another; pure."""

from rloperator.decisions import Decision
from rloperator.kube import pod_problems
from rloperator.kube.types import Condition, Event, Manifest
from rloperator.rollout.view import RolloutView


def default_conditions(decision: Decision) -> tuple[Condition, ...]:
    """All conditions, as they are where the decision changes none: accepted, and not finished for its reason."""
    return (
        Condition("Accepted", "True", "Accepted", "The document can be run"),
        Condition("Succeeded", "False", decision.reason, decision.message),
        Condition("Failed", "False", "NotFailed"),
    )


def events(view: RolloutView, decision: Decision) -> tuple[Event, ...]:
    """One event wherever phase or message change."""
    before: Manifest = view.observed.own_status
    phase, message = before.get("phase"), before.get("message")
    if (phase, message) == (decision.phase, decision.message):
        return ()
    is_bad = decision.phase in ("Failed", "Invalid") or decision.reason in pod_problems.REASONS
    reason = decision.phase if decision.phase in ("Running", "Succeeded", "Failed") else decision.reason
    dedup_key = f"{phase} {message} {view.observed.generation}"
    return (Event(reason, decision.message, "Warning" if is_bad else "Normal", dedup_key),)
