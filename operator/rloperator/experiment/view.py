"""An experiment as the checks of `reconcile` see it: its document, its attempts, its children; pure."""

from dataclasses import dataclass
from datetime import datetime

from rloperator.config import Settings
from rloperator.decisions import Rejection, View, parse, refused
from rloperator.experiment.attempts import attempts_of, failures_of, is_over, spec_hash, status_fields
from rloperator.experiment.validation import ValidationInput, validate
from rloperator.kube import names
from rloperator.kube.pods import account_refusal
from rloperator.kube.types import Manifest, Observed, is_terminating, reference
from rltrainer.api.base import Metadata
from rltrainer.api.experiment import ExperimentSpec, Storage
from rltrainer.api.status import Attempt
from rltrainer.storage.paths import SEARCH, run_uri


@dataclass(frozen=True)
class ExperimentView(View[ExperimentSpec]):
    """An experiment, its attempts brought up to date once for all checks."""

    attempts: tuple[Attempt, ...]
    """Oldest first, with the ends that are seen now."""
    failures: int
    """Attempts that failed or were lost, those seen now included."""
    restore_uri: str | None
    """The checkpoint of the experiment that restoreFrom names, where it has one."""

    @classmethod
    def of(cls, observed: Observed, settings: Settings, now: datetime) -> "ExperimentView":
        """Parse the document, validate it, and bring the attempts up to date."""
        parsed = parse(ExperimentSpec, observed.object["spec"])
        spec, rejection = (None, parsed) if isinstance(parsed, Rejection) else (parsed, None)
        storage = _storage(spec, observed.status, settings) if spec else None
        attempts = attempts_of(observed, now, spec.cluster.stall_timeout_seconds if spec else None)
        return cls(
            observed=observed,
            settings=settings,
            now=now,
            spec=spec,
            storage=storage,
            rejection=_validated(spec, storage, observed, settings) if spec else rejection,
            spec_hash=spec_hash(spec) if spec else None,
            attempts=attempts,
            failures=failures_of(observed, attempts),
            restore_uri=_restore_uri(spec, observed) if spec else None,
        )

    @property
    def training(self) -> Manifest:
        """The report of the trainer."""
        return dict(self.observed.status.get("training") or {})

    @property
    def expected(self) -> str | None:
        """The file or folder that an attempt must find: the newest checkpoint reported, or the journal of a search."""
        if not self.is_search:
            uri: str | None = (self.training.get("checkpoint") or {}).get("uri")
            return uri
        return f"{self.folder}/{SEARCH}" if self.folder and self.training.get("iteration") else None

    @property
    def newest(self) -> Attempt | None:
        """The newest attempt, where there was one."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live(self) -> Attempt | None:
        """The attempt that is under way."""
        return self.newest if self.newest and self.newest.outcome == "Running" else None

    @property
    def rejected_attempt(self) -> Attempt | None:
        """The newest attempt, where the trainer or KubeRay rejected the document as it still stands."""
        newest = self.newest
        is_rejected = newest and newest.outcome == "Invalid" and newest.spec_hash in (None, self.spec_hash)
        return newest if is_rejected else None

    @property
    def newest_number(self) -> int:
        """The number of the newest attempt; 0 before the first."""
        return self.newest.number if self.newest else int(self.observed.status.get("attempt", 0))

    @property
    def job(self) -> Manifest | None:
        """The RayJob of the newest attempt."""
        owned = names.owned(self.observed.jobs, self.observed.object)
        return next((job for job in owned if self.newest and names.attempt_of(job) == self.newest.number), None)

    @property
    def cluster_name(self) -> str | None:
        """The name of the newest attempt's RayCluster."""
        name: str | None = (self.job or {}).get("status", {}).get("rayClusterName")
        return name

    @property
    def cluster(self) -> Manifest | None:
        """The RayCluster of the newest attempt."""
        clusters = self.observed.clusters
        return next((cluster for cluster in clusters if cluster["metadata"]["name"] == self.cluster_name), None)

    @property
    def suspend_requested(self) -> bool:
        """Whether spec.suspend is set; read even where the document is rejected otherwise."""
        return bool(self.observed.object["spec"].get("suspend"))

    @property
    def is_search(self) -> bool:
        """Whether spec.tune is set; read even where the document is rejected otherwise."""
        return self.observed.object["spec"].get("tune") is not None

    @property
    def best(self) -> Manifest | None:
        """The best trial of a search: the one reported, or the last one known."""
        return (self.training.get("best") or self.observed.status.get("best")) if self.is_search else None

    @property
    def search_progress(self) -> str:
        """How the trials of a search stand; empty where there is none, or nothing is known of it yet."""
        counts = self.training.get("trials")
        if not self.is_search or not counts:
            return ""
        failed = counts.get("failed", 0)
        done = counts.get("terminated", 0) + failed
        total = done + counts.get("running", 0) + counts.get("pending", 0)
        failures = f", {failed} of them failed" if failed else ""
        best = f", the best is {self.best['trial']} with {self.best['reward']:.5g}" if self.best else ""
        return f"The search has {done} of {total} trials done{failures}{best}"

    @property
    def leftovers(self) -> tuple[Manifest, ...]:
        """The children left of attempts that have ended; with none of them, no other trainer can be writing."""
        return (*self.observed.jobs, *self.observed.clusters, *self.observed.pods)

    @property
    def unnoticed(self) -> tuple[Manifest, ...]:
        """The RayJob of an attempt whose end KubeRay does not know of: it would keep its cluster for ever."""
        job = self.job
        if job is None or self.live or is_over(job) or is_terminating(job):
            return ()
        return (reference(job),)

    @property
    def jobs_to_delete(self) -> tuple[Manifest, ...]:
        """The RayJobs among the leftovers that nobody has deleted yet."""
        return tuple(reference(job) for job in self.observed.jobs if not is_terminating(job))

    @property
    def folder(self) -> str | None:
        """The run's folder in storage."""
        metadata = Metadata.model_validate(self.observed.object["metadata"])
        return run_uri(self.storage.uri, metadata) if self.storage else self.observed.status.get("storageUri")

    @property
    def fields(self) -> Manifest:
        """Fields of its status beside phase, message and conditions."""
        return {
            **status_fields(self.attempts, self.newest_number),
            "failures": self.failures,
            "cluster": self.cluster_name,
            "storageUri": self.folder,
            "storage": _recorded(self.spec, self.storage),
            "best": self.best,
        }


