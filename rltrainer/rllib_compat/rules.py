"""The vocabulary of the translation tables: a rule says what becomes of one of RLlib's options."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RLlibOptions = Mapping[str, Any]
"""RLlib's options by name; those of a group as group.name, such as model.fcnet_hiddens."""
Content = dict[str, Any]
"""A document, or a part of one, as YAML has it."""


def unchanged(value: Any) -> Any:
    """Return the value as it is."""
    return value


@dataclass(frozen=True)
class Rule:
    """The fate of one of RLlib's options."""

    kind: Literal["keep", "ignore", "reject", "move"]
    target: str = ""
    """Our option, empty where the name is the same; of a moved option the field of spec."""
    note: str = ""
    """The reason, for notes, errors and docs/migrating.md."""
    convert: Callable[[Any], Any] = unchanged
    """Our value for RLlib's. Raises ValueError, whose message says why, for one that has none."""
    no_effect: tuple[Any, ...] = ()
    """Values that change nothing and need no note."""


def keep(note: str = "", convert: Callable[[Any], Any] = unchanged) -> Rule:
    """Keep an option that has the same name here."""
    return Rule("keep", "", note, convert)


def rename(target: str, note: str = "", convert: Callable[[Any], Any] = unchanged) -> Rule:
    """Keep an option that is called `target` here."""
    return Rule("keep", target, note, convert)


def ignore(note: str, *no_effect: Any) -> Rule:
    """Leave out an option that has no counterpart and needs none."""
    return Rule("ignore", note=note, no_effect=no_effect)


def ignore_all(note: str, *names: str, no_effect: tuple[Any, ...] = ()) -> dict[str, Rule]:
    """Leave out several options for one reason."""
    return {name: ignore(note, *no_effect) for name in names}


def reject(note: str, *no_effect: Any) -> Rule:
    """Refuse an option that would change the result and cannot be translated."""
    return Rule("reject", note=note, no_effect=(None, *no_effect))


def move(target: str, note: str = "") -> Rule:
    """Move an option out of spec.config, to spec.`target`."""
    return Rule("move", target, note)


class OptionValues:
    """RLlib's options with their defaults: the values that a computed option is made of.

    `over` are our options that a command line's stand beside; of `SHARED_OPTIONS` they come before the defaults.
    """

    def __init__(self, values: RLlibOptions, defaults: RLlibOptions, over: Mapping[str, Any]) -> None:
        self.values, self.defaults, self.over = values, defaults, over

    def __getitem__(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        ours = (self.over[each] for each in SHARED_OPTIONS.get(name, ()) if self.over.get(each) is not None)
        return next(ours, self.defaults.get(name))

    def has(self, *names: str) -> bool:
        """Whether any of `names` is set."""
        return any(name in self.values for name in names)

    def first(self, *names: str) -> Any:
        """Return the first of `names` that is set, or else the first that has a default."""
        for source in (self.values, self.defaults):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    @property
    def num_workers(self) -> int:
        """Processes that sample; the learner's own where there are no others."""
        return max(1, int(self["num_workers"] or 0))

    @property
    def num_envs(self) -> int:
        """Environments of one worker."""
        return int(self["num_envs_per_worker"] or 1)

    @property
    def num_envs_is_set(self) -> bool:
        """Whether the file or the options below it set the environments of a worker."""
        return self.has("num_envs_per_worker") or "num_envs_per_worker" in self.over


SHARED_OPTIONS = {
    "num_workers": ("num_workers",),
    "num_envs_per_worker": ("num_envs_per_worker",),
    "rollout_fragment_length": ("rollout_fragment_length",),
    "train_batch_size": ("train_batch_size", "batch_size"),
    "lambda": ("lambda",),
    "noisy": ("noisy",),
    "n_step": ("n_step",),
}
"""Options that others are computed from and that mean the same here, with our names."""


@dataclass(frozen=True)
class Computed:
    """One of our options, computed from several of RLlib's."""

    target: str
    sources: tuple[str, ...]
    value: Callable[[OptionValues], Any]
    """Our value, None to leave the option out. Raises ValueError, whose message says why, where there is none."""
    note: str = ""
    deciding: tuple[str, ...] = ()
    """Those of the sources that a command line must give for the option to change; empty for any of them.

    A file is completed by RLlib's defaults. A command line stands over options of ours, which one name of RLlib's
    must not replace by a default that belongs to another.
    """


def share_of_batch(v: OptionValues) -> int:
    """Return the fragment that "auto" means: an equal share of train_batch_size for each environment."""
    return ceil_div(int(v["train_batch_size"] or 200), v.num_workers * v.num_envs)


@dataclass(frozen=True)
class AlgorithmRules:
    """One of RLlib's algorithms: what it is called here, and the rules of its options."""

    run: str
    rules: Mapping[str, Rule]
    computed: tuple[Computed, ...] = ()
    defaults: RLlibOptions = field(default_factory=dict)
    """RLlib's defaults, where ours differ: a file says only what differs from them."""
    reward_is_greedy: bool = False
    """Whether its episode_reward_mean is of the workers that hardly explore."""
    fragment: Callable[[OptionValues], int] = share_of_batch
    """The rollout_fragment_length that "auto" means."""

    @property
    def sources(self) -> set[str]:
        """The options that the computed ones are made of."""
        return {source for computed in self.computed for source in computed.sources}

    def knows(self, name: str) -> bool:
        """Whether RLlib's algorithm has option `name`."""
        return name in self.rules or name in self.sources

    def deciding(self, target: str) -> list[str]:
        """Return the options of RLlib's that are option `target` here."""
        renamed = [name for name, rule in self.rules.items() if rule.kind == "keep" and (rule.target or name) == target]
        computed = (each.deciding or each.sources for each in self.computed if each.target == target)
        return [*renamed, *(source for sources in computed for source in sources)]


def constant(name: str) -> Computed:
    """An option that newer versions of RLlib also let be a schedule: its value where it is none."""
    return Computed(name, (name,), lambda v: None if isinstance(v[name], list) else v[name])


def schedule(name: str) -> Computed:
    """The schedule of an option, under `<name>_schedule` or under its own name."""

    def value(v: OptionValues) -> Any:
        return v[f"{name}_schedule"] or (v[name] if isinstance(v[name], list) else None)

    return Computed(f"{name}_schedule", (f"{name}_schedule", name), value)


def ceil_div(total: float, parts: float) -> int:
    """Return `total` over `parts`, rounded up, at least 1."""
    return max(1, math.ceil(total / parts))
