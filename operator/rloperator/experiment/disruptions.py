"""Attempts that lost a pod to what is around them, which is no failure of the run; pure."""

from datetime import datetime, timedelta

from rloperator.kube import names
from rloperator.kube.disruption import disruption, own_fault
from rloperator.kube.pod_problems import is_head
from rloperator.kube.types import Observed
from rltrainer.api.status import Attempt

MAX_EXCUSED = 9
"""Losses in a row, without a new checkpoint in between, that do not count. Each one more counts as a failure: a run
that never lives to its next checkpoint must come to an end."""
_ENDS_WITHIN = timedelta(seconds=120)
"""How long after a pod was last seen to be taken away an attempt ends by it."""
_SEEN_AGAIN_AFTER = timedelta(seconds=30)
"""How often it is written down that a pod is still being taken away, at most."""
_OTHER_ENDS = ("Stalled", "DeadlineExceeded", "PreRunningDeadlineExceeded")
"""Ends that no lost pod explains."""


def noticed(attempt: Attempt, observed: Observed, now: datetime) -> Attempt:
    """The attempt under way, with the pod that is being taken from it: by its end the pod may be gone."""
    pods = tuple(pod for pod in (*observed.pods, *observed.lost) if names.attempt_of(pod) == attempt.number)
    known = attempt.disruption
    if own_fault(pods):
        return attempt.model_copy(update={"disruption": None})
    taken = next(filter(None, (disruption(pod, now) for pod in sorted(pods, key=is_head, reverse=True))), None)
    if taken is not None:
        is_same = known is not None and (known.pod, known.reason) == (taken.pod, taken.reason)
        is_recent = known is not None and now - known.seen_at < _SEEN_AGAIN_AFTER
        return attempt if is_same and is_recent else attempt.model_copy(update={"disruption": taken})
    if known is None:
        return attempt
    has_stayed = any(pod["metadata"]["name"] == known.pod for pod in pods)
    is_past = now - known.seen_at > _ENDS_WITHIN
    return attempt.model_copy(update={"disruption": None}) if has_stayed or is_past else attempt


def excused(attempt: Attempt, earlier: tuple[Attempt, ...]) -> Attempt:
    """An attempt that has just failed: lost, and not to be counted, where it ended by a pod that was taken from it."""
    taken = attempt.disruption
    if taken is None:
        return attempt
    end = attempt.ended_at or taken.seen_at
    if attempt.reason in _OTHER_ENDS or end - taken.seen_at > _ENDS_WITHIN:
        return attempt.model_copy(update={"disruption": None})
    losses = losses_in_a_row(earlier, attempt.checkpoint_iteration) + 1
    if losses > MAX_EXCUSED:
        verdict = f"{losses} attempts were lost without a new checkpoint in between, so this one counts as a failure"
        update = {"disruption": None, "reason": taken.reason, "message": _with_verdict(taken.message, verdict)}
        return attempt.model_copy(update=update)
    message = _with_verdict(taken.message, "That is no failure of the run, and does not count as one")
    return attempt.model_copy(update={"outcome": "Lost", "reason": taken.reason, "message": message})


def is_excused(attempt: Attempt) -> bool:
    """Return whether an attempt that ended does not count as a failure."""
    return attempt.outcome == "Lost" and attempt.disruption is not None


def losses_in_a_row(attempts: tuple[Attempt, ...], iteration: int | None) -> int:
    """Count the attempts that were excused since the run came to the checkpoint of `iteration`."""
    return sum(is_excused(each) and (each.checkpoint_iteration or 0) >= (iteration or 0) for each in attempts)


def _with_verdict(what: str, verdict: str) -> str:
    return f"{what[:900]}. {verdict}"
