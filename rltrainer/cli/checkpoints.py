"""Arguments of the commands that take a CHECKPOINT."""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrainer.api.experiment import Storage
from rltrainer.api.options import for_algorithm
from rltrainer.cli.common import UsageError, as_json, storage_arguments, storage_of
from rltrainer.rllib_compat import ALGORITHMS

EXPERIMENT_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?(/(best|latest))?")


def checkpoint_arguments(sub: argparse.ArgumentParser, optional: bool = False) -> None:
    """Add CHECKPOINT and the options that locate it."""
    sub.add_argument(
        "checkpoint",
        nargs="?" if optional else None,
        metavar="CHECKPOINT",
        help="a checkpoint, a run or a search, as a folder or an s3:// URI, or the name of an RLExperiment in the "
        "current cluster; RUN/best and RUN/latest say which of a run's",
    )
    sub.add_argument("--which", choices=("best", "latest"), help="which checkpoint of a run (best)")
    storage_arguments(sub)
    sub.add_argument("-n", "--namespace", metavar="NAME", help="namespace of the RLExperiment (the context's)")


def policy_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options that say which policy acts, in which environment, and how."""
    sub.add_argument("--run", metavar="ALGORITHM", help="refuse the checkpoint if it is of another algorithm")
    sub.add_argument("--env", metavar="NAME", help="environment instead of the one trained in, with the same spaces")
    sub.add_argument("--env-config", metavar="JSON", help="arguments of the environment, over those trained with")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "--deterministic", dest="deterministic", action="store_true", default=None, help="best action (default)"
    )
    how.add_argument("--stochastic", dest="deterministic", action="store_false", help="actions as in training")
    sub.add_argument(
        "--config",
        metavar="JSON",
        help="with --stochastic: options that say how actions explore, over the checkpoint's, as in "
        "'{\"exploration_sigma\": 0.2}'. RLlib's explore and env_config are understood",
    )


def policy_request(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values of policy_arguments() as keyword arguments of Request, without those that are not set.

    Raises UsageError, and OptionError for an unknown algorithm.
    """
    config = as_json(arguments.config, "--config")
    request = {
        "run": None if arguments.run is None else _algorithm(arguments.run),
        "env": arguments.env,
        "deterministic": _deterministic(arguments.deterministic, config.pop("explore", None)),
        "env_config": {**config.pop("env_config", {}), **as_json(arguments.env_config, "--env-config")} or None,
        "config": config or None,
    }
    return {name: value for name, value in request.items() if value is not None}


def _algorithm(name: str) -> str:
    """Return our name of an algorithm, for that or RLlib's. Raises OptionError."""
    if name in ALGORITHMS:
        return ALGORITHMS[name].run
    for_algorithm(name)
    return name


def _deterministic(flag: bool | None, explore: Any) -> bool | None:
    """Whether the best actions are taken: by the flags, or by RLlib's option `explore`."""
    if explore not in (None, True, False) or (flag is not None and explore is flag):
        raise UsageError(f"--config explore {json.dumps(explore)}: give --deterministic or --stochastic instead")
    return flag if explore is None else not explore


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies."""

    uri: str
    storage: Storage | None
    which: str

    def request(self) -> dict[str, Any]:
        """Return it as keyword arguments of Request."""
        return {"checkpoint": self.uri, "storage": self.storage, "which": self.which}


def source_of(arguments: argparse.Namespace, *outputs: str | None) -> Source:
    """Return the checkpoint that the command line names. `outputs` are other URIs in the same storage.

    Raises UsageError.
    """
    checkpoint, which = arguments.checkpoint, arguments.which or "best"
    if is_experiment_name(checkpoint):
        return _from_cluster(arguments, which)
    if arguments.namespace:
        raise UsageError("--namespace means something only with the name of an RLExperiment")
    return Source(checkpoint, storage_of(arguments, checkpoint, *outputs), which)


def _from_cluster(arguments: argparse.Namespace, which: str) -> Source:
    """Return the checkpoint of an RLExperiment in the cluster. Raises UsageError."""
    from rltrainer.cli import cluster  # noqa: PLC0415 - it takes a second, which folders need not wait for

    name, _, last = arguments.checkpoint.partition("/")
    try:
        uri, storage = cluster.connect(arguments.namespace).checkpoint(name, last or which)
    except UsageError as error:
        raise UsageError(f"there is no folder {arguments.checkpoint}, and {error}") from None
    from_flags = storage_of(arguments, uri)
    if storage is None or from_flags is None:
        return Source(uri, from_flags, which)
    overrides = {field: value for field in ("endpoint", "region") if (value := getattr(from_flags, field)) is not None}
    return Source(uri, storage.model_copy(update=overrides), which)


def is_experiment_name(text: str) -> bool:
    """Whether `text` can only be the name of an RLExperiment: it has the form of one, and there is no such folder."""
    return bool(EXPERIMENT_NAME.fullmatch(text)) and not Path(text.partition("/")[0]).exists()
