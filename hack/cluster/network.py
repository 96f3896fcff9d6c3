"""The addresses of the cluster from source, its bridge, its kernel settings and its packet filter rules."""

import json
import shutil
from pathlib import Path

from hack.cluster.console import Failure, run, succeeds
from hack.cluster.paths import STATE

BRIDGE = "rl0"
POD_CIDR = "10.123.0.0/16"
SERVICE_CIDR = "10.124.0.0/16"
# The node is the bridge itself: its address does not change with the machine's, and nobody outside can reach it.
NODE_IP = "10.123.0.1"
API_SERVICE_IP = "10.124.0.1"
NETWORK = "rl-local"  # the name in the CNI configuration, and so in the comments of its rules

CNI = STATE / "cni"
_MARK = f'name: \\"{NETWORK}\\"'  # as iptables-save prints it
_SHARED_CHAINS = {"CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"}
_SAVED = STATE / "sysctl.json"
# What the kubelet, kube-proxy and we change.
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "vm/overcommit_memory": "1",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
}


def up() -> None:
    """Make the bridge with the node's address, the CNI configuration, and the kernel settings."""
    if not succeeds(["ip", "link", "show", BRIDGE]):
        _refuse_overlap()
        run(["ip", "link", "add", BRIDGE, "address", "0a:58:0a:7b:00:01", "type", "bridge"])
        run(["ip", "address", "add", f"{NODE_IP}/16", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    CNI.mkdir(parents=True, exist_ok=True)
    (CNI / "10-rl-local.conflist").write_text(json.dumps(_cni_configuration(), indent=2))
    _set_kernel()


def _refuse_overlap() -> None:
    for cidr in (POD_CIDR, SERVICE_CIDR):
        route = run(["ip", "-o", "route", "show", "to", "root", cidr]).strip()
        if route:
            raise Failure(f"the cluster needs {cidr}, which this machine already routes elsewhere: {route}")


def _cni_configuration() -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(CNI / "addresses"),
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge, ports]}


def _set_kernel() -> None:
    succeeds(["modprobe", "br_netfilter"])  # often built in
    present = {name: value for name, value in _SETTINGS.items() if _sysctl(name).exists()}
    if not _SAVED.exists():
        _SAVED.write_text(json.dumps({name: _sysctl(name).read_text().strip() for name in present}))
    for name, value in present.items():
        _sysctl(name).write_text(value)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def down() -> None:
    """Remove the bridge and every rule of ours, and give the kernel its settings back."""
    if succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "delete", BRIDGE])
    for command in ("iptables", "ip6tables"):
        if shutil.which(f"{command}-save"):
            _remove_rules(command)
    if _SAVED.exists():
        for name, value in json.loads(_SAVED.read_text()).items():
            _sysctl(name).write_text(value)
    _remove_results(Path("/var/lib/cni/results"))


def _remove_results(folder: Path) -> None:
    """Remove what CNI remembers of pods whose processes were killed before it heard of it: two files for each."""
    for result in folder.glob(f"{NETWORK}-*-eth0"):
        container = result.name.removeprefix(f"{NETWORK}-").removesuffix("-eth0")
        (folder / f"cni-loopback-{container}-lo").unlink(missing_ok=True)
        result.unlink()


def _remove_rules(command: str) -> None:
    before = run([f"{command}-save"])
    others = without_ours(before)
    if others != before:
        run([f"{command}-restore"], stdin=others)


def without_ours(rules: str) -> str:
    """The output of iptables-save without the chains and rules of kube-proxy, the kubelet and our CNI network.

    One Kubernetes node is all that a machine's network can hold, so every KUBE- chain is ours; the CNI chains
    are ours where their rules carry our network's name, and the shared CNI-HOSTPORT ones when nobody else is left.
    """
    lines = rules.splitlines()
    marked = [line for line in lines if _MARK in line]
    own = {word for line in marked for word in line.split() if word.startswith("CNI-")} - _SHARED_CHAINS
    others = {line.split()[0][1:] for line in lines if line.startswith(":CNI-")} - own
    if others <= _SHARED_CHAINS:
        own |= others
    return "".join(f"{line}\n" for line in lines if line.startswith("#") or not _mentions(line, own))


def _mentions(line: str, chains: set[str]) -> bool:
    return any(word.startswith("KUBE-") or word in chains for word in line.removeprefix(":").split())
