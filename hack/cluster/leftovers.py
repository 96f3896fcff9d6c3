"""What dead pods leave in the kernel: mounts and control groups."""

import contextlib
import ctypes
import os
import socket
from pathlib import Path

from hack.cluster.console import Failure, wait_until
from hack.cluster.paths import CACHE, STATE

_DETACH = 2  # MNT_DETACH
# Inner before outer; one that is not empty stays.
_SHARED_FOLDERS = (
    "/var/log/containers", "/var/lib/cni/results", "/var/lib/cni",
    "/var/lib/kubelet/device-plugins", "/var/lib/kubelet",
    "/run/containerd/s", "/run/containerd",
)  # fmt: skip


def mounts() -> list[str]:
    """The mount points below our cache, innermost first: pods', and those of an image build that was killed."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # Spaces and the like stand there as octal escapes.
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(f"{CACHE}/")), key=len, reverse=True)


def unmount() -> None:
    """Unmount everything below our cache, a busy mount too."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in mounts():
        if libc.umount2(os.fsencode(point), _DETACH) != 0 and point in mounts():
            raise Failure(f"cannot unmount {point}: {os.strerror(ctypes.get_errno())}")


def control_groups() -> list[Path]:
    """The pods' control groups, innermost first, in every hierarchy."""
    roots = [path for pattern in ("kubepods", "*/kubepods") for path in Path("/sys/fs/cgroup").glob(pattern)]
    folders = [Path(where) for root in roots if not root.is_symlink() for where, _, _ in os.walk(root)]
    return sorted(set(folders), key=lambda path: len(path.parts), reverse=True)


def remove_control_groups() -> None:
    """Remove them; the kernel lets go of a group a moment after its last process."""

    def removed() -> bool:
        for group in control_groups():
            with contextlib.suppress(OSError):
                group.rmdir()
        return not control_groups()

    wait_until("the pods' control groups removed", removed, 20, "Something still runs in /sys/fs/cgroup/*/kubepods.")


def remove_folders() -> None:
    """Remove what the kubelet, CNI and containerd's shims keep outside our state folder, where nobody else uses it."""
    # The kubelet links every container's log here, whatever folder it keeps the log in.
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(STATE)):
            link.unlink()
    for sock in (*Path("/run/containerd/s").glob("*"), Path("/var/lib/kubelet/device-plugins/kubelet.sock")):
        if _stale(sock):
            sock.unlink()
    for folder in _SHARED_FOLDERS:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _stale(path: Path) -> bool:
    """Whether a socket's file is there and nobody listens."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
