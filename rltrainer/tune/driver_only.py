"""Objects that stay in the process of the driver."""

from typing import Any, Self


class DriverOnly:
    """Ray Tune pickles what it is given, so as to go on from it one day. We go on from the journal: nothing is pickled
    of these, and a copy is the thing itself."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
