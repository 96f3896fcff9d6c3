"""Simulated GPUs: a node says that it has them, so pods that ask for one are scheduled. No device is behind them."""

import json

from hack.cluster.console import Failure, say, wait_until
from hack.cluster.kubectl import Kubectl

RESOURCE = "nvidia.com/gpu"


def set_count(kubectl: Kubectl, count: int) -> None:
    """Give the cluster's first node `count` simulated GPUs; 0 takes them away."""
    if count < 0:
        raise Failure(f"a node cannot have {count} GPUs")
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    path = "/status/capacity/" + RESOURCE.replace("/", "~1")
    patch = json.dumps([{"op": "add", "path": path, "value": str(count)}])
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
    wait_until(f"node {node} allocates {count} GPUs", lambda: _allocatable(kubectl, node) == str(count), 30)
    say(f"Node {node} has {count} simulated {RESOURCE}")


def _allocatable(kubectl: Kubectl, node: str) -> str:
    allocatable = json.loads(kubectl("get", "node", node, "-o", "json"))["status"]["allocatable"]
    return str(allocatable.get(RESOURCE, "0"))
