"""Two experiments of one name in two namespaces do not touch; a run's token opens nothing but its own status."""

import base64
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from hack.kubectl import ROOT, KubectlError, environment, get, items, kubectl, make_namespace, wait_until
from tests.e2e.experiments import LONG, PATIENCE, Experiment

STATUS = json.dumps({"status": {"training": {"attempt": 1, "iteration": 9999, "timestepsTotal": 9999}}})


@pytest.fixture
def neighbour() -> Iterator[str]:
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def as_run(experiment: Experiment, *args: str) -> str:
    """kubectl with the token of the experiment's own ServiceAccount, and no other credential."""
    (account,) = [
        item["metadata"]["name"]
        for item in items("serviceaccounts", experiment.namespace)
        if item["metadata"]["name"] != "default"
    ]
    token = kubectl("create", "token", account, namespace=experiment.namespace).strip()
    view = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    cluster = view["clusters"][0]["cluster"] | {"insecure-skip-tls-verify": True}
    cluster.pop("certificate-authority-data", None)
    cluster.pop("certificate-authority", None)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    command = ["kubectl", "--kubeconfig=/dev/stdin", *args]
    done = subprocess.run(
        command, input=json.dumps(config), env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise KubectlError(done.stderr)
    return done.stdout


def patch_status(run: Experiment, target: Experiment) -> str:
    return as_run(run, "-n", target.namespace, "patch", "rlx", target.name, "--subresource=status", "--type=merge",
                  "-p", STATUS)  # fmt: skip


@pytest.fixture
def policies() -> Iterator[None]:
    """NetworkPolicies are enforced."""
    command = [sys.executable, "-m", "hack.cluster", "network-policies"]
    subprocess.run([*command, "on"], check=True, env=environment(), cwd=ROOT)
    yield
    subprocess.run([*command, "off"], check=True, env=environment(), cwd=ROOT)


CALL_RAY = """
import json, sys, urllib.error, urllib.request
import grpc

head, *token = sys.argv[1:]
bearer = {"authorization": f"Bearer {word}" for word in token}

def dashboard():
    try:
        urllib.request.urlopen(urllib.request.Request(f"http://{head}:8265/api/jobs/", headers=bearer), timeout=10)
    except urllib.error.HTTPError as error:
        return "refused" if error.code in (401, 403) else f"answers with {error.code}"
    except OSError:
        return "unreachable"
    return "answers"

def method(port, name):
    call = grpc.insecure_channel(f"{head}:{port}").unary_unary(f"/ray.rpc.{name}")
    try:
        call(b"", timeout=10, metadata=list(bearer.items()))
    except grpc.RpcError as error:
        silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if error.code() in silent:
            return "unreachable"
        return "refused" if error.code() == grpc.StatusCode.UNAUTHENTICATED else "answers"
    return "answers"

print(json.dumps([dashboard(), method(6379, "NodeInfoGcsService/GetAllNodeInfo"),
                  method(10001, "RayletDriver/ClusterInfo")]))
"""


def called(caller: Experiment, run: Experiment, *token: str) -> set[str]:
    """What the ports 8265, 6379 and 10001 of a run's head say to a process in another's, with or without a token."""
    (here,), (there,) = caller.pods("head"), run.pods("head")
    output = kubectl("exec", "-i", here["metadata"]["name"], "-c", "ray-head", "--", "python", "-",
                     there["status"]["podIP"], *token, namespace=caller.namespace, stdin=CALL_RAY)  # fmt: skip
    return set(json.loads(output))


def token_of(run: Experiment) -> str:
    secret = get("secret", run.status["cluster"], run.namespace)
    assert secret is not None
    return base64.b64decode(secret["data"]["auth_token"]).decode()


def refuses_strangers(run: Experiment, stranger: Experiment) -> None:
    """Without the run's token nobody is answered; with it whom the document names, and nobody else."""
    token = token_of(run)
    assert called(run, run, token) == {"answers"}
    assert called(stranger, run) == {"refused"}
    assert called(stranger, run, token_of(stranger)) == {"refused"}
    assert called(stranger, run, token) == {"answers"}
    run.patch(cluster={"ingress": []})
    run.until("a stranger who finds no way", lambda run: called(stranger, run, token) == {"unreachable"})
    assert called(run, run, token) == {"answers"}


@pytest.mark.usefixtures("policies")
def test_two_namespaces(submit: Callable[..., Experiment], neighbour: str) -> None:
    named = [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": neighbour}}}]}]
    # Small heads, as both stay after their end, and one node has to hold them.
    kept = {"keepSecondsAfterFinished": 600, "ingress": named, "head": {"cpu": "600m"}}
    short = LONG | {"stop": {"training_iteration": 3}, "cluster": kept}
    first, second = submit("same", **short), submit("same", into=neighbour, **short)
    other = submit("other", suspend=True)
    for target in (second, other):
        with pytest.raises(KubectlError, match="forbidden"):
            patch_status(first, target)
        with pytest.raises(KubectlError, match="forbidden"):
            as_run(first, "-n", target.namespace, "get", "rlx", target.name)
    with pytest.raises(KubectlError, match="forbidden"):
        as_run(first, "-n", first.namespace, "get", "secrets")
    assert "patched" in patch_status(first, first), "the token opens its own status"
    with pytest.raises(KubectlError, match="forbidden"):
        as_run(first, "-n", first.namespace, "patch", "rlx", first.name, "--type=merge",
               "-p", '{"spec": {"cluster": {"image": "another"}}}')  # fmt: skip

    ends = [experiment.until_phase("Succeeded") for experiment in (first, second)]
    assert [end["training"]["iteration"] for end in ends] == [3, 3]
    assert ends[0]["storageUri"] != ends[1]["storageUri"]
    for run in (first, second):
        run.until("KubeRay to hear of the end", lambda run: run.job_status == "SUCCEEDED")
    refuses_strangers(first, second)

    kubectl("delete", "rlx", "same", namespace=first.namespace)
    time.sleep(5)
    assert second.status == ends[1]


def test_pods_run_restricted_and_without_the_operators_rights(submit: Callable[..., Experiment]) -> None:
    experiment = submit("restricted", **(LONG | {"stop": {"training_iteration": 1}}))
    (head,) = experiment.until("the head", lambda e: e.pods("head"))
    for container in head["spec"]["containers"] + head["spec"].get("initContainers", []):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, container["name"]
        assert context["allowPrivilegeEscalation"] is False, container["name"]
        assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
    secrets = [
        env["value"]
        for container in head["spec"]["containers"]
        for env in container.get("env", [])
        if env["name"].startswith("AWS_SECRET") and "value" in env
    ]
    assert not secrets, "a secret stands in the pod's own text"
    kubectl("delete", "rlx", "restricted", namespace=experiment.namespace)


def test_who_may_edit_or_view_a_namespace_may_do_so_with_our_kinds(namespace: str) -> None:
    def may(user: str, verb: str) -> bool:
        with contextlib.suppress(KubectlError):  # kubectl ends with 1 where the answer is no
            return "yes" in kubectl("auth", "can-i", verb, "rlexperiments", f"--as={user}", namespace=namespace)
        return False

    for role in ("edit", "view"):
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}or", namespace=namespace)
    wait_until("the rights to be aggregated", lambda: may("editor", "create") and may("viewor", "list"), PATIENCE)
    assert all(may("editor", verb) for verb in ("get", "watch", "patch", "delete"))
    assert not any(may("viewor", verb) for verb in ("create", "patch", "delete"))
    assert not may("nobody", "get")
