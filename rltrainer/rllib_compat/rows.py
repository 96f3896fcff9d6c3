"""What the tables of the classic RLlib's options are made of."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Settings = Mapping[str, Any]
"""Classic options by name; those of a group as group.name, such as model.fcnet_hiddens."""


def same(value: Any) -> Any:
    """The value itself."""
    return value


@dataclass(frozen=True)
class Row:
    """What becomes of one classic option."""

    fate: Literal["kept", "dropped", "refused", "apart"]
    """`apart` is what does not stand in spec.config here."""
    ours: str = ""
    note: str = ""
    value: Callable[[Any], Any] = same
    """The value here. Raises ValueError, in words, for one that cannot be kept."""
    harmless: tuple[Any, ...] = ()
    """Values that change nothing, and that nothing is said of."""


def kept(ours: str = "", note: str = "", value: Callable[[Any], Any] = same) -> Row:
    """An option that there is here too, under the name `ours` where that is another one."""
    return Row("kept", ours, note, value)


def dropped(note: str, *harmless: Any) -> Row:
    """An option without a counterpart whose absence does no harm."""
    return Row("dropped", note=note, harmless=harmless)


def all_dropped(note: str, *names: str, harmless: tuple[Any, ...] = ()) -> dict[str, Row]:
    """The rows of several options that are dropped for one reason."""
    return {name: dropped(note, *harmless) for name in names}


def refused(note: str, *harmless: Any) -> Row:
    """An option that would change the result, and cannot be kept."""
    return Row("refused", note=note, harmless=(None, *harmless))


def apart(ours: str, note: str = "") -> Row:
    """An option that stands in another part of the document, `ours`."""
    return Row("apart", ours, note)


class Values:
    """What the classic options are: as given, or RLlib's defaults.

    `over` are our options that a command line's go over; there, these are meant where nothing is given.
    """

    def __init__(self, given: Settings, defaults: Settings, over: Settings) -> None:
        self.given, self.defaults, self.over = given, defaults, over

    def __getitem__(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        return self.over[name] if name in SHARED and name in self.over else self.defaults.get(name)

    def has(self, *names: str) -> bool:
        """Whether any of `names` is given."""
        return any(name in self.given for name in names)

    def first(self, *names: str) -> Any:
        """The first of `names` that is given, or else has a default."""
        for source in (self.given, self.defaults):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    @property
    def workers(self) -> int:
        """Processes that sample, the learner's own where there are no others."""
        return max(1, int(self["num_workers"] or 0))

    @property
    def environments(self) -> int:
        """Environments of one worker."""
        return int(self["num_envs_per_worker"] or 1)

    @property
    def fixed_environments(self) -> bool:
        """Whether somebody has said how many environments a worker has."""
        return self.has("num_envs_per_worker") or "num_envs_per_worker" in self.over


SHARED = ("num_workers", "num_envs_per_worker")
"""Options that are the same here, and that others are reckoned from."""


@dataclass(frozen=True)
class Joint:
    """One of our options that several classic ones make."""

    ours: str
    sources: tuple[str, ...]
    value: Callable[[Values], Any]
    """Its value, None to leave it out. Raises ValueError, in words, for what cannot be kept."""
    note: str = ""


@dataclass(frozen=True)
class Classic:
    """An algorithm of the classic RLlib: what it is here, and what becomes of its options."""

    run: str
    rows: Mapping[str, Row]
    joints: tuple[Joint, ...] = ()
    defaults: Settings = field(default_factory=dict)
    """RLlib's own, where they matter: a file says only what it wants otherwise."""
    judged_greedily: bool = False
    """Whether its episode_reward_mean is of the workers that hardly explore."""

    @property
    def sources(self) -> set[str]:
        """The options that `joints` are made of."""
        return {source for joint in self.joints for source in joint.sources}


def constant(name: str) -> Joint:
    """An option that RLlib's newer versions let be a schedule too, where it is none."""
    return Joint(name, (name,), lambda v: None if isinstance(v[name], list) else v[name])


def schedule(name: str) -> Joint:
    """The schedule of such an option."""

    def value(v: Values) -> Any:
        return v[f"{name}_schedule"] or (v[name] if isinstance(v[name], list) else None)

    return Joint(f"{name}_schedule", (f"{name}_schedule", name), value)


def per(total: float, count: float) -> int:
    """`total` in equal parts for `count`, rounded up, at least 1."""
    return max(1, math.ceil(total / count))
