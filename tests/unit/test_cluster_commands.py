"""What `make cluster`, `make images` and `make cluster-down` ask of Docker, kind, minikube and an existing cluster.

None of these is on every machine, so each is a stand-in that records its command line; the S3 server's address is real.
"""

import base64
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hack.cluster import images, oci, programs
from hack.cluster.paths import CHECKOUT

STAND_IN = f"""#!{sys.executable} -SE
import json, os, signal, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["STAND_IN_RECORD"], "a") as record:
    record.write(json.dumps([name, *arguments]) + "\\n")
if name == "docker" and arguments == ["info"]:
    sys.exit(int(os.environ.get("STAND_IN_NO_DOCKER", "0")))
if "port-forward" in arguments:
    print("Forwarding from 127.0.0.1:" + os.environ["STAND_IN_S3_PORT"] + " -> 9000", flush=True)
    signal.pause()
if "secret" in arguments:
    print(os.environ["STAND_IN_SECRET"])
if "current-context" in arguments:
    print("their-context")
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret"}


class Workplace:
    """A cache with stand-ins for every program, and a record of who was called how."""

    def __init__(self, folder: Path, s3_port: int) -> None:
        self.folder, self.build, self.record = folder, folder / "build", folder / "record"
        self.theirs = folder / "their-kubeconfig"
        self.theirs.write_text("theirs")
        self._place_programs(folder / "cache" / "rl-kubernetes" / "programs")
        secret = {"data": {name: base64.b64encode(value.encode()).decode() for name, value in CREDENTIALS.items()}}
        self.env = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "RL_BUILD_DIR": str(self.build),
            "KUBECONFIG": str(self.theirs),
            "STAND_IN_RECORD": str(self.record),
            "STAND_IN_S3_PORT": str(s3_port),
            "STAND_IN_SECRET": json.dumps(secret),
        }

    def _place_programs(self, cache: Path) -> None:
        for wanted in (*programs.TOOLS, programs.KUBERAY_OPERATOR):
            self._place(cache / f"{wanted.name}-{programs.digest(wanted)}" / wanted.name)
        (cache / f"kuberay-{programs.digest(programs.KUBERAY_OPERATOR)}" / "config").mkdir()

    @staticmethod
    def _place(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def install(self, *names: str) -> None:
        """Puts stand-ins of these programs on PATH."""
        for name in names:
            self._place(self.folder / "bin" / name)

    def make(self, command: str, **env: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "hack.cluster", command]
        return subprocess.run(
            call, check=False, cwd=CHECKOUT, env=self.env | env, capture_output=True, text=True, timeout=60
        )

    def calls(self, *names: str) -> list[str]:
        """The recorded command lines of these programs, with what differs from run to run named instead."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        known = {str(self.folder): "TMP", str(CHECKOUT): "SRC", images.content_tag(): "TAG"}
        known |= {image.digest(): "HASH" for image in (oci.MINIO, oci.KUBERAY)}
        told = [" ".join(line) for line in lines if line[0] in names and line[1:] != ["info"]]
        for value, name in known.items():
            told = [line.replace(value, name) for line in told]
        return told


class _S3(BaseHTTPRequestHandler):
    made: list[str]

    def do_PUT(self) -> None:
        self.made.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Silent."""


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(_S3, "made", made, raising=False)
    return made


@pytest.fixture
def workplace(tmp_path: Path, buckets: list[str]) -> Iterator[Workplace]:
    server = HTTPServer(("127.0.0.1", 0), _S3)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Workplace(tmp_path, server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def docker_build(target: str, place: str = "") -> str:
    secrets = "--secret id=environment,src=TMP/environment"
    return f"docker build --target {target} --tag rl-{target}:TAG --file SRC/Dockerfile {secrets}{place} SRC"


def without_temporary_folder(calls: list[str]) -> list[str]:
    """The secret's file lies in a temporary folder whose name is random."""
    return [
        " ".join("id=environment,src=TMP/environment" if "id=environment" in word else word for word in call.split())
        for call in calls
    ]


