"""`rltrainer terminate`: ends the trainer of a container."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rltrainer.cli.common import complain
from rltrainer.storage.paths import pid_file


def arguments(sub: argparse.ArgumentParser) -> None:
    """What `terminate` takes."""
    sub.add_argument(
        "--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait for it (%(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Ends the trainer that runs in this container, as a preStop hook: SIGTERM, then wait until it is gone."""
    noted = pid_file()
    try:
        pid = int(noted.read_text()) if noted else 0
        os.kill(pid, signal.SIGTERM) if pid else None
    except (OSError, ValueError):
        pid = 0
    if not pid:
        sys.stdout.write("no trainer runs here\n")
        return 0
    end = time.monotonic() + arguments.timeout
    while alive(pid):
        if time.monotonic() > end:
            return complain(f"the trainer (process {pid}) still runs after {arguments.timeout:g} s", 1)
        time.sleep(0.1)
    return 0


def alive(pid: int) -> bool:
    """Whether process `pid` runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
