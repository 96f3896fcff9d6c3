"""An experiment as the checks of `reconcile` see it: its document, its attempts, its children; pure."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from rloperator.config import Settings
from rloperator.experiment import validation as policies
from rloperator.experiment.attempts import attempts_of, failures_of
from rloperator.experiment.rayjob import Plan, spec_hash
from rloperator.experiment.validation import Refusal
from rloperator.kube import names
from rloperator.kube.names import Manifest
from rloperator.kube.pods import Owner
from rloperator.kube.types import Observed, Patch, is_leaving, of, reference
from rltrainer.spec import ExperimentSpec, Storage
from rltrainer.statuses import Attempt, Phase


@dataclass(frozen=True)
class Decision:
    """How an experiment stands, in one word, in words, and what is to be done about it."""

    phase: Phase
    reason: str
    message: str
    attempts: tuple[Attempt, ...] | None = None
    """The attempts where the decision changes them."""
    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    patch: tuple[Patch, ...] = ()
    delete: tuple[Manifest, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Case:
    """What is observed of an experiment, read and brought up to date once for all checks."""

    observed: Observed
    settings: Settings
    now: datetime
    spec: ExperimentSpec | None = field(init=False)
    """None where the document cannot be read at all."""
    storage: Storage | None = field(init=False, default=None)
    refusal: Refusal | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Read the document and hold it against the policies."""
        read = policies.parse(self.observed.object["spec"])
        spec, refused = (None, read) if isinstance(read, Refusal) else (read, None)
        object.__setattr__(self, "spec", spec)
        if spec is not None:
            storage = policies.storage_of_run(spec, self.observed.status, self.settings)
            has_checkpoint = bool(self.training.get("checkpoint"))
            subject = policies.Subject(self.owner.name, spec, storage, self.observed.source, has_checkpoint)
            object.__setattr__(self, "storage", storage)
            refused = policies.refusal(subject)
        object.__setattr__(self, "refusal", refused)

    @property
    def owner(self) -> Owner:
        """The experiment, for rendering."""
        return Owner(self.observed.object)

    @property
    def training(self) -> Manifest:
        """What the trainer reports."""
        return dict(self.observed.status.get("training") or {})

    @cached_property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts, oldest first, with the ends that are seen now."""
        return attempts_of(self.observed, self.now)

    @property
    def failures(self) -> int:
        """Attempts that failed or were lost, this look included."""
        return failures_of(self.observed, self.attempts)

    @property
    def newest(self) -> Attempt | None:
        """The newest attempt, where there was one."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live(self) -> Attempt | None:
        """The attempt that is under way."""
        return self.newest if self.newest and self.newest.outcome == "Running" else None

    @property
    def next_number(self) -> int:
        """The number of the next attempt."""
        return (self.newest.number if self.newest else int(self.observed.status.get("attempt", 0))) + 1

    @property
    def job(self) -> Manifest | None:
        """The RayJob of the newest attempt."""
        ours = of(self.observed.jobs, self.observed.object)
        return next((job for job in ours if self.newest and names.attempt_of(job) == self.newest.number), None)

    @property
    def cluster(self) -> Manifest | None:
        """The RayCluster of the newest attempt."""
        name = (self.job or {}).get("status", {}).get("rayClusterName")
        return next((found for found in self.observed.clusters if found["metadata"]["name"] == name), None)

    @property
    def hash(self) -> str | None:
        """Of what an attempt cannot change while it runs."""
        return spec_hash(self.spec) if self.spec else None

    @property
    def wants_suspension(self) -> bool:
        """Read even where the document is refused otherwise."""
        return bool(self.observed.object["spec"].get("suspend"))

    @property
    def is_search(self) -> bool:
        """Whether trials are run; read even where the document is refused otherwise."""
        return self.observed.object["spec"].get("tune") is not None

    @property
    def best(self) -> Manifest | None:
        """The best trial of a search: the one reported, or the last one known."""
        return (self.training.get("best") or self.observed.status.get("best")) if self.is_search else None

    @property
    def remains(self) -> tuple[Manifest, ...]:
        """What is left of attempts that have ended; with none of it, no other trainer can be writing."""
        return (*self.observed.jobs, *self.observed.clusters, *self.observed.pods)

    @property
    def to_delete(self) -> tuple[Manifest, ...]:
        """The RayJobs among the remains that nobody has deleted yet."""
        return tuple(reference(job) for job in self.observed.jobs if not is_leaving(job))

    @property
    def plan(self) -> Plan:
        """What to render from. Only where the document is not refused."""
        assert self.spec is not None  # noqa: S101 - for the type checker: a refused document is never rendered
        return Plan(self.owner, self.spec, self.storage, self.settings, self.restore_uri)

    @property
    def restore_uri(self) -> str | None:
        """The checkpoint of the experiment that restoreFrom names, where it has one."""
        asked = self.spec.restore_from if self.spec else None
        training = ((self.observed.source or {}).get("status") or {}).get("training") or {}
        found = training.get("bestCheckpoint" if asked and asked.which == "best" else "checkpoint") or {}
        return found.get("uri") if asked and asked.experiment else None
