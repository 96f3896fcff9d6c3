"""The folder that a run or a search works in: whose it is, and how the work in it ended."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rltrainer.api.documents import Experiment
from rltrainer.errors import RunError
from rltrainer.reporting import results
from rltrainer.runs.interrupt import Interrupt
from rltrainer.storage.files import write_whole

MARK = "run.json"
"""What tells a run's folder from another's: its uid, and how it ended."""


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to the run with this uid."""

    path: Path
    uid: str

    def mark(self, stopped_by: str | None = None) -> None:
        """Note whose folder it is, and how the run in it ended."""
        end = {"stopped_by": stopped_by} if stopped_by else {}
        write_whole(self.path / MARK, json.dumps({"uid": self.uid} | end))


def claim_folder(
    local_dir: Path | str, experiment: Experiment, overwrite: bool = False, resume: bool = False
) -> RunFolder:
    """Make `local_dir`/<name> the folder of this run.

    An unfinished run in it goes on, with `resume` a finished one too; any other moves aside. Raises RunError,
    permanent, where there is nothing to resume.
    """
    path = Path(local_dir).expanduser() / experiment.metadata.name
    uid = experiment.metadata.uid
    try:
        mark = json.loads((path / MARK).read_text())
    except (OSError, ValueError):
        mark = {}
    if resume and not mark:
        raise RunError("NothingToResume", f"there is no run in {path} to resume", permanent=True)
    in_the_way = overwrite or not mark or (uid is not None and mark.get("uid") != uid)
    finished = uid is None and mark.get("stopped_by") and not resume
    if path.exists() and any(path.iterdir()) and (in_the_way or finished):
        path.rename(path.with_name(f"{path.name}.{datetime.now():%Y%m%d-%H%M%S.%f}"))
        mark = {}
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path, uid or mark.get("uid") or secrets.token_hex(4))
    folder.mark()
    return folder


@contextmanager
def working_folder(
    experiment: Experiment, local_dir: Path | str, interrupt: Interrupt, overwrite: bool = False, resume: bool = False
) -> Iterator[RunFolder]:
    """Claim the run's folder; within the block log into it, and have `interrupt` answer signals.

    Raises RunError, permanent, where there is nothing to resume.
    """
    folder = claim_folder(local_dir, experiment, overwrite, resume)
    handlers = results.log_to(folder.path, results.on_terminal())
    try:
        with interrupt.installed():
            yield folder
    finally:
        results.stop_logging(handlers)
