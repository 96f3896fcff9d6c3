"""Updates from a replay buffer that stands beside the learner: what goes in, and how many batches are due."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rltrainer.api.options import ReplayBuffer
from rltrainer.core.execution import REPLAY_BEGUN
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import Array
from rltrainer.errors import RunError
from rltrainer.replay.buffer import Replay, Transitions
from rltrainer.replay.shards import beta_at, load_replay, new_replay


class ReplayFeed:
    """A replay buffer, and the batches that a learner is fed from it."""

    def __init__(self, options: Any, device: torch.device, rng: torch.Generator) -> None:
        """Batches lie on `device` and are drawn with `rng`, the learner's."""
        self.options: ReplayBuffer = options
        self.device, self.rng = device, rng
        self.replay: Replay = new_replay(options, device)

    def add(self, fragments: Sequence[Fragment]) -> None:
        """Store one fragment of each worker, in the workers' order."""
        for stream, fragment in enumerate(fragments):
            self.replay.add(fragment, stream, fragment.priorities)

    def due(self, counters: dict[str, float], steps: int, timesteps: int) -> int:
        """Updates that are due after `steps` more steps, `timesteps` into the run without them; none before
        `learning_starts`, which counts from where the replay began empty. What is left of one update is carried over
        in the counter "due"."""
        begun = counters.setdefault(REPLAY_BEGUN, timesteps)
        if timesteps + steps - begun < self.options.learning_starts:
            return 0
        due = counters.get("due", 0.0) + steps * self.options.updates_per_step
        counters["due"] = due - int(due)
        return int(due)

    def batches(self, count: int, timesteps: int) -> Iterator[Transitions]:
        """Draw `count` batches, each when it is asked for: after the priorities of the one before are up to date."""
        beta = beta_at(self.options, timesteps)
        for _ in range(count):
            yield self.replay.sample(self.options.batch_size, self.rng, beta).to(self.device)

    def update_priorities(self, batch: Transitions, td_error: torch.Tensor | None) -> None:
        """Take an update's temporal differences [N] as the priorities of its batch, where replay is prioritized."""
        if self.options.prioritized:
            self.replay.update_priorities(batch.index, as_priorities(td_error))

    def load(self, state: dict[str, Any] | None, counters: dict[str, float]) -> None:
        """Go on from `Replay.state()`; begin empty, and say so, where that was of other workers or another size.

        None where there is none to go on from. `counters` are those that `due` goes on with.
        """
        held = None if state is None else load_replay(self.options, state, self.device)
        self.replay = new_replay(self.options, self.device) if held is None else held
        counters.setdefault(REPLAY_BEGUN, 0)  # older checkpoints do not say it
        if held is None:
            del counters[REPLAY_BEGUN]


def as_priorities(td_error: torch.Tensor | None) -> Array:
    """The sizes of temporal differences [N] as an array. Raises RunError, permanent, where an update gave none."""
    if td_error is None:
        raise RunError(
            "InvalidOption",
            "prioritized replay needs an update that returns temporal differences beside its metrics",
            permanent=True,
        )
    return td_error.detach().abs().cpu().numpy()
