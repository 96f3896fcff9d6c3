"""The only Kubernetes input and output: read, apply, create, patch, delete, record events.

Plain requests on the official client's connection: what is read stays the JSON that the pure functions take.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from rloperator.kube.merge import covers
from rloperator.kube.names import MANAGER, controller
from rloperator.kube.types import Event, Manifest, format_time
from rltrainer.api.base import PLURAL

log = logging.getLogger(__name__)

_PLURALS = PLURAL | {
    "ConfigMap": "configmaps",
    "Event": "events",
    "Job": "jobs",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "RayCluster": "rayclusters",
    "RayJob": "rayjobs",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ServiceAccount": "serviceaccounts",
}
_JSON, _APPLY, _JSON_PATCH = "application/json", "application/apply-patch+yaml", "application/json-patch+json"
_TIMEOUT = (5.0, 30.0)
"""Seconds for a connection, and for an answer."""
_PAGE = 500
_LOOK_AFTER = 10.0
"""Seconds after which an unchanged manifest is looked for, in case somebody has changed or deleted what it made."""
_REMEMBERED = 50_000
_MAX_EVENT_MESSAGE = 1024
"""What the API server allows."""


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone for."""

    @property
    def is_refusal(self) -> bool:
        """Whether the server has judged the request, and is not only too busy for it, or broken."""
        return self.status < 500 and self.status not in (408, 429)


class ConflictError(ApiError):
    """The object was written in between, and has to be read again."""


class NameTakenError(Exception):
    """An object of the name that we need exists, and is not ours."""


def connect(pool_size: int) -> ApiClient:
    """A client with the pod's own identity, or with the kubeconfig outside a cluster."""
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = pool_size
    configuration.retries = 1  # the queue tries again, and what else is to be done does not wait for it
    return ApiClient(configuration)


