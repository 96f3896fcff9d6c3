"""A search over options on Ray Tune: `run` trains the trials of a document with `spec.tune`.

Ray Tune chooses what runs where and for how long. What a trial leaves behind is what a single run leaves, in a folder
of its own, and what the search knows stands in search.json: a search that was cut off goes on from these, never from
a pickle.
"""

from rltrainer.tune.driver import run
from rltrainer.tune.journal import Journal, TrialEntry

__all__ = ["Journal", "TrialEntry", "run"]
