"""Where Ray runs, as the command line says; a module of its own so that saying it does not import Ray."""

from dataclasses import dataclass


@dataclass
class RaySettings:
    """The cluster that cluster.py joins or starts. None leaves it to what the run needs."""

    address: str | None = None
    """Of a cluster to join; RAY_ADDRESS where unset."""
    cpus: int | None = None
    """Of each node."""
    gpus: int | None = None
    """Of each node; more than the machine has are simulated by Ray."""
    nodes: int = 1
    """Emulated on this machine."""
    memory: int | None = None
    """Bytes that Ray hands out to tasks that reserve memory, of each node."""
    object_store_memory: int | None = None
    """Bytes of shared memory, of each node."""

    @property
    def configured(self) -> bool:
        """Return whether anything is set."""
        return self != RaySettings()


CURRENT = RaySettings()
"""The settings of this process."""
