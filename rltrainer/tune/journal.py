"""search.json: what a search has decided and seen. Written whole, so that at any instant it can be gone on from."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rltrainer.api.options import complaint
from rltrainer.api.status import BestTrial, CheckpointRef, TrialCounts
from rltrainer.errors import RunError
from rltrainer.storage.files import write_json
from rltrainer.storage.paths import SEARCH, FileName

Status = Literal["pending", "running", "terminated", "failed"]
DONE = ("terminated", "failed")
COUNTERS = ("training_iteration", "timesteps_total", "episodes_total", "time_total_s")
"""How far a trial has come: under these names it reports it, and an entry has it."""


class TrialEntry(BaseModel):
    """One trial."""

    model_config = ConfigDict(extra="ignore")

    number: int
    name: FileName
    """Its folder's too."""
    options: dict[str, Any]
    """Those searched over; a population-based search changes them."""
    status: Status = "pending"
    stopped_by: str | None = None
    """What ended it, in words."""
    reward: float | None = None
    """The metric that trials are compared by, as reported last."""
    training_iteration: int = 0
    timesteps_total: int = 0
    episodes_total: int = 0
    time_total_s: float = 0.0
    checkpoint: CheckpointRef | None = None
    """Its newest complete checkpoint."""
    best_checkpoint: CheckpointRef | None = None
    """Its best one."""

    @property
    def done(self) -> bool:
        """Return whether nothing more is to be run of it."""
        return self.status in DONE


class Journal(BaseModel):
    """All trials so far, in the order of their numbers."""

    model_config = ConfigDict(extra="ignore")

    metric: str
    mode: Literal["max", "min"]
    trials: list[TrialEntry] = Field(default_factory=list)

    def next_number(self) -> int:
        """Return the number after the last trial's."""
        return self.trials[-1].number + 1 if self.trials else 0

    def add(self, prefix: str, options: dict[str, Any], number: int | None = None) -> TrialEntry:
        """Add a trial, with the next number unless another is given."""
        number = self.next_number() if number is None else number
        entry = TrialEntry(number=number, name=trial_name(prefix, number), options=options)
        self.trials = sorted([*self.trials, entry], key=lambda each: each.number)
        return entry

    def numbered(self, number: int) -> TrialEntry | None:
        """Return the trial of that number, if there is one."""
        return next((entry for entry in self.trials if entry.number == number), None)

    def named(self, name: str) -> TrialEntry:
        """Return the trial of that name."""
        return next(entry for entry in self.trials if entry.name == name)

    def limit(self, expected: int) -> None:
        """Leave out trials that have not begun, where a search is now to have `expected` ones and no more."""
        self.trials = [entry for entry in self.trials if entry.number < expected or entry.status != "pending"]

    def remaining(self) -> list[TrialEntry]:
        """Return the trials that are not done."""
        return [entry for entry in self.trials if not entry.done]

    def best(self) -> TrialEntry | None:
        """Return the trial that the metric puts first, by its last report."""
        rewards = [(entry.reward, entry) for entry in self.trials if entry.reward is not None]
        sign = 1 if self.mode == "max" else -1
        return max(rewards, key=lambda pair: sign * pair[0], default=(0.0, None))[1]

    def counts(self, expected: int) -> TrialCounts:
        """Count the trials by status; those of `expected` that have no entry yet are pending."""
        counts: dict[str, int] = {"pending": max(0, expected - len(self.trials))}
        for entry in self.trials:
            counts[entry.status] = counts.get(entry.status, 0) + 1
        done = sum(counts.get(status, 0) for status in DONE)
        return TrialCounts(**counts, done=f"{done}/{sum(counts.values())}")

    def best_trial(self) -> BestTrial | None:
        """Return the best trial as a status names it."""
        best = self.best()
        if best is None or best.reward is None:
            return None
        return BestTrial(trial=best.name, options=best.options, reward=best.reward, checkpoint=best.best_checkpoint)

    def write(self, folder: Path) -> Path:
        """Write search.json, whole or not at all."""
        content = self.model_dump(mode="json", exclude_none=True)
        best = self.best()
        write_json(folder / SEARCH, {"best": best.name if best else None, **content})
        return folder / SEARCH


def read(path: Path) -> Journal | None:
    """Read the journal at `path`, if there is one. Raises RunError, permanent, where it is none, or names a trial by
    anything but a name of a folder."""
    try:
        return Journal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        message = f"{complaint(error, f'{path}: ', Journal)}. Move it aside to begin the search anew"
        raise RunError("SearchUnreadable", message, permanent=True) from None


def trial_name(prefix: str, number: int) -> str:
    """Return the name of a trial, and of its folder."""
    return f"{prefix}_{number:05d}"
