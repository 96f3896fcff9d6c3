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


def cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: of its affinity, of OMP_NUM_THREADS, which Ray sets to what it has reserved for
    an actor, and of its container's quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0))
    reserved = os.environ.get("OMP_NUM_THREADS", "")
    allowed = min(allowed, int(reserved)) if reserved.isdigit() and int(reserved) else allowed
    try:
        limit, period = quota.read_text().split()
        return max(1, min(allowed, int(limit) // int(period)))
    except (OSError, ValueError):
        return allowed
