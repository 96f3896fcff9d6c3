"""Checkpoints of an experiment in a cluster: that of the kubeconfig's current context."""

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from rltrainer.api.base import GROUP, VERSION
from rltrainer.api.experiment import Storage
from rltrainer.cli.common import UsageError

log = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds that the API server has for an answer."""
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Body = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """The current context of the kubeconfig, or what is told of it."""

    context: str
    namespace: str
    custom: Any
    """Kubernetes' API of custom resources, and below that of its own."""
    core: Any

    def checkpoint(self, experiment: str, which: str) -> tuple[str, Storage | None]:
        """URI of a checkpoint of `experiment`, and the storage it lies in, whose credentials go into the environment.

        Raises UsageError where there is none or it cannot be seen."""
        found = self._read(
            f"RLExperiment {experiment}",
            lambda: self.custom.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "rlexperiments", experiment, _request_timeout=TIMEOUT
            ),
        )
        uri = checkpoint_uri(found.get("status") or {}, which)
        if uri is None:
            phase = (found.get("status") or {}).get("phase", "Pending")
            raise UsageError(f"RLExperiment {experiment} {self._where} has no checkpoint in storage yet; it is {phase}")
        storage = self._storage(experiment, found)
        if storage is not None and storage.credentials_secret:
            self._take_credentials(storage.credentials_secret)
        log.info("%s of RLExperiment %s is %s", which, experiment, uri)
        return uri, storage

    @property
    def _where(self) -> str:
        return f"in namespace {self.namespace} of context {self.context}"

    def _read(self, what: str, read: Callable[[], Any]) -> Any:
        """What `read` returns. Raises UsageError that says why it cannot be had."""
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

    def _storage(self, experiment: str, found: Body) -> Storage | None:
        """The document's storage, or the operator's: the document that it hands to the trainer names it."""
        given = found["spec"].get("storage")
        if given is None:
            name = f"rlx-{experiment}"
            read = self.core.read_namespaced_config_map
            try:
                kept = self._read(f"ConfigMap {name}", lambda: read(name, self.namespace, _request_timeout=TIMEOUT))
                given = yaml.safe_load(kept.data["experiment.yaml"])["spec"].get("storage")
            except UsageError as error:
                log.warning("the operator's storage is not known: %s. Give --endpoint and --region if need be", error)
        return None if given is None else Storage.model_validate(given)

    def _take_credentials(self, name: str) -> None:
        read = self.core.read_namespaced_secret
        try:
            kept = self._read(f"Secret {name}", lambda: read(name, self.namespace, _request_timeout=TIMEOUT)).data or {}
        except UsageError as error:
            log.warning("%s: credentials are taken from the environment", error)
            return
        for key in CREDENTIALS:
            if key in kept:
                os.environ[key] = base64.b64decode(kept[key]).decode()


def connect(namespace: str | None) -> Cluster:
    """The cluster of the kubeconfig's current context. Raises UsageError where there is none."""
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
    return Cluster(context["name"], namespace, client.CustomObjectsApi(api), client.CoreV1Api(api))


def checkpoint_uri(status: Body, which: str) -> str | None:
    """URI of the best or the newest checkpoint that a status tells of; of a search that of its best trial."""
    training = status.get("training") or {}
    own = training.get("bestCheckpoint" if which == "best" else "checkpoint")
    best = training.get("best") or status.get("best") or {}
    found: Body = own or best.get("checkpoint") or {}
    return found.get("uri")
