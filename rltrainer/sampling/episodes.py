"""Episodes that go on from one fragment to the next: what they have returned so far, and how long they are."""

from typing import Any

import numpy as np

from rltrainer.core.fragment import Fragment
from rltrainer.core.types import Array, EpisodeReport
from rltrainer.ops.normalization import discounted_so_far


def done(fragment: Fragment) -> Array:
    """Return which episodes ended, either way, in which step: [T, B], bool."""
    return fragment.terminated | fragment.truncated


class EpisodeTracker:
    """The episodes under way in B environments."""

    def __init__(self, num_envs: int) -> None:
        """All B = `num_envs` environments begin an episode."""
        self.just_ended = np.zeros(num_envs, np.bool_)  # in the last step, so that the next only begins another
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, np.int64)
        self.discounted_returns = np.zeros(num_envs, np.float32)

    def ended_before(self, fragment: Fragment, t: int) -> Array:
        """Return the environments, [B] of bool, in which step `t` of a fragment not yet marked begins an episode."""
        return self.just_ended if t == 0 else fragment.terminated[t - 1] | fragment.truncated[t - 1]

    def mark_valid(self, fragment: Fragment) -> None:
        """Mark the steps that count in place. Those after the end of an episode only begin the next, and pay 0."""
        ended = done(fragment)
        fragment.valid[0], fragment.valid[1:] = ~self.just_ended, ~ended[:-1]
        fragment.r[~fragment.valid] = 0.0
        self.just_ended = ended[-1].copy()

    def report(self, fragment: Fragment) -> EpisodeReport:
        """Add a marked fragment to the episodes under way; return the returns and lengths of those that ended."""
        earned = self.returns + fragment.r.cumsum(0, dtype=np.float64)
        steps = self.lengths + fragment.valid.cumsum(0)
        report = EpisodeReport(int(fragment.valid.sum()))
        earned_before, steps_before = np.zeros_like(self.returns), np.zeros_like(self.lengths)
        for t, b in np.argwhere(done(fragment)):
            report.returns.append(float(earned[t, b] - earned_before[b]))
            report.lengths.append(int(steps[t, b] - steps_before[b]))
            earned_before[b], steps_before[b] = earned[t, b], steps[t, b]
        self.returns, self.lengths = earned[-1] - earned_before, steps[-1] - steps_before
        return report

    def discount(self, fragment: Fragment, gamma: float) -> Array:
        """Add a fragment to the discounted returns; return each episode's up to each step, [T, B]."""
        return discounted_so_far(fragment.r, done(fragment), gamma, self.discounted_returns)

    def state(self) -> dict[str, Any]:
        """Return arrays [B] that tracking goes on from."""
        return {
            "just_ended": self.just_ended.copy(),
            "running_return": self.returns.copy(),
            "running_length": self.lengths.copy(),
            "running_discounted": self.discounted_returns.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of as many environments."""
        self.just_ended = np.asarray(state["just_ended"])
        self.returns = np.asarray(state["running_return"])
        self.lengths = np.asarray(state["running_length"])
        self.discounted_returns = np.asarray(state["running_discounted"])
