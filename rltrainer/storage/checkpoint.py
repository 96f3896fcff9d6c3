"""Checkpoints on disk: safetensors and JSON, and a manifest with checksums that is written last.

A folder `checkpoint_000010` holds `manifest.json`, `state.json` and one `.safetensors` file for each part of the state
that has arrays. It comes into being by a rename, after everything in it has reached the disk; a folder without a valid
manifest is no checkpoint. In storage the files lie one folder deeper, by what they hold: see sync.py.
"""

import errno
import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rltrainer.core.types import Tree
from rltrainer.storage.files import sync_to_disk
from rltrainer.storage.paths import FileName

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
TENSOR = "$tensor"
REFUSED = "refused_"
"""What the name of a broken checkpoint begins with, once a run has found it to be one."""


class CorruptCheckpointError(Exception):
    """A folder that is no checkpoint, or no longer; the message names the file."""


Finite = Annotated[float, Field(allow_inf_nan=False)]


class OtherFormatError(CorruptCheckpointError):
    """A checkpoint of a later version of rltrainer: not broken, and not for this one."""


class FileEntry(BaseModel):
    """One file of a checkpoint."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """Contents of a checkpoint, and how the run stood."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int
    iteration: int = Field(ge=0)
    timesteps_total: int = Field(ge=0)
    metrics: dict[str, Finite | None] = Field(default_factory=dict)
    """Numbers that checkpoints are ranked by."""
    files: dict[FileName, FileEntry]

    @property
    def name(self) -> str:
        """The folder's name."""
        return folder_name(self.iteration)

    @property
    def generation(self) -> str:
        """The folder, below the checkpoint's own, that its files have in storage: another one for other contents."""
        contents = json.dumps({name: entry.sha256 for name, entry in self.files.items()}, sort_keys=True)
        return hashlib.sha256(contents.encode()).hexdigest()[:16]


def folder_name(iteration: int) -> str:
    """Return the name of the checkpoint after `iteration`; names sort as iterations do, up to a million of them."""
    return f"checkpoint_{iteration:06d}"


def write(root: Path, tree: Tree, iteration: int, timesteps: int, metrics: dict[str, float | None]) -> Path:
    """Write `tree` as the checkpoint after `iteration` below `root` and returns its folder. Raises OSError."""
    target = root / folder_name(iteration)
    root.mkdir(parents=True, exist_ok=True)
    building = root / f".{target.name}.part"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        _fill(building, tree, iteration, timesteps, metrics)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(building, ignore_errors=True)  # of a full disk it would keep the last of the room
        if isinstance(error, OSError):
            raise
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(target)) from error
    install(building, target)
    return target


