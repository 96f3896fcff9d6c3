"""A containerd of our own: its socket and state are ours, and a containerd of the system is never touched."""

from pathlib import Path

from hack.cluster.console import Failure, run, succeeds, wait_until
from hack.cluster.network import CNI
from hack.cluster.oci import PAUSE
from hack.cluster.paths import CONTAINERD_ROOT, STATE
from hack.cluster.processes import LOG, start, stop

SOCKET = STATE / "run" / "containerd.sock"
_CONFIG = STATE / "containerd.toml"


def up() -> None:
    """Start it empty: what an earlier cluster left running or half removed is forgotten, its images stay."""
    _CONFIG.parent.mkdir(parents=True, exist_ok=True)
    _CONFIG.write_text(_configuration())
    _start()
    if _forget_containers():
        # The CRI plugin reads the containers only when it starts.
        stop("containerd")
        _start()


def _start() -> None:
    start("containerd", ["containerd", "--config", _CONFIG])
    wait_until("containerd answers", lambda: succeeds(ctr("version")), 30, f"Its log: {LOG / 'containerd.log'}")


def ctr(*arguments: str | Path) -> list[str | Path]:
    """A command line of containerd's client, in the namespace of Kubernetes."""
    return ["ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments]


def _forget_containers() -> bool:
    containers = run(ctr("containers", "list", "--quiet")).split()
    for container in containers:
        succeeds(ctr("tasks", "delete", "--force", container))
        run(ctr("containers", "delete", container))
    return bool(containers)


def images() -> set[str]:
    """The references of the images that are present."""
    return set(run(ctr("images", "list", "--quiet")).split())


def load(reference: str, archive: Path) -> None:
    """Imports an image archive unless its reference, which names its content, is there; its predecessors go."""
    present = images()
    if reference in present:
        return
    run(ctr("images", "import", archive))
    if reference not in images():
        raise Failure(f"{archive} does not hold an image named {reference}")
    repository = reference.rpartition(":")[0]
    remove({name for name in present if name.startswith(f"{repository}:")})


def pull(reference: str) -> None:
    """Fetches an image from the local registry: only the layers that are not here yet."""
    if reference not in images():
        run(ctr("images", "pull", "--plain-http", reference))


def remove(references: set[str]) -> None:
    """Remove images, and the names by digest that the CRI plugin gave them: either would keep the layers."""
    if references:
        run(ctr("images", "remove", *sorted(references)))
    rows = [line.split() for line in run(ctr("images", "list")).splitlines()[1:]]
    named = {digest for reference, _, digest, *_ in rows if not reference.startswith("sha256:")}
    nameless = [reference for reference, _, digest, *_ in rows if digest not in named]
    if nameless:
        run(ctr("images", "remove", *nameless))


def _configuration() -> str:
    return f"""version = 2
root = "{CONTAINERD_ROOT}"
state = "{STATE / "run" / "containerd"}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE.reference()}"
  # runc may not lower it where root lacks CAP_SYS_RESOURCE
  restrict_oom_score_adj = true
  # below the state folder, where cluster-down finds them
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{STATE / "run" / "runc"}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{CNI}"
"""
