"""Talking to the person and to other programs."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Arguments = Sequence[str | os.PathLike[str]]


class Failure(Exception):
    """Something the person can act on: the message says what was wrong, where, and what to do."""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(title: str, every: float = 30.0) -> Iterator[None]:
    """Name a piece of work, report every half minute that it still runs, and how long it took."""
    say(f"==> {title}")
    started, finished = time.monotonic(), threading.Event()

    def remind() -> None:
        while not finished.wait(every):
            say(f"    … {title}: {time.monotonic() - started:.0f} s")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        finished.set()
        reminder.join()
    seconds = time.monotonic() - started
    if seconds >= 1:
        say(f"    {title}: done in {seconds:.0f} s")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process, of whichever checkout, holds the lock; the kernel frees a dead holder's."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another `make cluster`, `make cluster-down` or `make images` to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(
    command: Arguments,
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command and return its standard output.

    With `log`, both streams go to that file instead. Raises `Failure` with the command and the end of its output.
    """
    try:
        with _sink(log) as output:
            process = subprocess.run(
                command,
                check=False,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                timeout=timeout,
                input=stdin or "",
                stdout=output,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                text=True,
            )
    except FileNotFoundError as error:
        raise Failure(f"{command[0]} is not installed ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no answer within {timeout:.0f} s: {printable(command)}") from error
    if process.returncode != 0:
        text = log.read_text(errors="replace") if log else process.stderr or process.stdout
        tail = "\n".join(text.strip().splitlines()[-15:])
        where = f"\n(whole output: {log})" if log else ""
        raise Failure(f"exit status {process.returncode}: {printable(command)}\n{tail}{where}")
    return process.stdout or ""


@contextmanager
def _sink(log: Path | None) -> Iterator[IO[str] | int]:
    if log is None:
        yield subprocess.PIPE
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            yield file


def succeeds(command: Arguments, *, env: Mapping[str, str] | None = None, timeout: float = 30) -> bool:
    """Whether the command exits with 0; a missing program, a failure or no answer in time is a no."""
    try:
        run(command, env=env, timeout=timeout)
    except Failure:
        return False
    return True


def wait_until(what: str, check: Callable[[], bool], seconds: float, hint: str = "") -> None:
    """Polls until `check` holds; after `seconds` raises `Failure` naming what did not come about."""
    end = time.monotonic() + seconds
    pause = 0.05
    while not check():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:.0f} s. {hint}".rstrip())
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def printable(command: Arguments) -> str:
    return " ".join(os.fspath(word) for word in command)
