"""The command line: `python3 -m hack.cluster up`, and the others that its --help lists."""

import argparse
import sys

from hack.cluster import clusters, fake_gpus, images, network_policies, programs
from hack.cluster.console import Failure, alone, say
from hack.cluster.paths import BUILD, CACHE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m hack.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make the cluster, with KubeRay and an S3 server, or find it running")
    commands.add_parser("down", help="remove the cluster; the caches stay")
    commands.add_parser("status", help="say which cluster there is and how it is")
    commands.add_parser("images", help="build the operator's and the trainer's image and bring them to the cluster")
    commands.add_parser("tools", help="build kubectl, helm and minio into .build/bin")
    policies = commands.add_parser(
        "network-policies", help="enforce NetworkPolicies on the cluster from source, or not"
    )
    policies.add_argument("state", choices=("on", "off"))
    gpus = commands.add_parser("fake-gpus", help="give the node simulated GPUs, which hold no device")
    gpus.add_argument("count", type=int)
    return parser


def _change(command: str) -> None:
    match command:
        case "up":
            clusters.up()
        case "down":
            clusters.down()
        case "images":
            images.make(clusters.chosen())
        case "tools":
            programs.link_tools(BUILD)


def _enforce_policies(wanted: bool) -> None:
    if clusters.chosen().name != "source":
        say("Whether NetworkPolicies are enforced is for this cluster's own network plugin: nothing was changed")
    elif wanted:
        network_policies.on()
    else:
        network_policies.off()


def main() -> int:
    """Run one command; a failure is one message and exit status 1."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "status":
            clusters.status()
        elif arguments.command == "network-policies":
            _enforce_policies(arguments.state == "on")
        elif arguments.command == "fake-gpus":
            fake_gpus.set_count(clusters.chosen().kubectl(), arguments.count)
        else:
            with alone(CACHE / "lock"):
                _change(arguments.command)
    except Failure as failure:
        say(f"error: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
