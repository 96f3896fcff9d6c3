"""The machine as this process sees it: CPUs that it may use, and what becomes of freed memory."""

import ctypes
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""


def keep_memory(most: int = 256 << 20) -> None:
    """Has glibc keep up to `most` bytes that are freed, for what is allocated next.

    Else it gives the memory of each larger tensor back to the system, which clears every page before it is used again:
    a fifth of an update of SAC. Other libraries have no such switch, and nothing happens.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
        libc.mallopt(M_TRIM_THRESHOLD, most)


CGROUPS = Path("/sys/fs/cgroup")


def cpus(cgroups: Path = CGROUPS) -> int:
    """CPUs that this process may use: of those allowed, and of OMP_NUM_THREADS, which Ray sets to what it has reserved
    for an actor."""
    allowed, reserved = allowed_cpus(cgroups), os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(reserved)) if reserved.isdigit() and int(reserved) else allowed


def allowed_cpus(cgroups: Path = CGROUPS) -> int:
    """CPUs that the system lets this process and its children use: of its affinity and of its container's quota, whole
    ones, at least 1."""
    quotas = [quota for quota in (_quota(cgroups), _quota_v1(cgroups / "cpu")) if quota is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def _quota(cgroup: Path) -> float | None:
    """The CPUs of a quota of cgroup v2: `limit period`; None where there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(cgroup: Path) -> float | None:
    """The CPUs of a quota of cgroup v1, whose limit is -1 where there is none."""
    try:
        limit, period = (int((cgroup / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return limit / period if limit > 0 else None