def test_kind_is_taken_where_docker_answers_and_the_persons_context_is_left_alone(
    workplace: Workplace, buckets: list[str]
) -> None:
    workplace.install("docker", "kind", "minikube")
    done = workplace.make("up")
    assert done.returncode == 0, done.stderr
    assert f"export KUBECONFIG={workplace.build / 'kubeconfig'}" in done.stderr
    assert workplace.calls("kind", "minikube") == [
        "kind get clusters",
        "kind create cluster --name rl-local --kubeconfig TMP/build/kubeconfig --wait 120s",
        "kind load image-archive TMP/cache/rl-kubernetes/archives/minio-HASH.tar --name rl-local",
        "kind load image-archive TMP/cache/rl-kubernetes/archives/kuberay-operator-HASH.tar --name rl-local",
    ]
    assert all(call.startswith("kubectl --kubeconfig TMP/build/kubeconfig ") for call in workplace.calls("kubectl"))
    assert workplace.theirs.read_text() == "theirs"
    assert buckets == ["/experiments"]


def test_kind_gets_images_that_docker_built_and_goes(workplace: Workplace) -> None:
    workplace.install("docker", "kind")
    done = workplace.make("images", RL_CLUSTER="kind")
    assert done.returncode == 0, done.stderr
    expected = [
        command
        for target in ("operator", "trainer")
        for command in (
            "docker exec rl-local-control-plane crictl images --output json",
            docker_build(target),
            f"docker tag rl-{target}:TAG localhost/rl-{target}:TAG",
            f"kind load docker-image localhost/rl-{target}:TAG --name rl-local",
        )
    ]
    assert without_temporary_folder(workplace.calls("docker", "kind")) == expected
    written = (workplace.build / "images.env").read_text()
    tag = images.content_tag()
    assert written == f"OPERATOR_IMAGE=localhost/rl-operator:{tag}\nTRAINER_IMAGE=localhost/rl-trainer:{tag}\n"
    workplace.record.unlink()
    assert workplace.make("down", RL_CLUSTER="kind").returncode == 0
    assert workplace.calls("kind") == ["kind delete cluster --name rl-local --kubeconfig TMP/build/kubeconfig"]


def test_minikube_is_taken_where_docker_does_not_answer(workplace: Workplace) -> None:
    workplace.install("docker", "kind", "minikube")
    done = workplace.make("up", STAND_IN_NO_DOCKER="1")
    assert done.returncode == 0, done.stderr
    assert workplace.calls("kind", "minikube") == [
        "minikube --profile rl-local start",
        "minikube --profile rl-local image load TMP/cache/rl-kubernetes/archives/minio-HASH.tar",
        "minikube --profile rl-local image load TMP/cache/rl-kubernetes/archives/kuberay-operator-HASH.tar",
    ]
    workplace.record.unlink()
    assert workplace.make("down", STAND_IN_NO_DOCKER="1").returncode == 0
    assert workplace.calls("minikube") == ["minikube --profile rl-local delete"]


def test_an_existing_cluster_gets_its_images_through_the_named_registry(workplace: Workplace) -> None:
    workplace.install("docker")
    existing = {"RL_CLUSTER": "existing", "RL_REGISTRY": "registry.test/team"}
    done = workplace.make("up", **existing)
    assert done.returncode == 0, done.stderr
    assert "Using the context their-context" in done.stderr
    assert workplace.calls("docker")[:3] == [
        "docker load --input TMP/cache/rl-kubernetes/archives/minio-HASH.tar",
        "docker tag localhost/rl-kubernetes/minio:HASH registry.test/team/minio:HASH",
        "docker push registry.test/team/minio:HASH",
    ]
    refused = workplace.make("down", **existing)
    assert refused.returncode == 1
    assert "was not made here" in refused.stderr


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"RL_CLUSTER": "eks"}, "RL_CLUSTER=eks is not one of existing, kind, minikube, source"),
        ({"RL_CLUSTER": "existing", "KUBECONFIG": ""}, "needs KUBECONFIG to name the cluster"),
        ({"RL_CLUSTER": "existing"}, "needs RL_REGISTRY"),
    ],
)
def test_what_is_missing_is_said(workplace: Workplace, env: dict[str, str], message: str) -> None:
    workplace.install("docker")
    done = workplace.make("up", **env)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_of_the_machine_reach_the_build_as_a_secret_alone(workplace: Workplace) -> None:
    workplace.install("docker", "kind")
    certificates = workplace.folder / "ca.crt"
    certificates.write_text("")
    env = {"RL_CLUSTER": "kind", "SSL_CERT_FILE": str(certificates), "HTTPS_PROXY": "http://user:hidden@proxy.test"}
    done = workplace.make("images", **env)
    assert done.returncode == 0, done.stderr
    built = [call for call in workplace.calls("docker") if " build " in call]
    assert all("--secret id=certificates,src=TMP/ca.crt" in call for call in built)
    assert len(built) == 2
    assert "hidden" not in workplace.record.read_text() + done.stderr