def _fill(building: Path, tree: Tree, iteration: int, timesteps: int, metrics: dict[str, float | None]) -> None:
    """Write the files of a checkpoint, manifest last, and wait until they are on the disk."""
    names = _write_parts(building, tree)
    files = {name: FileEntry(size=(building / name).stat().st_size, sha256=digest(building / name)) for name in names}
    manifest = Manifest(format=FORMAT, iteration=iteration, timesteps_total=timesteps, metrics=metrics, files=files)
    (building / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    for name in (*names, MANIFEST):
        sync_to_disk(building / name)
    sync_to_disk(building)


def install(building: Path, target: Path) -> None:
    """Rename a finished folder to the name it is found by. What was there before is gone, whole or broken."""
    if target.exists():
        (target / MANIFEST).unlink(missing_ok=True)  # first, so that half of a folder is never taken for one
        shutil.rmtree(target)
    building.rename(target)
    sync_to_disk(target.parent)


def _write_parts(folder: Path, tree: Tree) -> list[str]:
    plain: Tree = {}
    names = [STATE]
    for part, value in tree.items():
        tensors: dict[str, Tensor] = {}
        plain[part] = _split(value, "", tensors)
        if tensors:
            save_file(tensors, folder / f"{part}.safetensors")
            names.append(f"{part}.safetensors")
    (folder / STATE).write_text(json.dumps(plain))
    return names


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with its arrays replaced by references to `tensors`, which are filled here."""
    match value:
        case dict():
            return {str(key): _split(each, f"{path}/{key}", tensors) for key, each in value.items()}
        case list() | tuple():
            return [_split(each, f"{path}/{i}", tensors) for i, each in enumerate(value)]
        case np.generic():
            return value.item()
        case np.ndarray():
            tensors[path] = torch.from_numpy(np.array(value, order="C"))  # a copy: Ray's arrays are read-only
        case Tensor():
            tensors[path] = value.detach().cpu().contiguous().clone()
        case _:
            return value
    return {TENSOR: path, "numpy": isinstance(value, np.ndarray)}


def read(folder: Path) -> tuple[Manifest, Tree]:
    """Read the manifest and the state in `folder`. Raises CorruptCheckpointError."""
    manifest = verify(folder)
    return manifest, _parts(folder, manifest, None)


def read_policy(folder: Path) -> tuple[Manifest, Tree]:
    """Read only what acting needs: the parts `policy` and `run`. Raises CorruptCheckpointError."""
    manifest = verify(folder, only=(STATE, "policy.safetensors"))
    return manifest, _parts(folder, manifest, ("policy", "run"))


def _parts(folder: Path, manifest: Manifest, only: tuple[str, ...] | None) -> Tree:
    """Read the parts of the state, or those of `only`. Whatever is odd about them is a CorruptCheckpointError."""
    try:
        plain = json.loads(file_of(folder, manifest, STATE).read_text())
        parts = {part: _join(plain[part], _tensors(folder, part, manifest)) for part in only or plain}
    except (ValueError, LookupError, TypeError, OSError, RecursionError, SafetensorError) as error:
        raise CorruptCheckpointError(f"{folder}: {type(error).__name__}: {error}") from error
    if odd := [part for part, value in parts.items() if not isinstance(value, dict)]:
        raise CorruptCheckpointError(f"{folder}: {odd[0]} is no object")
    return parts


def _tensors(folder: Path, part: str, manifest: Manifest) -> dict[str, Tensor]:
    name = f"{part}.safetensors"
    return load_file(file_of(folder, manifest, name)) if name in manifest.files else {}


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        tensor = tensors[value[TENSOR]]
        return tensor.numpy() if value["numpy"] else tensor
    return {key: _join(each, tensors) for key, each in value.items()}


def file_of(folder: Path, manifest: Manifest, name: str) -> Path:
    """Return the path of file `name` of a checkpoint: in its folder, or as storage has it, where that was copied."""
    as_stored = folder / manifest.generation / name
    return as_stored if as_stored.exists() else folder / name


def manifest_of(folder: Path) -> Manifest:
    """Read the manifest in `folder`, its files not looked at. Raises CorruptCheckpointError."""
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    except OSError as error:
        raise CorruptCheckpointError(f"{folder / MANIFEST}: {error.strerror}") from error


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Parse a manifest from its file's content. Raises CorruptCheckpointError that names `where`."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        paths = [str(problem["loc"][1]) for problem in error.errors() if problem["loc"][-1:] == ("[key]",)]
        why = f"names {paths[0]!r}, which is no name of a file" if paths else f"has {error.error_count()} errors"
        raise CorruptCheckpointError(f"{where}/{MANIFEST} is not valid: it {why}") from error
    if MANIFEST in manifest.files:
        raise CorruptCheckpointError(f"{where}/{MANIFEST} is not valid: it names itself")
    if manifest.format != FORMAT:
        raise OtherFormatError(
            f"{where}/{MANIFEST} is of format {manifest.format}, and this rltrainer reads format {FORMAT}"
        )
    return manifest


def verify(folder: Path, only: tuple[str, ...] = ()) -> Manifest:
    """Return the manifest of `folder`, once every file (or those of `only`) has the size and checksum it states.

    Raises CorruptCheckpointError that names the first that does not.
    """
    manifest = manifest_of(folder)
    for name, entry in manifest.files.items():
        if not only or name in only:
            check_file(file_of(folder, manifest, name), entry)
    return manifest


def check_file(path: Path, entry: FileEntry) -> None:
    """Raise CorruptCheckpointError unless the file at `path` is the one that `entry` describes."""
    try:
        size, checksum = path.stat().st_size, digest(path)
    except OSError as error:
        raise CorruptCheckpointError(f"{path}: {error.strerror}") from error
    if size != entry.size:
        raise CorruptCheckpointError(f"{path} has {size} bytes, and {entry.size} were written")
    if checksum != entry.sha256:
        raise CorruptCheckpointError(f"{path} was changed after it was written: its checksum differs")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifests_in(root: Path) -> list[Manifest]:
    """Read the manifests of the checkpoints below `root`, oldest first; their files are not looked at."""
    return survey(root)[0]


def survey(root: Path) -> tuple[list[Manifest], list[Path]]:
    """Read the manifests below `root`, oldest first, and list the folders whose manifest is broken.

    A folder without a manifest was never finished, or is half deleted: it is neither.
    """
    manifests, broken = [], []
    for path in sorted(root.glob("checkpoint_*")):
        try:
            manifests.append(named(manifest_of(path), path.name, str(root)))
        except CorruptCheckpointError as error:
            log.warning("not a checkpoint: %s", error)
            if (path / MANIFEST).exists():
                broken.append(path)
    return sorted(manifests, key=lambda manifest: manifest.iteration), broken


def named(manifest: Manifest, name: str, where: str) -> Manifest:
    """Return the manifest of checkpoint `name` in `where`. Raises CorruptCheckpointError if it is of another name."""
    if manifest.name != name:
        raise CorruptCheckpointError(f"{where}/{name}/{MANIFEST} is not valid: it is that of {manifest.name}")
    return manifest


def of_later_version(folder: Path) -> bool:
    """Return whether a checkpoint is of a format that only a later version reads."""
    try:
        manifest_of(folder)
    except OtherFormatError:
        return True
    except CorruptCheckpointError:
        return False
    return False


def set_aside(folder: Path) -> None:
    """Rename a checkpoint that was refused, so that it is in nobody's way and still there to be looked at.

    One of a later version is not broken, and stays.
    """
    if of_later_version(folder):
        return
    place = folder.with_name(f"{REFUSED}{folder.name}")
    number = 1
    while place.exists():
        number += 1
        place = folder.with_name(f"{REFUSED}{folder.name}.{number}")
    try:
        folder.rename(place)
    except OSError as error:
        log.warning("%s cannot be renamed: %s", folder, error.strerror)
    else:
        log.warning("%s is now %s", folder, place.name)


def score(manifest: Manifest, attribute: str) -> float:
    """Return how good a checkpoint is by `scoreAttribute`; larger is better. Without the metric it is the worst."""
    name = attribute.removeprefix("min-")
    value = manifest.iteration if name == "training_iteration" else manifest.metrics.get(name)
    if value is None:
        return float("-inf")
    return -value if attribute.startswith("min-") else float(value)


def ranked(manifests: list[Manifest], attribute: str) -> list[Manifest]:
    """Return the checkpoints, the best first; the newer of equals."""
    return sorted(manifests, key=lambda manifest: (score(manifest, attribute), manifest.iteration), reverse=True)


def best(manifests: list[Manifest], attribute: str) -> Manifest | None:
    """Return the best checkpoint; the newer of equals."""
    return next(iter(ranked(manifests, attribute)), None)


def to_prune(manifests: list[Manifest], keep: int, attribute: str) -> list[Manifest]:
    """Return those to delete: all but the `keep` best and the newest; none where `keep` is 0."""
    if not keep:
        return []
    newest = max(manifests, key=lambda manifest: manifest.iteration, default=None)
    return [manifest for manifest in ranked(manifests, attribute)[keep:] if manifest is not newest]


def delete(folder: Path) -> None:
    """Delete a checkpoint, its manifest first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
