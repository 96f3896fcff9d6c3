"""The node: kubelet, kube-proxy and CoreDNS, as processes of this machine."""

import json

from hack.cluster import certificates as pki
from hack.cluster.console import run, wait_until
from hack.cluster.containerd import SOCKET
from hack.cluster.network import NODE_IP, POD_CIDR
from hack.cluster.paths import STATE, program
from hack.cluster.processes import LOG, start

PORTS = {10248: "kubelet", 10250: "kubelet", 10249: "kube-proxy", 10256: "kube-proxy"}
_FOLDER = STATE / "node"


def up() -> None:
    """Start the three and return when the node is Ready."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for name, document in {"kubelet": _kubelet(), "proxy": _proxy()}.items():
        (_FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2))
    (_FOLDER / "Corefile").write_text(_corefile())
    start("kubelet", [program("kube"), "kubelet", *_kubelet_flags()])
    start("proxy", [program("kube"), "proxy", f"--config={_FOLDER / 'proxy.json'}", f"--hostname-override={pki.NODE}"])
    start("dns", [program("coredns"), "-conf", _FOLDER / "Corefile"])
    wait_until("the node Ready", ready, 60, f"Its log: {LOG / 'kubelet.log'}")


def ready() -> bool:
    condition = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
    config = pki.kubeconfig(pki.ADMIN)
    return run([program("kubectl"), "--kubeconfig", config, "get", "nodes", "-o", f"jsonpath={condition}"]) == "True"


def _kubelet_flags() -> list[str]:
    return [
        f"--config={_FOLDER / 'kubelet.json'}",
        f"--kubeconfig={pki.kubeconfig(pki.KUBELET)}",
        f"--hostname-override={pki.NODE}",
        f"--node-ip={NODE_IP}",
        f"--root-dir={STATE / 'kubelet'}",
    ]


def _kubelet() -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [NODE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate(pki.KUBELET)),
        "tlsPrivateKeyFile": str(pki.key(pki.KUBELET)),
        "podLogsDir": str(STATE / "pods"),
        "maxPods": 250,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        # At 100 the kubelet never deletes an image: a trainer's would be gigabytes to fetch again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }


def _proxy() -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "clientConnection": {"kubeconfig": str(pki.kubeconfig(pki.PROXY))},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "iptables": {"localhostNodePorts": False},
        # The kernel's connection tracking settings are the machine's, not ours.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _corefile() -> str:
    return f""".:53 {{
  bind {NODE_IP}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {pki.kubeconfig(pki.DNS)} {pki.CONTEXT}
  }}
  forward . /etc/resolv.conf
  cache 5
}}
"""
