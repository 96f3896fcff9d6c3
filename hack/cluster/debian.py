"""System packages, from Debian alone; their names are printed before they are installed."""

import os
import shutil
from pathlib import Path

from hack.cluster.console import Failure, run, say, step
from hack.cluster.paths import LOGS

# What shows a package to be there, a program or a file, and the package.
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
COMPILER = {"gcc": "gcc", "/usr/include/stdio.h": "libc6-dev"}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}


def require(packages: dict[str, str]) -> None:
    """Install the packages whose program is missing.

    Raises `Failure` with the command to type where that is not ours to do: no Debian, or not root.
    """
    missing = sorted(
        {package for sign, package in packages.items() if not shutil.which(sign) and not Path(sign).exists()}
    )
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Failure(
            f"these programs' packages are missing: {' '.join(missing)}. As root on Debian: {' '.join(command)}"
        )
    say(f"Installing the system packages {' '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with step("apt-get install"):
        run(["apt-get", "update", "--quiet"], env=env, log=LOGS / "apt-update.log")
        run(command, env=env, log=LOGS / "apt-install.log")
