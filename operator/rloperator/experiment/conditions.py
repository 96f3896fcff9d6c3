"""The conditions of an experiment; pure."""

from datetime import timedelta

from rloperator.decisions import Decision
from rloperator.experiment.view import ExperimentView
from rloperator.kube.types import Condition, conditions_of, parse_time
from rltrainer.api.status import Attempt

_HEARD_WITHIN = timedelta(seconds=60)
"""How old the last word of a trainer may be; it says something every 20 s."""

HEAD_READY = Condition("ClusterReady", "True", "HeadReady", "The head pod is ready")


def default_conditions(view: ExperimentView, decision: Decision) -> tuple[Condition, ...]:
    """All conditions, as they are where the decision changes none: nothing runs, for the decision's reason."""
    return (
        accepted(view),
        Condition("ClusterReady", "False", decision.reason, decision.message),
        Condition("Training", "False", decision.reason, decision.message),
        checkpoint_synced(view),
        Condition("Suspended", "False", "NotSuspended"),
        Condition("Succeeded", "False", "NotFinished"),
        Condition("Failed", "False", "NotFailed"),
    )


def accepted(view: ExperimentView) -> Condition:
    """Whether the document can be run, as far as the operator and the trainer know."""
    if view.rejection:
        return Condition("Accepted", "False", view.rejection.reason, view.rejection.message)
    if attempt := view.rejected_attempt:
        return Condition("Accepted", "False", attempt.reason or "Invalid", attempt.message or "")
    return Condition("Accepted", "True", "Accepted", "The document can be run")


def training(view: ExperimentView, attempt: Attempt) -> Condition:
    """Tell whether an attempt trains as far as it is heard of, and from which checkpoint it went on."""
    if silence := _silence(view, attempt):
        return silence
    restored = view.training.get("restoredFrom")
    if restored and view.training.get("attempt") == attempt.number:
        return Condition("Training", "True", "RestoredCheckpoint", f"Attempt {attempt.number} went on from {restored}")
    return Condition("Training", "True", "Training", f"Attempt {attempt.number} is training")


def _silence(view: ExperimentView, attempt: Attempt) -> Condition | None:
    """Tell that nothing was heard of an attempt for a minute; None where something was."""
    if view.training.get("attempt") == attempt.number:
        heard = view.training.get("heartbeatAt") or view.training.get("updatedAt")
        reason, message = "ReportLate", f"Attempt {attempt.number} was last heard of at {heard}"
    else:
        heard = ((view.job or {}).get("status", {}).get("rayJobInfo") or {}).get("startTime")
        reason, message = "NoReport", f"The trainer of attempt {attempt.number} began at {heard} and has not reported"
    if heard is None or view.now - parse_time(heard) <= _HEARD_WITHIN:
        return None
    return Condition("Training", "Unknown", reason, message)


def checkpoint_synced(view: ExperimentView) -> Condition:
    """Whether the checkpoints are in storage."""
    sync = view.training.get("sync") or {}
    old = conditions_of(view.observed.status).get("CheckpointSynced")
    if problem := sync.get("error"):
        return Condition("CheckpointSynced", "False", problem["reason"], problem["message"])
    if not view.training.get("checkpoint"):
        return Condition("CheckpointSynced", "Unknown", "NoCheckpoint", "No checkpoint is in storage yet")
    if sync.get("pending") and old:
        # On its way: neither good news nor bad, so it stands as it stood.
        return Condition("CheckpointSynced", old["status"], old["reason"], old["message"])
    return Condition("CheckpointSynced", "True", "Synced", "The checkpoints are in storage")