def _recorded(spec: ExperimentSpec | None, storage: Storage | None) -> Manifest | None:
    """The operator's storage as the status keeps it; None where the document names its own."""
    if storage is None or spec is None or spec.storage is not None:
        return None
    return storage.model_dump(by_alias=True, exclude_none=True, mode="json")


def _storage(spec: ExperimentSpec, status: Manifest, settings: Settings) -> Storage | None:
    """The document's storage or the operator's; a run stays where it began when the operator's default moves."""
    if spec.storage is not None:
        return spec.storage
    default, used = settings.storage, status.get("storage")
    if used and (default is None or default.uri != used["uri"]):
        return Storage.model_validate(used)
    if default and (folder := status.get("storageUri")):  # of an operator that recorded no more than this
        return default.model_copy(update={"uri": names.storage_of(folder)})
    return default


def _validated(
    spec: ExperimentSpec, storage: Storage | None, observed: Observed, settings: Settings
) -> Rejection | None:
    name, training = observed.object["metadata"]["name"], observed.status.get("training") or {}
    has_checkpoint = bool(training.get("checkpoint"))
    facts = ValidationInput(
        name, spec, storage, observed.source,
        pod_templates=settings.pod_templates,
        account_refusal=account_refusal(spec.cluster.service_account, settings),
        has_checkpoint=has_checkpoint,
    )  # fmt: skip
    return validate(facts) or refused(observed)


def _restore_uri(spec: ExperimentSpec, observed: Observed) -> str | None:
    restore = spec.restore_from
    if restore is None or not restore.experiment:
        return None
    checkpoint = observed.source_training.get("bestCheckpoint" if restore.which == "best" else "checkpoint") or {}
    uri: str | None = checkpoint.get("uri")
    return uri
