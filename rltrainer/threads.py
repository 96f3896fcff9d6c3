"""How many threads PyTorch gets: a small network is faster on one, and a container has fewer CPUs than its node."""

import os
from pathlib import Path

import torch

from rltrainer.envs import Spaces
from rltrainer.networks import is_image
from rltrainer.options import Options

WIDE = 512
"""Units of a hidden layer from which on its products are worth splitting."""


def set_threads(options: Options, spaces: Spaces) -> None:
    """Sets PyTorch's threads in this process for networks of these options."""
    large = is_image(spaces.observations) or max(options.hiddens, default=0) >= WIDE
    torch.set_num_threads(cpus() if large else 1)


def cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: of its affinity, and of its container's quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        return max(1, min(allowed, int(limit) // int(period)))
    except (OSError, ValueError):
        return allowed
