"""Which backend the options and the machine ask for."""

import os
from collections.abc import Callable

import torch

from rltrainer.backend.base import Backend, log_devices
from rltrainer.backend.ray.settings import CURRENT as RAY
from rltrainer.backend.serial import SerialBackend
from rltrainer.sampling.worker import WorkerConfig


def open_backend(worker_config: WorkerConfig, check: Callable[[], None]) -> Backend:
    """Open the backend of a run; `check` is called while it waits, and may raise to abandon.

    It is this process alone, on its own GPU where the options ask for one; it is Ray where they ask for workers, or
    for a GPU that this process has not, or for one while a cluster is named.
    """
    options = worker_config.options
    cluster = RAY.configured or os.environ.get("RAY_ADDRESS")
    own_gpu = bool(options.num_gpus) and not cluster and torch.cuda.is_available()
    if options.num_workers or (options.num_gpus and not own_gpu):
        # Ray would start each worker by `uv run` where this process was, which installs the project anew and can hang.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        from rltrainer.backend.ray.backend import RayBackend  # noqa: PLC0415 - two seconds that a serial run has no use for

        return RayBackend(worker_config, check)
    if not own_gpu:
        return SerialBackend(worker_config, check)
    log_devices([torch.cuda.get_device_name()])
    return SerialBackend(worker_config, check, torch.device("cuda"))
