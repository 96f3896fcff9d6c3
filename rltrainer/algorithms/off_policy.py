"""What the algorithms that learn from replay share: what happens around each step."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rltrainer.core.algorithm import LearnerAPI, Losses
from rltrainer.replay.buffer import Transitions

ReplayStep = Callable[..., tuple[Losses, Tensor]]
"""step(learner, batch, cfg): one gradient step; returns what to report, and the temporal differences [N]."""


def replay_update(step: ReplayStep, delayed: bool = False) -> Callable[[LearnerAPI, Transitions, Any], Any]:
    """Make an algorithm's update of its `step`.

    The step is counted and, on a GPU, recorded; every `target_update_freq` of them the targets move by `tau`. With
    `delayed` only every `policy_delay`-th step improves the policy, which a further argument tells it, and those alone
    count for the targets.
    """

    def update(learner: LearnerAPI, batch: Transitions, cfg: Any) -> tuple[Losses, Tensor]:
        updates, delay = learner.count_update(), cfg.policy_delay if delayed else 1
        settings = (updates % delay == 0,) if delayed else ()
        metrics, td_error = learner.recorded(step, batch, *settings)
        if updates % (delay * cfg.target_update_freq) == 0:
            learner.update_targets(cfg.tau)
        return metrics, td_error

    return update
