"""Sampling in proportion to weights that change: priorities, as a sum tree."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FANOUT = 32
"""Children of a node. Four levels hold a million leaves: with NumPy the number of calls counts, not the additions."""


class SumTree:
    """`size` weights, all 0 at first, with the sum of every group of them, of every group of groups, and so on.

    Changing or drawing k of n weights takes log n steps of k numbers each. A sum is always computed anew from what it
    is the sum of, so no error grows with time.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.levels: list[Floats] = []  # [groups, FANOUT] each: the leaves first, the root's children last
        while True:
            size = -(-size // FANOUT)
            self.levels.append(np.zeros((size, FANOUT)))
            if size == 1:
                break
        self._flat = [level.reshape(-1) for level in self.levels]

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.levels[-1].sum())

    def get(self, index: Indices) -> Floats:
        """Return the weights [N] at `index` [N]."""
        return self._flat[0][index]

    def set(self, index: Indices, weights: Floats) -> None:
        """Set `weights` [N], none below 0, at `index` [N]. Where an index stands twice, its last weight counts."""
        self._flat[0][index] = weights
        for children, parents in zip(self.levels, self._flat[1:], strict=False):
            index = index // FANOUT
            parents[index] = children[index].sum(1)

    def sample(self, masses: Floats) -> Indices:
        """Return the indices [N] where the running sum of the weights passes `masses` [N], from 0 to below the total.

        None has a weight of 0, however the sums were rounded, as long as the total is not 0.
        """
        group = np.zeros(len(masses), np.int64)
        rows = np.arange(len(masses))
        for level in reversed(self.levels):
            sums = level[group].cumsum(1)
            masses = np.minimum(masses, np.nextafter(sums[:, -1], 0))
            child = (sums > masses[:, None]).argmax(1)  # the first
            masses = masses - np.where(child > 0, sums[rows, child - 1], 0)
            group = group * FANOUT + child
        return group

    def weights(self) -> Floats:
        """Return all weights [size]: a view, to be copied or written before the next change."""
        return self._flat[0][: self.size]

    def load(self, weights: Floats) -> None:
        """Set all weights [size]."""
        self._flat[0][: self.size] = weights
        for below, above in pairwise(range(len(self.levels))):
            self._flat[above][: len(self.levels[below])] = self.levels[below].sum(1)
