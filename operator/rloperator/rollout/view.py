"""A rollout as the checks of `reconcile` see it: its document, its Job, the experiment that it runs; pure."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from rloperator.config import Settings
from rloperator.decisions import Rejection, View, parse, refused
from rloperator.kube import names
from rloperator.kube.merge import malformed
from rloperator.kube.pod_security import forbidden
from rloperator.kube.pods import account_refusal
from rloperator.kube.types import Manifest, Observed
from rltrainer.api.cluster import ServiceAccount
from rltrainer.api.experiment import Storage
from rltrainer.api.rollout import RolloutSpec


@dataclass(frozen=True)
class RolloutView(View[RolloutSpec]):
    """A rollout, its Job and its checkpoint found once for all checks."""

    job: Manifest | None
    """The rollout's Job, where there is one."""
    job_is_current: bool
    """Whether the Job runs the document as it stands."""
    checkpoint: str | None
    """The checkpoint to run: the one chosen when the Job was made, as long as that Job stands."""

    @classmethod
    def of(cls, observed: Observed, settings: Settings, now: datetime) -> "RolloutView":
        """Parse the document, validate it, and choose the checkpoint."""
        parsed = parse(RolloutSpec, observed.object["spec"])
        spec, rejection = (None, parsed) if isinstance(parsed, Rejection) else (parsed, None)
        storage = _storage(spec, observed, settings) if spec else None
        spec_hash = _spec_hash(spec) if spec else None
        job = next(iter(names.owned(observed.jobs, observed.object)), None)
        job_is_current = bool(job and spec and names.annotation(job, names.SPEC_HASH_ANNOTATION) == spec_hash)
        chosen = names.annotation(job, names.CHECKPOINT_ANNOTATION) if job and job_is_current else None
        newest = _checkpoint(spec, observed)
        if chosen and newest not in (None, chosen) and _is_pruned(observed, job):
            job_is_current, chosen = False, None
        return cls(
            observed=observed,
            settings=settings,
            now=now,
            spec=spec,
            storage=storage,
            rejection=_validated(spec, storage, observed, settings) if spec else rejection,
            spec_hash=spec_hash,
            job=job,
            job_is_current=job_is_current,
            checkpoint=chosen or newest,
        )

    @property
    def results(self) -> Manifest:
        """The report of the pod that runs the document as it stands; empty where it is an earlier document's.

        What was final before the document was changed stays. A trainer of an earlier release names no generation.
        """
        results = dict(self.observed.status.get("results") or {})
        is_final = self.observed.status.get("phase") == "Succeeded"
        return results if is_final or results.get("generation") in (None, *self._generations) else {}

    @property
    def is_changed(self) -> bool:
        """Return whether the document was changed after what was reported of it."""
        return self.results.get("generation") not in (None, *self._generations)

    @property
    def _generations(self) -> tuple[int, ...]:
        """The document's generation, and an earlier one that asked for the same, of which the Job was made."""
        made = names.annotation(self.job, names.GENERATION_ANNOTATION) if self.job and self.job_is_current else None
        return (self.observed.generation, *([int(made)] if made and made.isdigit() else []))

    @property
    def source_cluster(self) -> Manifest:
        """spec.cluster of the experiment: whose image holds where the rollout names none."""
        return dict(((self.observed.source or {}).get("spec") or {}).get("cluster") or {})

    @property
    def account(self) -> ServiceAccount:
        """Who its pod is: as the rollout says, or else its experiment."""
        return _account(self.document, self.observed)

    @property
    def job_failure(self) -> Manifest | None:
        """The condition by which the Job has failed for good."""
        return _failure(self.job)

    @property
    def fields(self) -> Manifest:
        """Fields of its status beside phase, message and conditions."""
        if self.job:
            return {"job": self.owner.name, "checkpoint": self.checkpoint}
        return {key: self.observed.status.get(key) for key in ("job", "checkpoint")}


def _storage(spec: RolloutSpec, observed: Observed, settings: Settings) -> Storage | None:
    source = ((observed.source or {}).get("spec") or {}).get("storage")
    return spec.storage or (Storage.model_validate(source) if source else settings.storage)


def _validated(spec: RolloutSpec, storage: Storage | None, observed: Observed, settings: Settings) -> Rejection | None:
    if spec.experiment and observed.source is None:
        return Rejection("ExperimentNotFound", f'There is no RLExperiment "{spec.experiment}" in this namespace')
    if storage is None:
        return Rejection("NoStorage", "Neither the rollout nor its experiment nor the operator names a storage")
    if problem := malformed(spec.pods.pod_template):
        return Rejection("InvalidPodTemplate", f"spec.pods.{problem}")
    if problem := forbidden(spec.pods.pod_template, names.ROLLOUT_CONTAINER, settings.pod_templates, has_account=True):
        return Rejection("PodTemplateForbidden", f"spec.pods.{problem}")
    if problem := account_refusal(_account(spec, observed), settings):
        return Rejection("ServiceAccountForbidden", f"spec.{problem}")
    return refused(observed)


def _account(spec: RolloutSpec, observed: Observed) -> ServiceAccount:
    source = (((observed.source or {}).get("spec") or {}).get("cluster") or {}).get("serviceAccount")
    return spec.service_account or ServiceAccount.model_validate(source or {})


def _spec_hash(spec: RolloutSpec) -> str:
    document = spec.model_dump(by_alias=True, exclude_defaults=True, mode="json")
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _is_pruned(observed: Observed, job: Manifest | None) -> bool:
    """Return whether the checkpoint chosen was gone by the time its pod began: the run has kept newer ones since."""
    error = (observed.status.get("results") or {}).get("error") or {}
    return error.get("reason") == "CheckpointNotFound" and _failure(job) is not None


def _failure(job: Manifest | None) -> Manifest | None:
    conditions = (job or {}).get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == "Failed" and item["status"] == "True"), None)


def _checkpoint(spec: RolloutSpec | None, observed: Observed) -> str | None:
    if spec and spec.checkpoint:
        return spec.checkpoint
    latest = observed.source_training.get("checkpoint") or {}
    best = observed.source_training.get("bestCheckpoint") or latest
    uri = (best if spec and spec.which == "best" else latest).get("uri")
    return str(uri) if uri else None