class KubeClient:
    """The API server, as far as the operator uses it. Safe to use from several threads."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._applied: dict[str, tuple[str, float]] = {}

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object, or None."""
        try:
            return self._request("GET", _path(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str | None, selector: str = "", fields: str = ""
    ) -> Iterator[Manifest]:
        """All objects of a kind with these labels and fields, page by page, as of now."""
        query = {"limit": str(_PAGE), "labelSelector": selector, "fieldSelector": fields}
        query = {name: value for name, value in query.items() if value}
        while True:
            page = self._request("GET", _path(api_version, kind, namespace), query)
            for item in page["items"]:
                yield {"apiVersion": api_version, "kind": kind} | item
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the API server serves a kind."""
        try:
            resources = self._request("GET", f"/apis/{api_version}")["resources"]
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(resource["kind"] == kind for resource in resources)

    def apply(self, manifest: Manifest, always: bool = False) -> None:
        """Server-side apply. What was applied a moment ago, or stands as it was, is left alone, unless `always`."""
        path = _path_of(manifest)
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        before, at = self._applied.get(path, ("", 0.0))
        is_applied = before == digest and not always
        if is_applied and time.monotonic() - at < _LOOK_AFTER:
            return
        existing = self._owned(manifest)
        if not (is_applied and existing and covers(existing, manifest)):
            self._request("PATCH", path, _force(), json.dumps(manifest), _APPLY)
        while len(self._applied) >= _REMEMBERED:
            self._applied.pop(next(iter(self._applied)), None)
        self._applied[path] = (digest, time.monotonic())

    def create(self, manifest: Manifest) -> None:
        """Make an object; one of ours that is there already is as good. Raises NameTakenError for another's.

        Raises ConflictError where none is there: a quota that was written in between answers like that too.
        """
        try:
            self._post(manifest)
        except ConflictError:
            if self._owned(manifest) is None:
                raise

    def refusal(self, manifest: Manifest) -> str | None:
        """Why the API server would not take an object; None where it would, or where that is not the object's fault."""
        try:
            self._post(manifest, dryRun="All", fieldValidation="Strict")
        except ApiError as error:
            return error.message if error.status in (400, 422) else None
        return None

    def _post(self, manifest: Manifest, **query: str) -> None:
        path = _path(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["namespace"])
        self._request("POST", path, {"fieldManager": MANAGER, **query}, manifest)

    def _owned(self, manifest: Manifest) -> Manifest | None:
        """The object as it is, where it is there. Raises NameTakenError where it is another's."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        existing = self.get(manifest["apiVersion"], kind, metadata["namespace"], metadata["name"])
        if existing is None:
            return None
        owner, ours = controller(existing), controller(manifest)
        if owner.get("uid") == ours["uid"]:
            return existing
        if (owner.get("kind"), owner.get("name")) == (ours["kind"], ours["name"]):
            raise ConflictError(409, f"{kind} {metadata['name']} goes with an earlier {ours['kind']} of the same name")
        raise NameTakenError(
            f"there is a {kind} {metadata['name']} that this operator has not made: rename it, or {ours['name']}"
        )

    def patch(self, target: Manifest, operations: tuple[Manifest, ...]) -> None:
        """JSON patch; a target that is gone, or no longer as it was, is looked at again later."""
        try:
            self._request("PATCH", _path_of(target), {"fieldManager": MANAGER}, list(operations), _JSON_PATCH)
        except ApiError as error:
            if error.status not in (404, 422):
                raise
            log.info("%s: not patched, it has changed: %s", _path_of(target), error.message)

    def delete(self, target: Manifest) -> None:
        """Delete this very object and, in the background, its children; gracefully."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": target["metadata"]["uid"]}}
        try:
            self._request("DELETE", _path_of(target), {}, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def apply_status(self, read: Manifest, status: Manifest) -> None:
        """Write the operator's part of a status. Raises ConflictError when the object has changed since it was read."""
        metadata = {key: read["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": read["apiVersion"], "kind": read["kind"], "metadata": metadata, "status": status}
        try:
            self._request("PATCH", f"{_path_of(read)}/status", _force(), json.dumps(body), _APPLY)
        except ApiError as error:
            if error.status == 404:
                raise ConflictError(409, "deleted in between") from None
            raise

    def record_event(self, about: Manifest, event: Event) -> None:
        """Post an event; the same transition recorded twice is one event."""
        try:
            path = _path("v1", "Event", about["metadata"]["namespace"])
            self._request("POST", path, {"fieldManager": MANAGER}, _event(about, event, format_time(datetime.now(UTC))))
        except ConflictError:
            log.debug("event %s is recorded already", event.reason)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            # Its namespace is going, and takes no more events.
            log.info("event %s not recorded: %s", event.reason, error.message)

    def _request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None, content_type: str = _JSON
    ) -> Manifest:
        serialized = self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        response = self._api.call_api(*serialized, _request_timeout=_TIMEOUT)
        data = response.read()  # type: ignore[no-untyped-call]
        if response.status == 409:
            raise ConflictError(409, _message(data))
        if response.status >= 300:
            raise ApiError(response.status, _message(data), _retry_after(response.headers.get("Retry-After")))
        result: Manifest = json.loads(data)
        return result


def _force() -> dict[str, str]:
    return {"fieldManager": MANAGER, "force": "true"}


def _retry_after(header: str | None) -> float:
    return float(header) if header and header.isdigit() else 0.0


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:500].decode(errors="replace")


def _path(api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{scope}/{_PLURALS[kind]}" + (f"/{quote(name, safe='')}" if name else "")


def _path_of(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return _path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def _event(about: Manifest, event: Event, now: str) -> Manifest:
    metadata = about["metadata"]
    key = hashlib.sha256(f"{metadata['uid']} {event.reason} {event.dedup_key}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{key}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "reason": event.reason,
        "message": event.message[:_MAX_EVENT_MESSAGE],
        "type": event.type,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
