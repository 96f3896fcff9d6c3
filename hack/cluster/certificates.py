"""The cluster's own certificate authority and who it vouches for, and kubeconfig files."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.console import run
from hack.cluster.network import API_SERVICE_IP, NODE_IP
from hack.cluster.paths import STATE

PKI = STATE / "pki"
NODE = "rl-local"
CONTEXT = "rl-local"
API = f"https://{NODE_IP}:6443"
_DAYS = "3650"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_API_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True)
class Identity:
    """A certificate: `user` and `group` are what the API server sees, `names` and `addresses` what a client checks."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"

    @property
    def alternatives(self) -> str:
        names = [f"DNS:{name}" for name in self.names or (self.file,)]
        return ",".join(names + [f"IP:{address}" for address in self.addresses])


ADMIN = Identity("admin", "admin", "system:masters")
CONTROLLER_MANAGER = Identity("controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "system:kube-scheduler")
PROXY = Identity("proxy", "system:kube-proxy")
DNS = Identity("dns", "rl-local:coredns")
KUBELET = Identity("kubelet", f"system:node:{NODE}", "system:nodes", (NODE,), (NODE_IP,))
CLIENTS = (ADMIN, CONTROLLER_MANAGER, SCHEDULER, PROXY, DNS, KUBELET)
SERVERS = (
    Identity("apiserver", "kube-apiserver", names=_API_NAMES, addresses=("127.0.0.1", API_SERVICE_IP, NODE_IP)),
    Identity("apiserver-kubelet", "apiserver", "system:masters"),
)


def certificate(who: Identity) -> Path:
    return PKI / f"{who.file}.crt"


def key(who: Identity) -> Path:
    return PKI / f"{who.file}.key"


def kubeconfig(who: Identity) -> Path:
    return PKI / f"{who.file}.kubeconfig"


def make() -> None:
    """Make the authority, every certificate, the key that signs service account tokens, and the kubeconfigs."""
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    _openssl("req", "-x509", *_EC, "-subj", "/CN=rl-local-ca", "-days", _DAYS, "-keyout", "ca.key", "-out", "ca.crt")
    _openssl("genpkey", "-algorithm", "RSA", "-out", "serviceaccount.key")
    for who in (*CLIENTS, *SERVERS):
        _issue(who)
    for who in CLIENTS:
        write_kubeconfig(kubeconfig(who), who)


def _issue(who: Identity) -> None:
    extensions = (
        f"subjectAltName={who.alternatives}",
        "basicConstraints=critical,CA:FALSE",
        "extendedKeyUsage=serverAuth,clientAuth",
    )
    added = [word for extension in extensions for word in ("-addext", extension)]
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-days", _DAYS)
    files = ("-keyout", f"{who.file}.key", "-out", f"{who.file}.crt")
    _openssl("req", "-x509", *authority, *_EC, "-subj", who.subject, *added, *files)


def _openssl(*arguments: str) -> None:
    run(["openssl", *arguments], cwd=PKI)


def write_kubeconfig(path: Path, who: Identity) -> None:
    """Write a kubeconfig that holds everything in itself (JSON, which is YAML), readable by its owner alone."""
    cluster = {"server": API, "certificate-authority-data": _encoded(PKI / "ca.crt")}
    user = {"client-certificate-data": _encoded(certificate(who)), "client-key-data": _encoded(key(who))}
    context = {"cluster": CONTEXT, "user": who.file}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": who.file, "user": user}],
        "contexts": [{"name": CONTEXT, "context": context}],
        "current-context": CONTEXT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
