"""A namespace of its own for each test, experiments in it, and the S3 server."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hack.kubectl import apply, kubectl, make_namespace, s3_client
from tests.e2e.experiments import Experiment, document


@pytest.fixture
def namespace() -> Iterator[str]:
    """A new namespace under restricted Pod Security, with the S3 credentials."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def submit(namespace: str) -> Callable[..., Experiment]:
    def submit(name: str, into: str = namespace, **spec: Any) -> Experiment:
        apply(document(name, **spec), into)
        return Experiment(name, into)

    return submit


@pytest.fixture
def s3() -> Iterator[Any]:
    """The S3 server, by a way made anew for each test: one test takes the server away, and with it the way."""
    with s3_client() as client:
        yield client
