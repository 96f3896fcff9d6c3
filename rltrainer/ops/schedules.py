"""Options that change over time."""

from bisect import bisect_right


def at(schedule: list[list[float]] | None, constant: float, timestep: int) -> float:
    """The value at `timestep` of [timestep, value] points, linear between them and constant outside.

    Without a schedule, `constant`.
    """
    if not schedule:
        return constant
    right = bisect_right([point[0] for point in schedule], timestep)
    if right == 0:
        return schedule[0][1]
    if right == len(schedule):
        return schedule[-1][1]
    (t0, v0), (t1, v1) = schedule[right - 1], schedule[right]
    return v0 + (v1 - v0) * (timestep - t0) / (t1 - t0)
