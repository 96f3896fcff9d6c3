"""Which backend the options and the machine ask for."""

import logging
import os
from collections.abc import Callable

import torch

from rltrainer.backend.base import Backend
from rltrainer.backend.ray.settings import CURRENT as RAY
from rltrainer.backend.serial import SerialBackend
from rltrainer.sampling.worker import WorkerConfig

log = logging.getLogger(__name__)


def open_backend(worker_config: WorkerConfig, check: Callable[[], None]) -> Backend:
    """This process alone, on its own GPU where the options ask for one; Ray where they ask for workers, or for a GPU
    that this process has not, or where a cluster is named."""
    options = worker_config.options
    cluster = RAY.given or os.environ.get("RAY_ADDRESS")
    here = bool(options.num_gpus) and not cluster and torch.cuda.is_available()
    if options.num_workers or (options.num_gpus and not here):
        # Ray would start each worker by `uv run` where this process was, which installs the project anew and can hang.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        from rltrainer.backend.ray.backend import RayBackend  # noqa: PLC0415 - two seconds that a serial run has no use for

        return RayBackend(worker_config, check)
    if not here:
        return SerialBackend(worker_config, check)
    log.info("learning on a GPU: %s", torch.cuda.get_device_name())
    return SerialBackend(worker_config, check, torch.device("cuda"))
