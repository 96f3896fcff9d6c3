"""The Ray options of `rltrainer train`, and options of RLlib's that no longer do anything."""

import argparse
import sys

from rltrainer.backend.ray.settings import CURRENT
from rltrainer.cli.common import UsageError, natural, positive

REPLACED = {
    "eager": "--eager: updates run eagerly as it is; docs/performance.md says what compiling them would give. On a GPU "
    "cuda_graphs: false in --config has kernels launched one by one",
    "queue_trials": "--queue-trials: trials always wait for resources now, and a cluster that can grow grows for them",
    "ray_redis_max_memory": "--ray-redis-max-memory: Ray keeps its tables in its own head process now, without Redis; "
    "--ray-object-store-memory bounds what it holds of data",
}
"""What replaced an option: the note that is printed where it is used."""


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the arguments."""
    group.add_argument(
        "--ray-address", metavar="ADDRESS", help="Ray cluster to join; unset, RAY_ADDRESS or one is begun"
    )
    group.add_argument("--ray-num-cpus", type=positive, metavar="N", help="CPUs of each node that is begun")
    group.add_argument("--ray-num-gpus", type=natural, metavar="N", help="GPUs of each node that is begun")
    group.add_argument("--ray-num-nodes", type=positive, metavar="N", help="nodes to emulate on this machine (1)")
    group.add_argument(
        "--ray-memory", type=positive, metavar="BYTES", help="memory that tasks may reserve on each node"
    )
    group.add_argument(
        "--ray-object-store-memory", type=positive, metavar="BYTES", help="shared memory of each node (512 MiB)"
    )
    group.add_argument("--eager", action="store_true", default=None, help="as it always is now; says so")
    group.add_argument("--queue-trials", action="store_true", default=None, help="as it always is now; says so")
    group.add_argument("--ray-redis-max-memory", type=positive, metavar="BYTES", help="gone with Redis; says so")


def apply(arguments: argparse.Namespace, uses_ray: bool) -> None:
    """Apply the settings; `uses_ray` is whether the run needs Ray. Raises UsageError."""
    for name, note in REPLACED.items():
        if getattr(arguments, name) is not None:
            sys.stderr.write(f"note: {note}\n")
    settings = CURRENT
    settings.address, settings.cpus, settings.gpus = (
        arguments.ray_address,
        arguments.ray_num_cpus,
        arguments.ray_num_gpus,
    )
    settings.nodes = arguments.ray_num_nodes or 1
    settings.memory, settings.object_store_memory = arguments.ray_memory, arguments.ray_object_store_memory
    if settings.address and (settings.cpus or settings.gpus or settings.nodes > 1 or settings.memory):
        raise UsageError(
            "--ray-address joins a cluster as it is: the other --ray options are for one that is begun here"
        )
    if settings.configured and not uses_ray:
        raise UsageError("the --ray options need a run that uses Ray: set num_workers in --config, or search")
