"""An RLRollout: from what is observed to its Job; pure and level-based, as for an experiment."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from rloperator.config import Settings
from rloperator.experiment import validation as policies
from rloperator.experiment.validation import Refusal
from rloperator.kube import names
from rloperator.kube.merge import merge
from rloperator.kube.names import Manifest
from rloperator.kube.pod_problems import TROUBLES, trouble
from rloperator.kube.pods import (
    DOCUMENT_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    Owner,
    container,
    document_volume,
    environment,
    pod_spec,
    support,
)
from rloperator.kube.types import Condition, Event, Observed, Outcome, conditions_of, is_leaving, of, reference
from rltrainer.spec import RolloutSpec, Storage

Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Invalid"]

SOON = 2.0
_NO_RETRY_HELPS = 2
"""The trainer's exit code for a document or a checkpoint that cannot be run."""


@dataclass(frozen=True)
class Decision:
    """How a rollout stands, and what is to be done about it."""

    phase: Phase
    reason: str
    message: str
    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Case:
    """What is observed of a rollout, with its document read once."""

    observed: Observed
    settings: Settings
    now: datetime
    spec: RolloutSpec | None = field(init=False)
    refusal: Refusal | None = field(init=False)

    def __post_init__(self) -> None:
        """Read the document and hold it against what it names."""
        read = policies.parse_rollout(self.observed.object["spec"])
        object.__setattr__(self, "spec", None if isinstance(read, Refusal) else read)
        object.__setattr__(self, "refusal", read if isinstance(read, Refusal) else self._unmet(read))

    def _unmet(self, spec: RolloutSpec) -> Refusal | None:
        if spec.experiment and self.observed.source is None:
            return Refusal("ExperimentNotFound", f'there is no RLExperiment "{spec.experiment}" in this namespace')
        if self.storage_of(spec) is None:
            return Refusal("NoStorage", "neither the rollout nor its experiment nor the operator names a storage")
        return None

    def storage_of(self, spec: RolloutSpec) -> Storage | None:
        """The rollout's own storage, its experiment's, or the operator's."""
        theirs = ((self.observed.source or {}).get("spec") or {}).get("storage")
        return spec.storage or (Storage.model_validate(theirs) if theirs else self.settings.storage)

    @property
    def results(self) -> Manifest:
        """What the pod reports."""
        return dict(self.observed.status.get("results") or {})

    @property
    def job(self) -> Manifest | None:
        """The rollout's Job, where there is one."""
        return next(iter(of(self.observed.jobs, self.observed.object)), None)

    @property
    def hash(self) -> str:
        """Of the document: a Job cannot change, so another document is another Job."""
        document = self.spec.model_dump(by_alias=True, exclude_defaults=True, mode="json") if self.spec else None
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_current(self) -> bool:
        """Whether the Job runs the document as it stands."""
        return bool(self.job and self.job["metadata"].get("annotations", {}).get(names.SPEC_HASH) == self.hash)

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint to run: the one chosen when the Job was made, as long as that Job stands."""
        chosen = self.job and self.job["metadata"].get("annotations", {}).get(names.CHECKPOINT)
        if self.is_current and chosen:
            return str(chosen)
        if self.spec and self.spec.checkpoint:
            return self.spec.checkpoint
        training = ((self.observed.source or {}).get("status") or {}).get("training") or {}
        latest = training.get("checkpoint") or {}
        best = training.get("bestCheckpoint") or latest
        uri = (best if self.spec and self.spec.which == "best" else latest).get("uri")
        return str(uri) if uri else None


def finished(case: Case) -> Decision | None:
    """All episodes are done and reported: final, whatever becomes of the Job."""
    if not case.results.get("done"):
        return None
    return Decision(
        "Succeeded", "EpisodesFinished", f"{case.results['episodes']} episodes, return {case.results.get('reward')}"
    )


def refused(case: Case) -> Decision | None:
    """A document that cannot be run. A Job that runs already is left alone."""
    if case.refusal and not case.job:
        return Decision("Invalid", case.refusal.reason, case.refusal.message)
    return None


def replacing(case: Case) -> Decision | None:
    """A Job of an earlier document, or of an earlier rollout of this name, has to go first."""
    stale = [job for job in case.observed.jobs if not names.is_of(job, case.observed.object) or is_leaving(job)]
    if case.job and not case.is_current and case.job not in stale:
        stale.append(case.job)
    if not stale:
        return None
    delete = tuple(reference(job) for job in stale if not is_leaving(job))
    return Decision("Pending", "Replacing", "waits for an earlier Job to go", delete=delete, requeue_after=SOON)


def rejected(case: Case) -> Decision | None:
    """The pod said that no retry helps."""
    problem = case.results.get("error")
    return Decision("Invalid", problem["reason"], problem["message"]) if problem and _given_up(case) else None


def waiting(case: Case) -> Decision | None:
    """The experiment has no checkpoint yet."""
    if case.checkpoint or case.spec is None:
        return None
    return Decision(
        "Pending", "WaitingForCheckpoint", f'waits for experiment "{case.spec.experiment}" to have a checkpoint'
    )


def failed(case: Case) -> Decision | None:
    """The Job has given up."""
    given_up = _given_up(case)
    if given_up is None:
        return None
    log = f"its log: kubectl logs job/{case.observed.object['metadata']['name']}"
    return Decision("Failed", given_up.get("reason") or "JobFailed", f"{given_up.get('message', '')}; {log}")


def _given_up(case: Case) -> Manifest | None:
    conditions = (case.job or {}).get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == "Failed" and item["status"] == "True"), None)


def starting(case: Case) -> Decision | None:
    """Nothing is in the way of the Job."""
    if case.job:
        return None
    message = f"runs {case.checkpoint}"
    return Decision(
        "Pending", "JobStarted", message, apply=_support(case), create=(job(case),), requeue_after=SOON
    )  # fmt: skip


def running(case: Case) -> Decision:
    """The Job is under way."""
    active = (case.job or {}).get("status", {}).get("ready", 0)
    if found := trouble(case.observed.pods, case.now):
        return Decision("Pending", found.reason, found.message, requeue_after=SOON)
    phase: Phase = "Running" if active or case.results else "Pending"
    return Decision(phase, "JobRunning", f"runs {case.checkpoint}", requeue_after=None if active else SOON)


CHECKS: tuple[Callable[[Case], Decision | None], ...] = (
    finished,
    refused,
    replacing,
    rejected,
    waiting,
    failed,
    starting,
)


def reconcile(observed: Observed, settings: Settings, now: datetime) -> Outcome:
    """What to do about a rollout, given what is observed of it, its Job and its experiment."""
    if "deletionTimestamp" in observed.object["metadata"]:
        return Outcome()
    case = Case(observed, settings, now)
    decision = next((said for check in CHECKS if (said := check(case))), None) or running(case)
    status = _status(case, decision)
    before = {key: value for key, value in observed.status.items() if key != "results"}
    return Outcome(
        apply=decision.apply,
        create=decision.create,
        events=_events(before, status, decision),
        status=status if status != before else None,
        delete=decision.delete,
        requeue_after=decision.requeue_after,
    )


def _status(case: Case, decision: Decision) -> Manifest:
    """The whole status but what the pod reports."""
    old, before = conditions_of(case.observed.status), case.observed.status
    has_job = case.job or decision.create
    status = {
        "phase": decision.phase,
        "message": decision.message,
        "observedGeneration": case.observed.generation,
        "job": case.observed.object["metadata"]["name"] if has_job else before.get("job"),
        "checkpoint": case.checkpoint if has_job else before.get("checkpoint"),
        "conditions": list(old.updated(_conditions(decision), case.observed.generation, case.now)),
    }
    return {key: value for key, value in status.items() if value is not None}


def _conditions(decision: Decision) -> tuple[Condition, ...]:
    said = (decision.reason, decision.message)
    return (
        Condition("Accepted", "False", *said)
        if decision.phase == "Invalid"
        else Condition("Accepted", "True", "Accepted", "the document can be run"),
        Condition("Succeeded", "True" if decision.phase == "Succeeded" else "False", *said),
        Condition("Failed", "True", *said) if decision.phase == "Failed" else Condition("Failed", "False", "NotFailed"),
    )


def _events(before: Manifest, after: Manifest, decision: Decision) -> tuple[Event, ...]:
    """One line wherever phase or words change."""
    was, now = before.get("phase"), decision.phase
    if (was, before.get("message")) == (now, decision.message):
        return ()
    is_bad = now in ("Failed", "Invalid") or decision.reason in TROUBLES
    told = now if now in ("Running", "Succeeded", "Failed") else decision.reason
    anchor = f"{was} {before.get('message')} {after['observedGeneration']}"
    return (Event(told, decision.message, "Warning" if is_bad else "Normal", anchor),)


def _support(case: Case) -> tuple[Manifest, ...]:
    owner = Owner(case.observed.object)
    return tuple(support(owner, case.storage_of(_spec(case)), []))


def _spec(case: Case) -> RolloutSpec:
    assert case.spec is not None  # noqa: S101 - for the type checker: a refused document is never rendered
    return case.spec


def job(case: Case) -> Manifest:
    """The Job that runs the rollout."""
    spec, owner = _spec(case), Owner(case.observed.object)
    chosen = {names.SPEC_HASH: case.hash, names.CHECKPOINT: case.checkpoint}
    metadata = owner.metadata(owner.name) | {"annotations": chosen}
    # A pod that its node loses is not the rollout's failure, and exit code 2 is: neither is worth a retry's count.
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": names.ROLLOUT_CONTAINER, "operator": "In", "values": [_NO_RETRY_HELPS]},
        },
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": spec.backoff_limit,
            "podFailurePolicy": {"rules": rules},
            "podReplacementPolicy": "Failed",
            "template": _template(case, spec, owner),
        },
    }


def _template(case: Case, spec: RolloutSpec, owner: Owner) -> Manifest:
    theirs = ((case.observed.source or {}).get("spec") or {}).get("cluster") or {}
    main = container(
        names.ROLLOUT_CONTAINER,
        spec.image or theirs.get("image") or case.settings.trainer_image,
        theirs.get("imagePullPolicy", "IfNotPresent"),
        spec.pods,
        command=["rltrainer", "rollout", "-f", f"{names.DOCUMENT_FOLDER}/{names.DOCUMENT_KEY[owner.kind]}"],
        env=environment(owner, case.storage_of(spec), RLTRAINER_CHECKPOINT_URI=case.checkpoint or ""),
        volumeMounts=[TMP_MOUNT, DOCUMENT_MOUNT],
    )
    fields: Manifest = {"serviceAccountName": owner.support}
    if theirs.get("imagePullSecrets"):
        fields["imagePullSecrets"] = [{"name": name} for name in theirs["imagePullSecrets"]]
    volumes = [TMP_VOLUME, document_volume(owner)]
    pod = {"metadata": {"labels": names.labels(owner.object)}, "spec": pod_spec(spec.pods, main, volumes, **fields)}
    return dict(merge(pod, spec.pods.pod_template))
