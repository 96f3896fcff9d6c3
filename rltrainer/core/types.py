"""What the acting and the learning half say to each other, and what both take for granted."""

from dataclasses import dataclass, field
from typing import Any

import torch
from gymnasium import Space
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
CPU = torch.device("cpu")
Metrics = dict[str, float]
State = dict[str, Tensor]
"""What a policy remembers from step to step, [B, ...] by name: zeros where an episode begins."""
Tree = dict[str, Any]
"""Part of a checkpoint: dicts of dicts, lists, JSON values, tensors and arrays."""
Weights = dict[str, Any]
"""What a worker needs to act: `parameters`, one vector, and `buffers` by name, on the CPU; the run's `timesteps`."""


@dataclass(frozen=True)
class Spaces:
    """The spaces of one environment: what it shows and takes."""

    observations: Space[Any]
    """As they are stored: those of several parts are one vector."""
    actions: Space[Any]
    structure: Space[Any] | None = None
    """The Dict or Tuple that the vector was made from (layout.py says what lies where), else None."""


@dataclass
class EpisodeReport:
    """A fragment's report to the driver."""

    timesteps: int
    returns: list[float] = field(default_factory=list)
    """Returns of the episodes that ended, in the order in which they did."""
    lengths: list[int] = field(default_factory=list)
    notice: str = ""
    """Why the worker has not gone on from a checkpoint's state, in its first report since; else nothing."""
