"""What a process that learns asks of the machine: how many threads PyTorch gets, and what becomes of freed memory.

A small network is faster on one thread, and a container has fewer CPUs than its node.
"""

import ctypes
import logging
import os
from pathlib import Path

import torch

from rltrainer.api.options import Options
from rltrainer.envs.source import Spaces
from rltrainer.networks import is_image

log = logging.getLogger(__name__)

WIDE = 256
"""Units of a hidden layer from which on its products are worth splitting: a quarter more updates a second of SAC and
TD3 on two threads, a tenth of DQN."""
MOST = 4
"""Threads that products of a few hundred rows and columns are split over."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""


def set_threads(options: Options, spaces: Spaces) -> None:
    """Sets PyTorch's threads in this process for networks of these options, and has it keep its memory."""
    keep_memory()
    there, threads = cpus(), 1
    if is_image(spaces.observations):
        threads = there
    elif max(options.hiddens, default=0) >= WIDE:
        threads = min(there, MOST)
    torch.set_num_threads(threads)
    log.info("PyTorch: %d of %d CPUs", threads, there)


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
