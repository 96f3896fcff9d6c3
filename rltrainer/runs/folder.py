"""The folder that a run or a search works in: whose it is, and how the work in it ended."""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from rltrainer.api.base import MAX_NAME
from rltrainer.api.documents import Experiment
from rltrainer.errors import NotStartedError
from rltrainer.reporting import results
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.lock import locked
from rltrainer.runs.params import differences, read_params
from rltrainer.storage.files import disk_errors, write_whole

log = logging.getLogger(__name__)

MARK = "run.json"
"""What tells a run's folder from another's: its uid, and how it ended."""


@dataclass(frozen=True)
class Start:
    """Ways to start where the folder holds a run already."""

    overwrite: bool = False
    """Begin anew; what the folder holds moves aside."""
    resume: bool = False
    """Go on, even where the run is done or its document was another."""
    numbered: bool = False
    """The name is nobody's choice: where it is taken, the next number is."""


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to the run with this uid."""

    path: Path
    uid: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names the folder in the claims of its storage."""

    def mark(self, stopped_by: str | None = None) -> None:
        """Note whose folder it is, and how the run in it ended."""
        end = {"stopped_by": stopped_by} if stopped_by else {}
        write_whole(self.path / MARK, json.dumps({"uid": self.uid, "token": self.token} | end))


def claim_folder(path: Path, experiment: Experiment, start: Start) -> RunFolder:
    """Make `path`, which this process has locked, the folder of this run.

    An unfinished run in it goes on, with `resume` a finished one too; any other moves aside. In a cluster the document
    may change on purpose, elsewhere with `resume`. Raises NotStartedError where there is nothing to resume, or the
    document is another.
    """
    uid, mark = experiment.metadata.uid, _mark(path)
    is_ours = bool(mark) and uid in (None, mark.get("uid"))
    if start.resume and not is_ours:
        raise NotStartedError("NothingToResume", f"there is no run in {path} to resume", permanent=True)
    finished = uid is None and bool(mark.get("stopped_by")) and not start.resume
    goes_on = is_ours and not finished and not start.overwrite
    if goes_on and uid is None and not start.resume and (changes := _changes(path, experiment)):
        raise NotStartedError(
            "OtherDocument",
            f"{path} holds an unfinished run under another document ({'; '.join(changes)}): --resume goes on with it "
            "under the new one, --overwrite moves it aside, and another --experiment-name leaves it as it is",
            permanent=True,
        )
    if not goes_on and _holds_something(path):
        aside = path.with_name(f"{path.name}.{datetime.now():%Y%m%d-%H%M%S.%f}")
        path.rename(aside)
        log.info("what %s held is in %s now", path, aside.name)
        mark = {}
    path.mkdir(parents=True, exist_ok=True)
    token = mark.get("token") or secrets.token_hex(8)
    folder = RunFolder(path, uid or mark.get("uid") or secrets.token_hex(4), token)
    folder.mark()
    return folder


@contextmanager
def working_folder(
    experiment: Experiment, local_dir: Path | str, interrupt: Interrupt, start: Start
) -> Iterator[tuple[RunFolder, Experiment]]:
    """Claim the run's folder for this process; within the block log into it, and have `interrupt` answer signals.

    Yields it with the document under the name that it got. Raises NotStartedError where another process works in it,
    there is nothing to resume, the document is another, or it cannot be written to.
    """
    root = Path(local_dir).expanduser()
    handlers = results.log_to(None, results.on_terminal())
    try:
        with _locked_name(root, experiment, start) as named:
            with disk_errors(root, NotStartedError):
                folder = claim_folder(root / named.metadata.name, named, start)
                handlers += results.log_to(folder.path, terminal=False, console=False)
            with interrupt.installed():
                yield folder, named
    finally:
        results.stop_logging(handlers)


@contextmanager
def _locked_name(root: Path, experiment: Experiment, start: Start) -> Iterator[Experiment]:
    """Lock the folder of the run; of a name that is nobody's choice, the first that is free or holds this very run."""
    for name in _names(experiment.metadata.name):
        path, named = root / name, _renamed(experiment, name)
        with locked(root / f".{name}.lock", path, "give this one another --experiment-name"):
            why = _taken(path, named, start)
            if why is None:
                yield named
                return
            log.info("%s holds %s: the next number is looked at", path, why)


def _taken(path: Path, experiment: Experiment, start: Start) -> str | None:
    """Say what else the folder of a numbered name holds; None where the name is this run's."""
    if not start.numbered or start.overwrite:
        return None
    if not (mark := _mark(path)):
        return "no run" if _holds_something(path) else None
    if changes := _changes(path, experiment):
        return f"a run under another document ({'; '.join(changes)})"
    return "a finished run" if mark.get("stopped_by") and not start.resume else None


def _names(name: str) -> Iterator[str]:
    """Yield a name, and the same with the numbers from 2."""
    yield name
    for number in count(2):
        yield f"{name[: MAX_NAME - len(f'-{number}')].rstrip('-')}-{number}"


def _renamed(experiment: Experiment, name: str) -> Experiment:
    return experiment.model_copy(update={"metadata": experiment.metadata.model_copy(update={"name": name})})


def _mark(path: Path) -> dict[str, Any]:
    try:
        mark = json.loads((path / MARK).read_text())
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _holds_something(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _changes(path: Path, experiment: Experiment) -> list[str]:
    before = read_params(path)
    return [] if before is None else differences(before, experiment.spec)
