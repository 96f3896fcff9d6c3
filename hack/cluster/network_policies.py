"""NetworkPolicies on the cluster from source, whose own network plugin knows nothing of them: kube-router does."""

from hack.cluster import certificates, processes
from hack.cluster.console import Failure, run, say, wait_until
from hack.cluster.network import SERVICE_CIDR
from hack.cluster.paths import program

NAME = "network-policies"
_CHAINS = ("KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-")
_SAVE = ["iptables-save", "-t", "filter"]
_SETS = ("KUBE-SRC-", "KUBE-DST-", "kube-router-")


def on() -> None:
    """Enforce them from now on. It takes a kernel with ip_set: the daemon's log says what another one lacks."""
    if not processes.alive(NAME):
        processes.start(NAME, [program("kube-router"), *_flags()])
    log = processes.LOG / f"{NAME}.log"
    wait_until("the first rules of kube-router", lambda: _has_rules() or _refuse_dead(), 60, f"Its log: {log}")
    say("NetworkPolicies are enforced")


def off() -> None:
    """Enforce them no longer, and remove what kube-router made; its own clean-up needs more than its firewall."""
    processes.stop(NAME)
    run(["iptables-restore", "--noflush"], stdin=removal(run(_SAVE)))
    for name in run(["ipset", "list", "-n"]).split():
        if name.startswith(_SETS):
            run(["ipset", "destroy", name])
    say("NetworkPolicies are not enforced")


def _flags() -> list[str]:
    return [
        f"--kubeconfig={certificates.kubeconfig(certificates.ADMIN)}",
        f"--hostname-override={certificates.NODE}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--health-port=0",
        "--metrics-port=0",
    ]


def _has_rules() -> bool:
    return "KUBE-ROUTER-FORWARD" in run(_SAVE)


def _refuse_dead() -> bool:
    if not processes.alive(NAME):
        processes.stop(NAME)  # forgotten: the cluster is whole without it
        raise Failure(f"kube-router has ended: see {processes.LOG / NAME}.log")
    return False


def removal(rules: str) -> str:
    """Return what `iptables-restore --noflush` takes to remove kube-router's part of an `iptables-save -t filter`.

    Nothing else is written: kube-proxy may change its own rules meanwhile.
    """
    lines = rules.splitlines()
    chains = [line[1:].split()[0] for line in lines if line.startswith(":") and line[1:].startswith(_CHAINS)]
    rest = [line for line in lines if line.startswith("-A ") and line.split()[1] not in chains]
    theirs = [f"-D {line.removeprefix('-A ')}" for line in rest if "KUBE-ROUTER" in line]
    emptied, removed = [f":{chain} - [0:0]" for chain in chains], [f"-X {chain}" for chain in chains]
    return "\n".join(["*filter", *emptied, *theirs, *removed, "COMMIT", ""])
