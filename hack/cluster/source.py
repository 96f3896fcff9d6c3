"""The disposable single-node cluster, built from source: a real Kubernetes from plain processes."""

import hashlib
import os
import shutil
import socket
import sys

from hack.cluster import (
    addons,
    certificates,
    containerd,
    control_plane,
    debian,
    leftovers,
    network,
    network_policies,
    node,
    oci,
    processes,
    programs,
    registry,
)
from hack.cluster.console import Failure, say, step, succeeds
from hack.cluster.kubectl import Kubectl
from hack.cluster.paths import CACHE, KUBECONFIG, SOURCES, STATE, program

_INPUTS = STATE / "inputs"
# The files that decide how the running cluster is.
_SHAPING = (
    "certificates.py", "containerd.py", "control_plane.py", "network.py", "node.py", "programs.py", "registry.py",
    "manifests/dns.yaml", "manifests/minio-volume.yaml", "images/*", "go/**/*",
)  # fmt: skip
_MINIO_DATA = STATE / "minio"
_PORTS = {**control_plane.PORTS, **node.PORTS, **registry.PORTS}
ADMIN_CONFIG = certificates.kubeconfig(certificates.ADMIN)


def kubectl() -> Kubectl:
    return Kubectl(ADMIN_CONFIG)


def up() -> None:
    """Make the cluster, or find it running, and write the checkout's kubeconfig."""
    debian.require(debian.NODE | debian.COMPILER)
    for each in programs.NODE:
        programs.ensure(each)
    oci.PAUSE.archive()
    if healthy():
        say("The cluster from source runs already.")
    else:
        down()
        with step("starting Kubernetes " + programs.KUBERNETES):
            _start()
    certificates.write_kubeconfig(KUBECONFIG, certificates.ADMIN)


def refuse_elsewhere() -> None:
    """The cluster from source is processes, mounts and a bridge of this machine: Linux and root only."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Failure("the cluster from source needs Linux and root. Elsewhere install Docker and kind, or minikube")


def _start() -> None:
    refuse_taken_ports()
    STATE.mkdir(parents=True)
    network.up()
    certificates.make()
    control_plane.up()
    containerd.up()
    containerd.load(oci.PAUSE.reference(), oci.PAUSE.archive())
    kubectl().apply(addons.manifest("dns.yaml"))
    node.up()
    registry.up()
    _MINIO_DATA.mkdir()
    os.chown(_MINIO_DATA, 65532, 65532)
    kubectl().apply(addons.manifest("minio-volume.yaml", path=str(_MINIO_DATA)))
    _INPUTS.write_text(inputs())


def inputs() -> str:
    """The hash of what decides how the cluster is: a cluster with another one is not ours to go on with."""
    checksum = hashlib.sha256(oci.PAUSE.reference().encode())
    for path in sorted(path for name in _SHAPING for path in SOURCES.glob(name) if path.is_file()):
        checksum.update(str(path.relative_to(SOURCES)).encode() + path.read_bytes())
    return checksum.hexdigest()


def healthy() -> bool:
    """Whether a cluster of just these inputs runs, with every daemon alive and its node Ready."""
    if not _INPUTS.exists() or _INPUTS.read_text() != inputs() or processes.dead():
        return False
    return control_plane.api_ready() and node.ready()


def refuse_taken_ports() -> None:
    """Raises `Failure` for the first port that somebody holds."""
    for port, name in _PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                hint = f"see who holds it: ss -ltnp 'sport = {port}'"
                raise Failure(f"port {port} is taken, which {name} of the cluster from source needs; {hint}") from error


def down() -> None:
    """Remove all that `up` made but the caches. What is not there, or half there, is no error."""
    if not STATE.exists() and not processes.ours():
        return
    with step("stopping the cluster from source"):
        if processes.alive("apiserver") and processes.alive("kubelet") and control_plane.api_ready():
            _stop_pods()
        if processes.alive(network_policies.NAME):
            network_policies.off()
        processes.stop("kubelet", "proxy", "dns", "controller-manager", "scheduler", "registry")
        processes.stop_all()
        leftovers.unmount()
        leftovers.remove_control_groups()
        network.down()
        leftovers.remove_folders()
        shutil.rmtree(STATE)


def _stop_pods() -> None:
    """Through the API, so that the kubelet takes each pod down properly; nobody may make new ones meanwhile."""
    processes.stop("controller-manager", "scheduler")
    arguments = ("delete", "pods", "--all-namespaces", "--all", "--grace-period=1", "--timeout=40s")
    if not succeeds([program("kubectl"), "--kubeconfig", ADMIN_CONFIG, *arguments], timeout=60):
        say("    some pods did not end in time: their processes are killed")


def load(image: oci.OneFileImage) -> str:
    containerd.load(image.reference(), image.archive())
    return image.reference()


def status() -> list[str]:
    """Lines for a person: what runs, and where its state and caches lie."""
    dead = processes.dead()
    lines = [f"state {STATE}, caches {CACHE}", "runs and is healthy" if healthy() else "does not run as it should"]
    return lines + [f"{name} is dead: {processes.LOG / name}.log" for name in dead]
