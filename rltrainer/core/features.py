"""What a run's options ask for. An algorithm without an option does not have the feature."""

from typing import Any

from rltrainer.api.options import Options


def option(options: Options, name: str, default: Any) -> Any:
    """Return option `name`, or `default` where the algorithm has no such option."""
    return getattr(options, name) if name in type(options).model_fields else default


def normalizes_rewards(options: Options) -> bool:
    """Return whether rewards are divided by the running deviation of the discounted return."""
    return bool(option(options, "normalize_rewards", False))
