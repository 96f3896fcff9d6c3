"""Processes of a benchmark: the memory that they hold, and their end."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path


def members(session: int) -> list[int]:
    """The processes of a session: all that a contender has begun, as long as it has not begun sessions."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            processes += [(int(folder.name), int(fields[1]), int(fields[3]))]
    family = {pid for pid, _, owner in processes if owner == session}
    while True:  # and the children of those, whatever their session
        grown = family | {pid for pid, parent, _ in processes if parent in family}
        if grown == family:
            return sorted(family)
        family = grown


def megabytes(process: "subprocess.Popen[str]") -> float:
    """What a process holds (Rss), or it and its descendants: of several, each page that they share is counted once, in
    equal parts (Pss)."""
    family = members(process.pid)
    total = 0
    for pid in family:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:" if family[1:] else "Rss:"))
    return total / 1024


def end(process: "subprocess.Popen[str]") -> None:
    """End a process and its descendants."""
    family = members(process.pid)
    for sent, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            if not alive(family):
                return


def alive(family: list[int]) -> bool:
    """Whether any of these processes still runs."""
    return any(Path(f"/proc/{pid}").exists() for pid in family)
