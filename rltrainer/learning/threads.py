"""How many threads PyTorch gets in a process that learns. A small network is faster on one."""

import logging

import torch

from rltrainer.api.options import Options
from rltrainer.core.types import Spaces
from rltrainer.machine import cpus, keep_memory
from rltrainer.networks import is_image

log = logging.getLogger(__name__)

WIDE = 256
"""Units of a hidden layer from which on its products are worth splitting: a quarter more updates a second of SAC and
TD3 on two threads, a tenth of DQN."""
MOST = 4
"""Threads that products of a few hundred rows and columns are split over."""


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
