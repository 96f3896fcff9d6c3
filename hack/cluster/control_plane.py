"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, as processes of this machine."""

from hack.cluster import certificates as pki
from hack.cluster.console import succeeds, wait_until
from hack.cluster.network import NODE_IP, POD_CIDR, SERVICE_CIDR
from hack.cluster.paths import STATE, program
from hack.cluster.processes import LOG, start

PORTS = {2379: "etcd", 2380: "etcd", 6443: "kube-apiserver", 10257: "kube-controller-manager", 10259: "kube-scheduler"}
_ETCD = "http://127.0.0.1:2379"


def up() -> None:
    """Start the four and return when the API server is ready."""
    start("etcd", [program("etcd"), *_etcd()])
    start("apiserver", [program("kube"), "apiserver", *_apiserver()])
    wait_until("the API server ready", api_ready, 60, f"Its log: {LOG / 'apiserver.log'}")
    start("controller-manager", [program("kube"), "controller-manager", *_controller_manager()])
    start("scheduler", [program("kube"), "scheduler", *_client(pki.SCHEDULER)])


def api_ready() -> bool:
    return succeeds(
        [program("kubectl"), "--kubeconfig", pki.kubeconfig(pki.ADMIN), "get", "--raw", "/readyz"], timeout=10
    )


def _etcd() -> list[str]:
    # Without fsync: the data is worth as much as the machine's uptime, and every write is faster.
    return [
        f"--data-dir={STATE / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    ]


def _apiserver() -> list[str]:
    own, kubelet_client = pki.SERVERS
    return [
        f"--etcd-servers={_ETCD}",
        f"--bind-address={NODE_IP}",
        f"--advertise-address={NODE_IP}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--anonymous-auth=false",
        "--allow-privileged=true",
        f"--client-ca-file={pki.PKI / 'ca.crt'}",
        f"--tls-cert-file={pki.certificate(own)}",
        f"--tls-private-key-file={pki.key(own)}",
        f"--kubelet-client-certificate={pki.certificate(kubelet_client)}",
        f"--kubelet-client-key={pki.key(kubelet_client)}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki.PKI / 'serviceaccount.key'}",
        f"--service-account-signing-key-file={pki.PKI / 'serviceaccount.key'}",
    ]


def _controller_manager() -> list[str]:
    return [
        *_client(pki.CONTROLLER_MANAGER),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki.PKI / 'serviceaccount.key'}",
        f"--root-ca-file={pki.PKI / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki.PKI / 'ca.crt'}",
        f"--cluster-signing-key-file={pki.PKI / 'ca.key'}",
        f"--cluster-cidr={POD_CIDR}",
        "--pvclaimbinder-sync-period=1s",  # else a claim waits up to 15 s for the volume made just before it
    ]


def _client(who: pki.Identity) -> list[str]:
    config = pki.kubeconfig(who)
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]
