"""Our daemons: started without a parent, recognized by what they run, and stopped with their children."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from hack.cluster.console import Arguments, Failure, wait_until
from hack.cluster.paths import PROGRAMS, STATE

PIDS = STATE / "pid"
LOG = STATE / "log"


def start(name: str, command: Arguments) -> None:
    """Start a daemon in a session of its own; its output goes to the log of its name."""
    PIDS.mkdir(parents=True, exist_ok=True)
    LOG.mkdir(parents=True, exist_ok=True)
    words = [os.fspath(word) for word in command]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(LOG / f"{name}.log"), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # In the root folder, so that no daemon holds on to a checkout.
    with contextlib.chdir("/"):
        pid = os.posix_spawnp(words[0], words, os.environ, file_actions=files, setsid=True)
    (PIDS / name).write_text(str(pid))
    # On a busy machine the kernel takes a while to give a new program its command line, by which it is recognized.
    wait_until(f"{name} to begin", lambda: _is_daemon(Path(f"/proc/{pid}")) or not _running(pid), 60)


def alive(name: str) -> bool:
    """Whether the daemon of this name runs: its process id may meanwhile belong to somebody else."""
    try:
        pid = int((PIDS / name).read_text())
    except (OSError, ValueError):
        return False
    return _is_daemon(Path(f"/proc/{pid}"))


def dead() -> list[str]:
    """The daemons that were started and do not run any more."""
    return sorted(path.name for path in PIDS.glob("*") if not alive(path.name)) if PIDS.is_dir() else []


def stop(*names: str) -> None:
    """Stop the named daemons: SIGTERM, and SIGKILL for one that stays."""
    pids = [int((PIDS / name).read_text()) for name in names if alive(name)]
    end(pids)
    for name in names:
        (PIDS / name).unlink(missing_ok=True)


def stop_all() -> None:
    """End every daemon of ours, known by name or not, and all that runs below containerd's shims."""
    daemons = ours()
    shims = [pid for pid in daemons if "shim" in _executable(Path(f"/proc/{pid}"))]
    end(_descendants(shims), patience=0)
    # The API server would drain its connections for ten seconds, for a state that is thrown away next.
    end(daemons, patience=1)


def ours() -> list[int]:
    """The process ids of our daemons: one of our programs, or containerd, that was told of our state folder."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_daemon(path)]


def _is_daemon(proc: Path) -> bool:
    executable = _executable(proc)
    if not executable.startswith(str(PROGRAMS)) and "containerd" not in Path(executable).name:
        return False
    if "/kubectl-" in executable:  # a person's own port-forward is not ours to end
        return False
    try:
        return os.fsencode(STATE) in (proc / "cmdline").read_bytes()
    except OSError:
        return False


def _executable(proc: Path) -> str:
    try:
        return str((proc / "exe").readlink())
    except OSError:
        return ""


def _descendants(roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold spaces: the parent is the second field after it.
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(path.name))
    descendants: list[int] = []
    waiting = list(roots)
    while waiting:
        below = children.get(waiting.pop(), [])
        descendants += below
        waiting += below
    return descendants


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end(pids: list[int], patience: float = 10) -> None:
    """Sends SIGTERM, and SIGKILL to those that run after `patience` seconds; without patience SIGKILL alone."""
    if patience:
        _signal(pids, signal.SIGTERM)
        with contextlib.suppress(Failure):
            wait_until("processes ended", lambda: not any(map(_running, pids)), patience)
    remaining = [pid for pid in pids if _running(pid)]
    _signal(remaining, signal.SIGKILL)
    wait_until(f"processes {remaining} ended", lambda: not any(map(_running, remaining)), 10)
