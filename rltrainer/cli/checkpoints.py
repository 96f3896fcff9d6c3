"""What the commands that take a CHECKPOINT share."""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrainer.api.experiment import Storage
from rltrainer.api.options import for_algorithm
from rltrainer.cli.common import UsageError, as_json, storage_arguments, storage_of
from rltrainer.rllib_compat import CLASSIC

EXPERIMENT = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?(/(best|latest))?")


def checkpoint_arguments(sub: argparse.ArgumentParser, optional: bool = False) -> None:
    """CHECKPOINT, and where and how it is found."""
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
    """What the policy is to be, where it acts, and how."""
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
    """What policy_arguments() found, as Request takes it; what was not given is left out. Raises UsageError, and
    OptionError for an algorithm that is not known."""
    config = as_json(arguments.config, "--config")
    given = {
        "run": None if arguments.run is None else _algorithm(arguments.run),
        "env": arguments.env,
        "deterministic": _deterministic(arguments.deterministic, config.pop("explore", None)),
        "env_config": {**config.pop("env_config", {}), **as_json(arguments.env_config, "--env-config")} or None,
        "config": config or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _algorithm(name: str) -> str:
    """Our name of an algorithm, by that or by RLlib's."""
    if name in CLASSIC:
        return CLASSIC[name].run
    for_algorithm(name)
    return name


def _deterministic(told: bool | None, explore: Any) -> bool | None:
    """Whether the best actions are taken, by the flags or by RLlib's option `explore`."""
    if explore not in (None, True, False) or (told is not None and explore is told):
        raise UsageError(f"--config explore {json.dumps(explore)}: give --deterministic or --stochastic instead")
    return told if explore is None else not explore


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is."""

    uri: str
    storage: Storage | None
    which: str

    def request(self) -> dict[str, Any]:
        """As Request takes it."""
        return {"checkpoint": self.uri, "storage": self.storage, "which": self.which}


def source_of(arguments: argparse.Namespace, *outputs: str | None) -> Source:
    """The checkpoint that the command line names. `outputs` are other URIs that are reached in the same way.

    Raises UsageError."""
    given, which = arguments.checkpoint, arguments.which or "best"
    if in_a_cluster(given):
        return _in_a_cluster(arguments, which)
    if arguments.namespace:
        raise UsageError("--namespace means something only with the name of an RLExperiment")
    return Source(given, storage_of(arguments, given, *outputs), which)


def _in_a_cluster(arguments: argparse.Namespace, which: str) -> Source:
    from rltrainer.cli import cluster  # noqa: PLC0415 - a second's import, that folders have no use for

    name, _, last = arguments.checkpoint.partition("/")
    try:
        uri, storage = cluster.connect(arguments.namespace).checkpoint(name, last or which)
    except UsageError as error:
        raise UsageError(f"there is no folder {arguments.checkpoint}, and {error}") from None
    told = storage_of(arguments, uri)
    if storage is None or told is None:
        return Source(uri, told, which)
    given = {field: value for field in ("endpoint", "region") if (value := getattr(told, field)) is not None}
    return Source(uri, storage.model_copy(update=given), which)


def in_a_cluster(given: str) -> bool:
    """Whether `given` can only be the name of an RLExperiment: it looks like one, and there is no such folder."""
    return bool(EXPERIMENT.fullmatch(given)) and not Path(given.partition("/")[0]).exists()
