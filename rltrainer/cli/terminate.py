"""`rltrainer terminate`: stop the trainer of a container."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rltrainer.cli.common import complain
from rltrainer.storage.paths import pid_file


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `terminate`."""
    sub.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait for it (%(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Stop the trainer of this container, as a preStop hook: send SIGTERM, then wait until it has ended."""
    file = pid_file()
    try:
        pid = int(file.read_text()) if file else 0
        os.kill(pid, signal.SIGTERM) if pid else None
    except (OSError, ValueError):
        pid = 0
    if not pid:
        sys.stdout.write("no trainer runs here\n")
        return 0
    deadline = time.monotonic() + arguments.timeout
    while is_running(pid):
        if time.monotonic() > deadline:
            return complain(f"the trainer (process {pid}) still runs after {arguments.timeout:g} s", 1)
        time.sleep(0.1)
    return 0


def is_running(pid: int) -> bool:
    """Whether process `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
