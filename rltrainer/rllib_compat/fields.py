"""The fields of an RLlib experiment beside its config, in a document."""

import difflib
from collections.abc import Callable
from typing import Any

from rltrainer.api.base import DocumentError
from rltrainer.rllib_compat.metrics import METRICS, REWARD
from rltrainer.rllib_compat.rules import Content

FIELD_NAMES = {
    "run": "run",
    "env": "env; a grid_search makes one document for each",
    "config": "config, envConfig, evaluation",
    "stop": "stop",
    "num_samples": "tune.numSamples",
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
"""What each field is here, for docs/migrating.md."""
FIELD_ALIASES = {
    "alg": "run",
    "num_trials": "num_samples",
    "repeat": "num_samples",
    "resources": "resources_per_trial",
    "trial_resources": "resources_per_trial",
}
"""Other names of fields, of older versions."""
IGNORED_FIELDS = (
    *("pass_criteria", "verbose", "log_to_file", "loggers", "callbacks", "name", "trial_name_creator"),
    *("trial_dirname_creator", "sync_on_checkpoint", "sync_to_driver", "sync_to_cloud", "reuse_actors", "description"),
)
"""Fields that do not change a result."""
ARGUMENTS = {
    "local_dir": "local_dir",
    "storage_path": "local_dir",
    "restore": "restore",
    "export_formats": "export_formats",
}
"""Fields that only the command line has, and its arguments."""


def frequency(value: Any, spec: Content) -> None:
    """Set checkpoint_freq."""
    spec.setdefault("checkpoint", {})["frequency"] = value or 0


def at_end(value: Any, spec: Content) -> None:
    """Set checkpoint_at_end."""
    spec.setdefault("checkpoint", {})["atEnd"] = bool(value)


def keep(value: Any, spec: Content) -> None:
    """Set keep_checkpoints_num; null keeps all."""
    spec.setdefault("checkpoint", {})["keep"] = value or 0


def score_attribute(value: Any, spec: Content) -> None:
    """Set checkpoint_score_attr. Raises ValueError for an unknown metric."""
    prefix = "min-" if str(value).startswith("min-") else ""
    metric = METRICS.get(str(value).removeprefix("min-"))
    if metric is None:
        raise ValueError(f"checkpoints are not ranked by {value}: {REWARD} is what they are ranked by")
    spec.setdefault("checkpoint", {})["scoreAttribute"] = f"{prefix}{metric}"


def checkpoint_config(value: Content, spec: Content) -> None:
    """Set checkpoint_config, which newer versions have. Raises ValueError."""
    prefix = "min-" if value.get("checkpoint_score_order") == "min" else ""
    setters: dict[str, Callable[[Any, Content], None]] = {
        "checkpoint_frequency": frequency,
        "checkpoint_at_end": at_end,
        "num_to_keep": keep,
        "checkpoint_score_attribute": lambda metric, spec: score_attribute(f"{prefix}{metric}", spec),
        "checkpoint_score_order": lambda metric, spec: None,
    }
    for name, each in value.items():
        if name not in setters:
            raise ValueError(f"there is no {name}. Known: {', '.join(setters)}")
        setters[name](each, spec)


def restore(value: Any, spec: Content) -> None:
    """Set restore, where it is an S3 URI."""
    spec["restoreFrom"] = {"uri": value}


def resources_per_trial(value: Content, spec: Content) -> None:
    """Set the CPUs and GPUs of resources_per_trial, in a search. Raises TypeError."""
    if spec["tune"]:
        given = {name: value[name] for name in ("cpu", "gpu") if value.get(name)}
        for name, each in given.items():
            if not isinstance(each, int | float):
                raise TypeError(f"{name} takes a number, got {each}")
        spec["tune"]["resourcesPerTrial"] = given


def num_samples(value: Any, spec: Content) -> None:
    """Set num_samples."""
    if value != 1 or spec["tune"]:
        spec["tune"]["numSamples"] = value


def max_failures(value: Any, spec: Content) -> None:
    """Set max_failures; -1 is no limit."""
    spec["maxFailures"] = 1000 if value < 0 else value


def upload_dir(value: Any, spec: Content) -> None:
    """Set upload_dir. Raises ValueError unless it is in S3."""
    if not str(value).startswith("s3://"):
        raise ValueError(f"takes an s3:// URI, got {value}. Other stores often have an S3 gateway: storage.endpoint")
    spec["storage"] = {"uri": value}


def sync_config(value: Content, spec: Content) -> None:
    """Set the upload_dir of sync_config. Raises ValueError."""
    if value.get("upload_dir"):
        upload_dir(value["upload_dir"], spec)


FIELDS: dict[str, Callable[[Any, Content], None]] = {
    "checkpoint_freq": frequency,
    "checkpoint_at_end": at_end,
    "keep_checkpoints_num": keep,
    "checkpoint_score_attr": score_attribute,
    "checkpoint_config": checkpoint_config,
    "num_samples": num_samples,
    "max_failures": max_failures,
    "upload_dir": upload_dir,
    "sync_config": sync_config,
    "resources_per_trial": resources_per_trial,
}
"""The function that sets each field in a spec. Each raises ValueError, whose message says why, where it cannot."""

IN_S3: dict[str, Callable[[Any, Content], None]] = {"storage_path": upload_dir, "restore": restore}
"""The same for fields that are an argument of the command line unless they are an s3:// URI."""


def apply_field(name: str, value: Any, spec: Content, arguments: Content, where: str) -> str | None:
    """Set field `name` in the spec or the arguments, and return a note where it is ignored. Raises DocumentError."""
    in_s3 = str(value).startswith("s3://")
    if name in ARGUMENTS and not (in_s3 and name in IN_S3):
        arguments[ARGUMENTS[name]] = value
        return None
    setter = IN_S3.get(name) or FIELDS.get(name)
    if setter is None:
        if name in IGNORED_FIELDS:
            return f"{name} is left out: it changes nothing of a result"
        near = difflib.get_close_matches(name, FIELD_NAMES, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else f" Known: {', '.join(FIELD_NAMES)}"
        raise DocumentError(f'{where}: an experiment has no "{name}".{hint}')
    try:
        setter(value, spec)
    except (AttributeError, TypeError, ValueError) as error:
        raise DocumentError(f"{where}.{name}: {error}") from None
    if name == "resources_per_trial" and not spec["tune"]:
        return f"{name} is left out: Ray reserves what num_workers, num_cpus_per_worker and num_gpus say"
    return None
