"""Checks of what environments give: shapes as their spaces say, and numbers that are numbers."""

from typing import Any

import numpy as np

from rltrainer.core.fragment import Fragment
from rltrainer.core.types import Array


def check_shape(obs: Any, row: Array) -> None:
    """Raise ValueError unless observations [B, *shape] fit the row of a fragment that they are copied to.

    Without the check NumPy would repeat another shape until it fits.
    """
    if np.shape(obs) != row.shape:
        raise ValueError(f"observations have shape {np.shape(obs)[1:]}, where its space says {row.shape[1:]}")


def first_not_finite(fragment: Fragment, steps: int) -> tuple[int, str] | None:
    """Find an observation or reward among the first `steps` steps that is not finite.

    Returns its step and a description of it; None where all are finite.
    """
    for name, values in (("an observation", fragment.obs[1 : steps + 1]), ("a reward", fragment.r[:steps])):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            t, b = np.argwhere(~np.isfinite(values))[0, :2]
            return int(t), f"{name} of environment {b} is NaN or infinite"
    return None
