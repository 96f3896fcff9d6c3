"""`rloperator`: settings from flags or the environment, a wait for the CRDs, and kopf."""

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import kopf
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from rloperator.config import Settings
from rloperator.kube.client import ApiError, KubeClient, connect
from rltrainer.api.base import API_VERSION
from rltrainer.api.experiment import Storage
from rltrainer.api.options import complaint

log = logging.getLogger("rloperator")

_NEEDED = {
    (API_VERSION, "RLExperiment"): "install the chart's CRDs",
    (API_VERSION, "RLRollout"): "install the chart's CRDs",
    ("ray.io/v1", "RayJob"): "install KubeRay 1.6 or later",
}


def parser() -> argparse.ArgumentParser:
    """The flags; each has an environment variable, RLOPERATOR_ and its name."""
    result = argparse.ArgumentParser("rloperator", description="The operator for RLExperiment and RLRollout.")

    def flag(name: str, about: str, default: str = "", **kwargs: object) -> None:
        variable = "RLOPERATOR_" + name.upper().replace("-", "_")
        value = os.environ.get(variable, default)
        result.add_argument(f"--{name}", default=value, help=f"{about} [{variable}]", **kwargs)  # type: ignore[arg-type]

    flag("trainer-image", "image of experiments that name none")
    flag("storage-uri", "s3://bucket/prefix of experiments that name none")
    flag("storage-endpoint", "URL of an S3-compatible server")
    flag("storage-region", "region of the bucket")
    flag(
        "storage-credentials-secret",
        "Secret in each experiment's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    flag(
        "pod-templates",
        "what a podTemplate may ask for: allowed, restricted (as Pod Security has it), or refused",
        "restricted",
        choices=("allowed", "restricted", "refused"),
    )
    flag("image-pull-secrets", "Secrets for the registry of documents that name none, separated by commas", "")
    flag("account-annotations", "annotations of each run's ServiceAccount, as a JSON object", "{}")
    flag("accounts", "ServiceAccounts that documents may name, separated by commas", "")
    flag("network-policies", "whether each experiment has a NetworkPolicy", "true", choices=("true", "false"))
    flag("network-ingress", "rules of a NetworkPolicy's ingress that hold for all experiments, as a JSON list", "[]")
    flag("kuberay-namespace", "namespace of KubeRay's operator; unset, it is known by its label in any")
    flag("namespace", "the one namespace to serve; unset, all")
    flag("sweep-seconds", "time between two looks at everything that is not finished", "15", type=float)
    flag("workers", "objects reconciled at the same time", "16", type=int)
    flag("log-level", "debug, info, warning or error", "info", choices=("debug", "info", "warning", "error"))
    flag("liveness", "where health is served", "http://0.0.0.0:8080/healthz")
    return result


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings in the flags. Raises ValueError with a message for the person at the keyboard."""
    if not args.trainer_image:
        raise ValueError(
            "--trainer-image (or RLOPERATOR_TRAINER_IMAGE) is needed: the image of experiments that name none"
        )
    if args.sweep_seconds <= 0 or args.workers < 1:
        raise ValueError("--sweep-seconds must be above 0 and --workers at least 1")
    return Settings(
        trainer_image=args.trainer_image,
        storage=_storage(args),
        pod_templates=args.pod_templates,
        image_pull_secrets=_listed(args.image_pull_secrets),
        account_annotations=_annotations(args.account_annotations),
        accounts=_listed(args.accounts),
        network_policies=args.network_policies == "true",
        network_ingress=_rules(args.network_ingress),
        kuberay_namespace=args.kuberay_namespace or None,
        namespace=args.namespace or None,
        sweep_seconds=args.sweep_seconds,
        workers=args.workers,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _annotations(text: str) -> dict[str, str]:
    given = _parsed(text)
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError(f"--account-annotations must be a JSON object of texts, not {text!r}")
    return given


def _rules(text: str) -> tuple[dict[str, Any], ...]:
    rules = _parsed(text)
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ValueError(f"--network-ingress must be a JSON list of objects, not {text!r}")
    return tuple(rules)


def _parsed(text: str) -> Any:
    """Parse a JSON text; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _storage(args: argparse.Namespace) -> Storage | None:
    fields = {
        "uri": args.storage_uri,
        "endpoint": args.storage_endpoint,
        "region": args.storage_region,
        "credentialsSecret": args.storage_credentials_secret,
    }
    fields = {name: value for name, value in fields.items() if value}
    if not fields:
        return None
    if "uri" not in fields:
        raise ValueError(f"--storage-uri is needed beside {', '.join(fields)}")
    try:
        return Storage.model_validate(fields)
    except ValidationError as error:
        raise ValueError(complaint(error, "--storage", Storage)) from None


class OneLine(logging.Formatter):
    """A line for each record: what others have written into a message cannot look like a line of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record, control characters in its message escaped."""
        record.message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


def log_to_stderr(level: str) -> None:
    """Log everything of at least `level`."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def wait_for_kinds(client: KubeClient, every: float = 5.0) -> None:
    """Return once the API server answers and serves every kind that the operator watches."""
    said = ""
    while waits := "; ".join(_missing(client)):
        if waits != said:
            log.warning("waiting, and looking again every %.0f s: %s", every, waits)
        said = waits
        time.sleep(every)
    if said:
        log.info("the API server serves all that is needed")


def _missing(client: KubeClient) -> list[str]:
    """List, in words, what must be there before the operator can begin, and is not."""
    try:
        missing = [kind for kind in _NEEDED if not client.serves(*kind)]
    except ApiError as error:
        return [f"the API server does not say what it serves: {error}"]
    except HTTPError as error:
        return [f"the API server does not answer: {' '.join(str(error).split())[:300]}"]
    return [f"the API server serves no {kind} of {api}: {_NEEDED[api, kind]}" for api, kind in missing]


@contextmanager
def serving_health(endpoint: str) -> Iterator[None]:
    """Answer probes as long as the block lasts, in which kopf does not yet: who waits is healthy."""
    url = urlsplit(endpoint)

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"waiting": "for the API server, or for the kinds that it is to serve"}'
            self.send_response(200 if self.path == url.path else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a probe comes every few seconds."""

    server = ThreadingHTTPServer((url.hostname or "localhost", url.port or 80), Healthy)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped."""
    args = parser().parse_args(argv)
    try:
        settings = settings_of(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    log_to_stderr(args.log_level)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its retries are logged once they are used up
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("kopf").setLevel(max(logging.getLogger().level, logging.WARNING))
    with serving_health(args.liveness):
        wait_for_kinds(KubeClient(connect(1)))
    log.info("serving %s", f"namespace {settings.namespace}" if settings.namespace else "all namespaces")
    from rloperator.controller import handlers  # noqa: F401, PLC0415 - importing it registers the handlers

    kopf.run(
        standalone=True,
        clusterwide=settings.namespace is None,
        namespaces=[settings.namespace] if settings.namespace else [],
        liveness_endpoint=args.liveness,
        memo=kopf.Memo(settings=settings),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
