"""A run's report to Kubernetes: its own resource's status, by server-side apply, from a thread of its own."""

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Protocol

from rltrainer.api.base import API_VERSION, GROUP, PLURAL, VERSION
from rltrainer.api.status import RolloutResults, TrainingStatus

log = logging.getLogger(__name__)

FIELD_MANAGER = "rltrainer"
REPORT_INTERVAL_S = 5.0
"""Seconds between reports, at least."""
FINAL_PATIENCE = 60.0
"""Seconds that the last report is tried for."""
RETRY_INTERVAL_S = 2.0
"""Seconds between tries of the last report."""
HEARTBEAT_S = 20.0
"""Seconds after which a trainer that has nothing new to report says that it is there."""

_REFUSALS = (400, 401, 403, 404, 410, 422)
"""Answers that another try does not change: the resource, or the right to report on it, is gone."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """The resource that reports go to."""

    kind: str
    plural: str
    field: str
    """The part of status that is the trainer's."""
    namespace: str
    name: str
    uid: str | None

    def body(self, report: Body) -> Body:
        """Return what is applied. By the uid in it, the API server refuses it for another resource of the same name."""
        metadata = {"name": self.name, "namespace": self.namespace, **({"uid": self.uid} if self.uid else {})}
        return {"apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata, "status": {self.field: report}}

    @classmethod
    def from_environment(cls, kind: str, plural: str, field: str) -> "Target | None":
        """Return the resource that the operator names in the environment, or None outside a cluster."""
        name, namespace = os.environ.get("RLTRAINER_NAME"), os.environ.get("RLTRAINER_NAMESPACE")
        if not name or not namespace:
            return None
        return cls(kind, plural, field, namespace, name, os.environ.get("RLTRAINER_UID") or None)


EXPERIMENT = ("RLExperiment", PLURAL["RLExperiment"], "training")
ROLLOUT = ("RLRollout", PLURAL["RLRollout"], "results")
"""Kind, resource and field of status, as Target.from_environment takes them."""


class Client(Protocol):
    """An API that reads and applies a status. Methods raise an exception that says why they cannot."""

    def apply(self, target: Target, body: Body) -> None:
        """Apply `body` to `target`'s status."""

    def read(self, target: Target) -> Body:
        """Return `target` as the API server has it."""


class KubernetesClient:
    """The API server, reached with the pod's own ServiceAccount when it is first needed."""

    def __init__(self) -> None:
        self._api: Any = None

    @property
    def api(self) -> Any:
        """Kubernetes' client of custom resources."""
        from kubernetes import client, config  # noqa: PLC0415 - a second's import, and only clusters have a use for it

        if self._api is None:
            configuration = client.Configuration()
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            self._api = client.CustomObjectsApi(client.ApiClient(configuration))
        return self._api

    def apply(self, target: Target, body: Body) -> None:
        """Apply the status as the field manager of the trainer, whoever had these fields before."""
        self.api.patch_namespaced_custom_object_status(
            GROUP,
            VERSION,
            target.namespace,
            target.plural,
            target.name,
            body,
            field_manager=FIELD_MANAGER,
            force=True,
            _content_type="application/apply-patch+yaml",
            _request_timeout=10,
        )

    def read(self, target: Target) -> Body:
        """Read the resource with its status."""
        resource: Body = self.api.get_namespaced_custom_object_status(
            GROUP, VERSION, target.namespace, target.plural, target.name, _request_timeout=10
        )
        return resource


def earlier(target: Target, client: Client | None = None) -> TrainingStatus:
    """Return what an earlier attempt reported last, so that a new one's first report does not go back to nothing."""
    try:
        resource = (client or KubernetesClient()).read(target)
        if target.uid in (None, resource["metadata"]["uid"]):
            report = TrainingStatus.model_validate(resource.get("status", {}).get("training") or {})
            unsaid = dict.fromkeys(("error", "sync", "stopped_by", "updated_at", "heartbeat_at"))
            return report.model_copy(update=unsaid)
    except Exception as error:
        log.warning("earlier status of %s not read: %s", target.name, brief(error))
    return TrainingStatus()


class Reporter:
    """A thread that sends what `snapshot` returns, when it has changed and not more often than every few seconds.

    A trainer that has nothing new says every HEARTBEAT_S that it is there.
    """

    def __init__(
        self, target: Target, snapshot: Callable[[], TrainingStatus | RolloutResults], client: Client | None = None
    ) -> None:
        self.target, self.snapshot, self.client = target, snapshot, client or KubernetesClient()
        self.error: Exception | None = None
        """Why the last try failed; None where it did not."""
        self._sent: str | None = None
        self._sent_at = 0.0
        self._changed_at = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(REPORT_INTERVAL_S):
            self._send(has_heartbeat=self.target.field == "training")

    def _send(self, has_heartbeat: bool = False) -> bool:
        """Send the present report where it has changed, or a heartbeat is due; return whether the server has it now."""
        times = {"updated_at", "heartbeat_at"}
        report = self.snapshot().model_dump(by_alias=True, exclude_none=True, mode="json", exclude=times)
        content = json.dumps(report, sort_keys=True)
        if content == self._sent and not (has_heartbeat and monotonic() - self._sent_at >= HEARTBEAT_S):
            return True
        try:
            self.client.apply(self.target, self.target.body(report | self._times(content)))
        except Exception as error:
            if self.error is None:
                log.warning("status of %s not reported, and is tried again: %s", self.target.name, brief(error))
            self.error = error
            return False
        self._sent, self._sent_at, self.error = content, monotonic(), None
        return True

    def _times(self, content: str) -> Body:
        """Return when the report changed last and when it is sent; a rollout's has no times."""
        if self.target.field != "training":
            return {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._changed_at = now if content != self._sent else self._changed_at
        return {"updatedAt": self._changed_at, "heartbeatAt": now}

    def close(self) -> bool:
        """Send the last report, for up to FINAL_PATIENCE or until it is refused for good; return whether it arrived."""
        self._stop.set()
        self._thread.join()
        end = monotonic() + FINAL_PATIENCE
        while not (arrived := self._send()) and not is_refusal(self.error) and monotonic() < end:
            sleep(RETRY_INTERVAL_S)
        return arrived


def is_refusal(error: Exception | None) -> bool:
    """Return whether an API server has judged a report, and would judge it alike another time."""
    status = getattr(error, "status", None)
    return status in _REFUSALS or (status == 409 and error is not None and "uid" in brief(error).lower())


def brief(error: Exception) -> str:
    """Describe an exception in one line; by the API server's own message where it has one."""
    try:
        return str(json.loads(getattr(error, "body", None) or "")["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(str(error).split())[:300]
