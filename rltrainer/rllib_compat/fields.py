"""The fields of a named experiment beside its config, in a document."""

import difflib
from collections.abc import Callable
from typing import Any

from rltrainer.api.base import DocumentError
from rltrainer.rllib_compat.judging import METRICS, REWARD

Settings = dict[str, Any]

EXPERIMENT = {
    "run": "run",
    "env": "env; a grid_search makes one document for each",
    "config": "config, envConfig, evaluation",
    "stop": "stop",
    "num_samples": "tune.numSamples",
    "repeat": "tune.numSamples",
    "checkpoint_freq": "checkpoint.frequency",
    "checkpoint_at_end": "checkpoint.atEnd",
    "keep_checkpoints_num": "checkpoint.keep",
    "checkpoint_score_attr": "checkpoint.scoreAttribute",
    "checkpoint_config": "checkpoint",
    "max_failures": "maxFailures; of a search tune.maxFailures",
    "resources_per_trial": "tune.resourcesPerTrial",
    "upload_dir": "storage.uri",
    "storage_path": "storage.uri, or --local-dir where it is no s3:// URI",
    "sync_config": "storage.uri",
    "local_dir": "--local-dir",
    "restore": "restoreFrom.uri, or --restore where it is no s3:// URI; a checkpoint of RLlib cannot be read",
    "export_formats": "--export-formats",
}
"""What the fields of a named experiment are here, for docs/migrating.md."""
LEFT_OUT = (
    *("pass_criteria", "verbose", "log_to_file", "loggers", "callbacks", "name", "trial_name_creator"),
    *("trial_dirname_creator", "sync_on_checkpoint", "sync_to_driver", "sync_to_cloud", "reuse_actors", "description"),
)
"""Fields that change nothing of a result."""
ARGUMENTS = {
    "local_dir": "local_dir",
    "storage_path": "local_dir",
    "restore": "restore",
    "export_formats": "export_formats",
}
"""Fields that only mean something to the command line, and its arguments."""


def frequency(value: Any, spec: Settings) -> None:
    """checkpoint_freq."""
    spec.setdefault("checkpoint", {})["frequency"] = value or 0


def at_end(value: Any, spec: Settings) -> None:
    """checkpoint_at_end."""
    spec.setdefault("checkpoint", {})["atEnd"] = bool(value)


def keep(value: Any, spec: Settings) -> None:
    """keep_checkpoints_num; none keeps all."""
    spec.setdefault("checkpoint", {})["keep"] = value or 0


def score(value: Any, spec: Settings) -> None:
    """checkpoint_score_attr. Raises ValueError for a metric that there is not."""
    least = "min-" if str(value).startswith("min-") else ""
    metric = METRICS.get(str(value).removeprefix("min-"))
    if metric is None:
        raise ValueError(f"checkpoints are not ranked by {value}: {REWARD} is what they are ranked by")
    spec.setdefault("checkpoint", {})["scoreAttribute"] = f"{least}{metric}"


def checkpoint_config(value: Settings, spec: Settings) -> None:
    """checkpoint_config of newer versions. Raises ValueError."""
    order = "min-" if value.get("checkpoint_score_order") == "min" else ""
    ours: dict[str, Callable[[Any, Settings], None]] = {
        "checkpoint_frequency": frequency,
        "checkpoint_at_end": at_end,
        "num_to_keep": keep,
        "checkpoint_score_attribute": lambda metric, spec: score(f"{order}{metric}", spec),
        "checkpoint_score_order": lambda metric, spec: None,
    }
    for name, each in value.items():
        if name not in ours:
            raise ValueError(f"there is no {name}. Known: {', '.join(ours)}")
        ours[name](each, spec)


def restore(value: Any, spec: Settings) -> None:
    """restore, where it is an S3 URI."""
    spec["restoreFrom"] = {"uri": value}


def resources(value: Settings, spec: Settings) -> None:
    """resources_per_trial, of which a search takes CPUs and GPUs."""
    if spec["tune"]:
        spec["tune"]["resourcesPerTrial"] = {name: value[name] for name in ("cpu", "gpu") if value.get(name)}


def samples(value: Any, spec: Settings) -> None:
    """num_samples."""
    if value != 1 or spec["tune"]:
        spec["tune"]["numSamples"] = value


def failures(value: Any, spec: Settings) -> None:
    """max_failures; -1 has no end."""
    spec["maxFailures"] = 1000 if value < 0 else value


def uploads(value: Any, spec: Settings) -> None:
    """upload_dir. Raises ValueError for another place than S3."""
    if not str(value).startswith("s3://"):
        raise ValueError(f"takes an s3:// URI, got {value}. Other stores often have an S3 gateway: storage.endpoint")
    spec["storage"] = {"uri": value}


def sync(value: Settings, spec: Settings) -> None:
    """sync_config, of which upload_dir counts. Raises ValueError."""
    if value.get("upload_dir"):
        uploads(value["upload_dir"], spec)


FIELDS: dict[str, Callable[[Any, Settings], None]] = {
    "checkpoint_freq": frequency,
    "checkpoint_at_end": at_end,
    "keep_checkpoints_num": keep,
    "checkpoint_score_attr": score,
    "checkpoint_config": checkpoint_config,
    "num_samples": samples,
    "repeat": samples,
    "max_failures": failures,
    "upload_dir": uploads,
    "sync_config": sync,
    "resources_per_trial": resources,
}
"""What puts a field of an experiment into a spec. They raise ValueError, in words, for what cannot be."""

IN_S3: dict[str, Callable[[Any, Settings], None]] = {"storage_path": uploads, "restore": restore}
"""The same of fields that are an argument of the command line unless they are an s3:// URI."""


def put(name: str, value: Any, spec: Settings, arguments: Settings, where: str) -> str | None:
    """Puts field `name` where it belongs, and returns what to say of it, if anything. Raises DocumentError."""
    in_s3 = str(value).startswith("s3://")
    if name in ARGUMENTS and not (in_s3 and name in IN_S3):
        arguments[ARGUMENTS[name]] = value
        return None
    take = IN_S3.get(name) or FIELDS.get(name)
    if take is None:
        if name in LEFT_OUT:
            return f"{name} is left out: it changes nothing of a result"
        near = difflib.get_close_matches(name, EXPERIMENT, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else f" Known: {', '.join(EXPERIMENT)}"
        raise DocumentError(f'{where}: an experiment has no "{name}".{hint}')
    try:
        take(value, spec)
    except (AttributeError, TypeError, ValueError) as error:
        raise DocumentError(f"{where}.{name}: {error}") from None
    if name == "resources_per_trial" and not spec["tune"]:
        return f"{name} is left out: Ray reserves what num_workers, num_cpus_per_worker and num_gpus say"
    return None
