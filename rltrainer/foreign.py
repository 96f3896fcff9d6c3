"""Code that is not ours, an environment or a module of one's own: what it raises, in words and with its own frames.

Whatever it raises is its failure, and none of it ends this program: sys.exit() in it, as of an environment whose window
is closed, is no exit code of ours, nor is os._exit() where `errors.guarded_exit` holds.
"""

import reprlib
import signal
import sysconfig
import threading
import traceback
from itertools import dropwhile
from pathlib import Path

import gymnasium

from rltrainer.errors import CtrlC, Exited, Interrupted, RunError

FRAMES = 8
"""Frames that a failure shows, at most: the last."""
_GYMNASIUM = Path(gymnasium.__file__).parent
_ERRORS = str(Path(__file__).with_name("errors.py"))
BETWEEN = (
    str(Path(__file__).parent) + "/",
    *(str(_GYMNASIUM / path) for path in ("core.py", "envs/registration.py", "vector/", "wrappers/")),
    *(
        str(Path(sysconfig.get_path("stdlib")) / path)
        for path in ("contextlib.py", "functools.py", "importlib/", "multiprocessing/")
    ),
    "<frozen ",
)
"""Beginnings of the files whose frames lie between us and code that is not ours."""


class Failure(Exception):
    """A failure of code that is not ours: in words, with its own frames, and in which environment of a vector."""

    def __init__(self, words: str, frames: str = "", environment: int | None = None) -> None:
        super().__init__(words, frames, environment)  # all of them, so that it survives a trip between processes
        self.words, self.frames, self.environment = words, frames, environment

    def __str__(self) -> str:
        return self.words

    def at(self, environment: int) -> "Failure":
        """Return the same failure, of this environment of a vector."""
        return Failure(self.words, self.frames, environment)

    def sentence(self, before: str, place: str = "") -> str:
        """Return `before` and what went wrong, with `place` in brackets; then the frames, in lines of their own."""
        first = f"{before}: {self.words}" + (f" ({place})" if place else "")
        return f"{first}\n{self.frames.rstrip()}" if self.frames else first


def caught(error: BaseException) -> Failure:
    """Return what code that is not ours has raised as its failure. Raises `error` again where it is not its own."""
    if is_ours(error):
        raise error
    return error if isinstance(error, Failure) else Failure(in_words(error), own_frames(error))


def is_ours(error: BaseException) -> bool:
    """Return whether `error` is in our words already, or somebody's Ctrl-C, wherever that has met the program.

    Where SIGINT is handled in our way, a KeyboardInterrupt is one that the code has raised by itself.
    """
    if isinstance(error, KeyboardInterrupt):
        is_main = threading.current_thread() is threading.main_thread()
        unhandled = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return unhandled or isinstance(error, CtrlC)
    return isinstance(error, RunError | Interrupted)


def in_words(error: BaseException) -> str:
    """Return the type of `error` and its message, for which it may have no words itself."""
    if isinstance(error, Exited):
        return f"it called os._exit({reprlib.repr(error.code)})"
    if isinstance(error, SystemExit):
        return f"it called sys.exit({reprlib.repr(error.code)})"
    try:
        message = str(error)
    except Exception:
        message = "it cannot say why"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def own_frames(error: BaseException) -> str:
    """Return the last frames of where `error` was raised, as tracebacks show them, from the first that is not ours."""
    frames = dropwhile(lambda frame: frame.filename.startswith(BETWEEN), traceback.extract_tb(error.__traceback__))
    own = [frame for frame in frames if not frame.filename.startswith(("<frozen ", _ERRORS))]
    return "".join(traceback.format_list(own[-FRAMES:]))
