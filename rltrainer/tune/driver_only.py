"""Objects that stay in the process of the driver."""

from typing import Any, Self


class DriverOnly:
    """An object of which nothing is pickled, and of which a copy is the object itself.

    Ray Tune pickles what it is handed, so as to go on from it one day. We go on from the journal.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
