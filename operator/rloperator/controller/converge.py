"""One object brought to where it should be: observe, reconcile, apply."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from rloperator.config import Settings
from rloperator.controller.witness import Witness
from rloperator.experiment.reconcile import reconcile as reconcile_experiment
from rloperator.kube import names
from rloperator.kube.client import ApiError, ConflictError, KubeClient, NameTakenError
from rloperator.kube.types import Event, Manifest, Observed, Outcome
from rloperator.rollout.reconcile import reconcile as reconcile_rollout
from rltrainer.api.base import API_VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """One object of ours."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Converger:
    """The loop's body: observe, decide and act, for one object at a time."""

    client: KubeClient
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    witness: Witness = field(default_factory=Witness)

    def reconcile_key(self, key: Key) -> float | None:
        """Bring one object to where it should be; seconds until it wants another look, or None.

        Raises ConflictError where somebody wrote in between.
        """
        observed = self.observe(key)
        if observed is None:
            return None
        outcome = self._decide(key, observed)
        try:
            self.apply(key, observed.object, outcome)
        except ConflictError:
            raise
        except (NameTakenError, ApiError) as error:
            if not isinstance(error, ApiError) or error.is_refusal:
                self._report(observed, "Refused", f"The API server refuses: {error}")
            raise
        return outcome.requeue_after

    def _decide(self, key: Key, observed: Observed) -> Outcome:
        """Decide what to do; where the API server would not take it, decide again with its refusal in view."""
        outcome = self._reconciled(key, observed)
        refusal = next(filter(None, map(self.client.refusal, outcome.tried)), None)
        return self._reconciled(key, replace(observed, refusal=refusal)) if refusal else outcome

    def _reconciled(self, key: Key, observed: Observed) -> Outcome:
        """The decision about what was observed, which asks nobody.

        Raises whatever it raises, once the object says so: whoever wrote it cannot see the operator's log.
        """
        reconcile = reconcile_experiment if key.kind == "RLExperiment" else reconcile_rollout
        try:
            return reconcile(observed, self.settings, self.clock())
        except Exception as error:
            message = f"The operator fails on this document, which is a fault of the operator: {error!r}"
            self._report(observed, "OperatorFailed", message)
            raise

    def observe(self, key: Key) -> Observed | None:
        """The object and its children, as they are now; None where it is gone."""
        manifest = self.client.get(API_VERSION, key.kind, key.namespace, key.name)
        if manifest is None:
            return None
        is_experiment = key.kind == "RLExperiment"

        def children(api_version: str, kind: str) -> tuple[Manifest, ...]:
            labeled = self.client.list(api_version, kind, key.namespace, names.selector(key.kind, key.name))
            return tuple(child for child in labeled if names.descends(child, key.kind, key.name))

        # Children are listed in the order in which they make each other: what was made in between is seen.
        jobs = children(names.RAY_API, "RayJob") if is_experiment else children(names.BATCH_API, "Job")
        clusters = children(names.RAY_API, "RayCluster") if is_experiment else ()
        pods = children("v1", "Pod")
        looks_for_policies = is_experiment and not self.settings.network_policies
        policies = children(names.NETWORK_API, "NetworkPolicy") if looks_for_policies else ()
        gone = self.witness.gone((key.namespace, key.name), pods) if is_experiment else ()
        return Observed(
            object=manifest,
            jobs=jobs,
            clusters=clusters,
            pods=pods,
            policies=policies,
            lost=tuple(pod for pod in gone if names.descends(pod, key.kind, key.name)),
            complaint=self._complaint(jobs[0]) if jobs and not pods and not is_experiment else "",
            source=self._source(manifest),
        )

    def _complaint(self, job: Manifest) -> str:
        """Read why a Job could not make its pod, from its newest event; a Job says so nowhere else."""
        metadata = job["metadata"]
        about = f"involvedObject.uid={metadata['uid']},reason=FailedCreate"
        events = sorted(
            self.client.list("v1", "Event", metadata["namespace"], fields=about),
            key=lambda event: str(event.get("lastTimestamp") or event["metadata"].get("creationTimestamp")),
        )
        return str(events[-1].get("message", "")).rstrip(".") if events else ""

    def apply(self, key: Key, manifest: Manifest, outcome: Outcome) -> None:
        """Do what was decided, in the order that makes every interruption harmless."""
        for child in outcome.apply:
            self.client.apply(child, always=bool(outcome.create))
        for child in outcome.create:
            self.client.create(child)
        for patch in outcome.patch:
            self.client.patch(patch.target, patch.operations)
        for event in outcome.events:
            log.info("%s: %s: %s", key, event.reason, event.message)
            self.client.record_event(manifest, event)
        if outcome.status is not None:
            self.client.apply_status(manifest, outcome.status)
        for target in outcome.delete:
            self.client.delete(target)

    def unfinished(self) -> Iterator[Key]:
        """Every object that may still want something done."""
        for kind in ("RLExperiment", "RLRollout"):
            for item in self.client.list(API_VERSION, kind, self.settings.namespace):
                if (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                    yield Key(kind, item["metadata"]["namespace"], item["metadata"]["name"])

    def _report(self, observed: Observed, reason: str, message: str) -> None:
        """Report on the object what keeps the operator from acting on it."""
        self.client.record_event(observed.object, Event(reason, message, "Warning", dedup_key=message))
        before = observed.own_status
        status = before | {"phase": before.get("phase", "Pending"), "message": message}
        if status != before:
            self.client.apply_status(observed.object, status)

    def _source(self, manifest: Manifest) -> Manifest | None:
        """The experiment that an object names, where it names one and there is one."""
        spec = manifest["spec"]
        place = (spec.get("restoreFrom") or {}) if manifest["kind"] == "RLExperiment" else spec
        name, namespace = place.get("experiment"), manifest["metadata"]["namespace"]
        return self.client.get(API_VERSION, "RLExperiment", namespace, name) if name else None
