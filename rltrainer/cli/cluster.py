"""Checkpoints of an RLExperiment in the cluster of the kubeconfig's current context."""

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from rltrainer.api.base import GROUP, PLURAL, VERSION
from rltrainer.api.experiment import Storage
from rltrainer.cli.common import UsageError

log = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds to wait for an answer of the API server."""

Body = dict[str, Any]


@dataclass(frozen=True)
class ClusterClient:
    """A namespace of the cluster of the kubeconfig's current context."""

    context: str
    namespace: str
    custom: Any
    """CustomObjectsApi; `core` is a CoreV1Api."""
    core: Any

    def checkpoint(self, experiment: str, which: str) -> tuple[str, Storage | None]:
        """Return the URI of a checkpoint of `experiment` and its storage, whose credentials go into the environment.

        Raises UsageError where there is none or it cannot be read.
        """
        body = self._read(
            f"RLExperiment {experiment}",
            lambda: self.custom.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL["RLExperiment"], experiment, _request_timeout=TIMEOUT
            ),
        )
        uri = checkpoint_uri(body.get("status") or {}, which)
        if uri is None:
            phase = (body.get("status") or {}).get("phase", "Pending")
            raise UsageError(f"RLExperiment {experiment} {self._where} has no checkpoint in storage yet; it is {phase}")
        storage = self._storage(experiment, body)
        if storage is not None and storage.credentials_secret:
            self._set_credentials(storage.credentials_secret, storage.credentials_keys.variables())
        log.info("%s of RLExperiment %s is %s", which, experiment, uri)
        return uri, storage

    @property
    def _where(self) -> str:
        return f"in namespace {self.namespace} of context {self.context}"

    def _read(self, what: str, read: Callable[[], Any]) -> Any:
        """Return `read()`. Raises UsageError that says why `what` cannot be read."""
        from kubernetes.client import ApiException  # noqa: PLC0415 - a second's import
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with it

        try:
            return read()
        except ApiException as error:
            if error.status == 404:
                raise UsageError(f"there is no {what} {self._where}") from None
            raise UsageError(f"{what} {self._where} cannot be read: {error.status} {error.reason}") from None
        except HTTPError as error:
            raise UsageError(f"{what}: the API server of context {self.context} cannot be reached: {error}") from None

    def _storage(self, experiment: str, resource: Body) -> Storage | None:
        """Return the document's storage, or else the operator's, which the document in the ConfigMap has."""
        storage = resource["spec"].get("storage")
        if storage is None:
            name = f"rlx-{experiment}"
            read = self.core.read_namespaced_config_map
            try:
                config_map = self._read(
                    f"ConfigMap {name}", lambda: read(name, self.namespace, _request_timeout=TIMEOUT)
                )
                storage = yaml.safe_load(config_map.data["experiment.yaml"])["spec"].get("storage")
            except UsageError as error:
                log.warning("the operator's storage is not known: %s. Give --endpoint and --region if need be", error)
        return None if storage is None else Storage.model_validate(storage)

    def _set_credentials(self, name: str, keys: dict[str, str]) -> None:
        """Put the credentials of a Secret into the environment variables that `keys` of it are for; a warning says
        that it cannot be read."""
        read = self.core.read_namespaced_secret
        try:
            secret = self._read(f"Secret {name}", lambda: read(name, self.namespace, _request_timeout=TIMEOUT))
        except UsageError as error:
            log.warning("%s: credentials are taken from the environment", error)
            return
        for variable, key in keys.items():
            if key in (secret.data or {}):
                os.environ[variable] = base64.b64decode(secret.data[key]).decode()


def connect(namespace: str | None) -> ClusterClient:
    """Connect to the cluster of the kubeconfig's current context. Raises UsageError where there is none."""
    from kubernetes import client, config  # noqa: PLC0415 - a second's import

    configuration = client.Configuration()
    try:
        context = config.list_kube_config_contexts()[1]  # type: ignore[no-untyped-call]
        config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise UsageError(f"no cluster is configured: {error}") from None
    configuration.retries = False
    api = client.ApiClient(configuration)
    namespace = namespace or context["context"].get("namespace") or "default"
    return ClusterClient(context["name"], namespace, client.CustomObjectsApi(api), client.CoreV1Api(api))


def checkpoint_uri(status: Body, which: str) -> str | None:
    """Return the URI of the best or newest checkpoint in a status, None without one; of a search its best trial's."""
    training = status.get("training") or {}
    own = training.get("bestCheckpoint" if which == "best" else "checkpoint")
    best = training.get("best") or status.get("best") or {}
    checkpoint: Body = own or best.get("checkpoint") or {}
    return checkpoint.get("uri")
