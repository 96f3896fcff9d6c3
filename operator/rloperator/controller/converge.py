"""One object brought to where it should be: observe, reconcile, carry out."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rloperator.config import Settings
from rloperator.experiment import reconcile
from rloperator.kube import names
from rloperator.kube.client import ApiError, Cluster, ConflictError, NameTakenError
from rloperator.kube.names import Manifest
from rloperator.kube.types import Event, Observed, Outcome
from rloperator.rollout import reconcile as rollouts
from rltrainer.spec import API_VERSION

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
    """Observes, decides and acts, for one object at a time."""

    cluster: Cluster
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def converge(self, key: Key) -> float | None:
        """Bring one object to where it should be; seconds until it wants another look, or None.

        Raises ConflictError where somebody wrote in between.
        """
        observed = self.observe(key)
        if observed is None:
            return None
        decide = reconcile.reconcile if key.kind == "RLExperiment" else rollouts.reconcile
        outcome = decide(observed, self.settings, self.clock())
        try:
            self.carry_out(observed.object, outcome)
        except ConflictError:
            raise
        except (NameTakenError, ApiError) as error:
            if not isinstance(error, ApiError) or error.status < 500:
                self._explain(observed, str(error))
            raise
        return outcome.requeue_after

    def _explain(self, observed: Observed, why: str) -> None:
        """Say on the object what the API server refuses: whoever wrote it cannot see the operator's log."""
        self.cluster.tell(observed.object, Event("Refused", why, "Warning", anchor=why))
        ours = {key: value for key, value in observed.status.items() if key not in ("training", "results")}
        said = ours | {"phase": ours.get("phase", "Pending"), "message": f"the API server refuses: {why}"}
        if said != ours:
            self.cluster.apply_status(observed.object, said)

    def observe(self, key: Key) -> Observed | None:
        """The object and its children, as they are now; None where it is gone."""
        read = self.cluster.get(API_VERSION, key.kind, key.namespace, key.name)
        if read is None:
            return None
        selector = names.selector(key.kind, key.name)
        jobs = ("ray.io/v1", "RayJob") if key.kind == "RLExperiment" else ("batch/v1", "Job")
        is_experiment = key.kind == "RLExperiment"
        # Children are listed in the order in which they make each other: what was made in between is seen.
        return Observed(
            object=read,
            jobs=tuple(self.cluster.list(*jobs, key.namespace, selector)),
            clusters=tuple(self.cluster.list("ray.io/v1", "RayCluster", key.namespace, selector))
            if is_experiment
            else (),
            pods=tuple(self.cluster.list("v1", "Pod", key.namespace, selector)),
            source=self._source(read),
        )

    def _source(self, read: Manifest) -> Manifest | None:
        spec = read["spec"]
        named = (
            (spec.get("restoreFrom") or {}).get("experiment")
            if read["kind"] == "RLExperiment"
            else spec.get("experiment")
        )
        return self.cluster.get(API_VERSION, "RLExperiment", read["metadata"]["namespace"], named) if named else None

    def carry_out(self, read: Manifest, outcome: Outcome) -> None:
        """Do what was decided, in the order that makes every interruption harmless."""
        for manifest in outcome.apply:
            self.cluster.apply(manifest, always=bool(outcome.create))
        for manifest in outcome.create:
            self.cluster.create(manifest)
        for patch in outcome.patch:
            self.cluster.patch(patch.target, patch.operations)
        for event in outcome.events:
            log.info("%s %s: %s: %s", read["kind"], _place(read), event.reason, event.message)
            self.cluster.tell(read, event)
        if outcome.status is not None:
            self.cluster.apply_status(read, outcome.status)
        for target in outcome.delete:
            self.cluster.delete(target)

    def unfinished(self) -> Iterator[Key]:
        """Every object that may still want something done."""
        for kind in ("RLExperiment", "RLRollout"):
            for item in self.cluster.list(API_VERSION, kind, self.settings.namespace):
                if (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                    yield Key(kind, item["metadata"]["namespace"], item["metadata"]["name"])


def _place(read: Manifest) -> str:
    return f"{read['metadata']['namespace']}/{read['metadata']['name']}"
