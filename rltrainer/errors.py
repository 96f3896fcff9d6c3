"""What ends a run, in words."""

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class RunError(Exception):
    """Ends a run: `reason` is CamelCase for machines, `message` for people; `permanent` says that no retry helps."""

    def __init__(self, reason: str, message: str, permanent: bool = False) -> None:
        super().__init__(reason, message, permanent)  # all of them, so that it survives a trip between processes
        self.reason, self.message, self.permanent = reason, message, permanent

    def __str__(self) -> str:
        return self.message

    @property
    def exit_code(self) -> int:
        """2 where the document or its environment is wrong, 1 where another attempt may succeed."""
        return 2 if self.permanent else 1


class Interrupted(Exception):
    """A signal asks the run to end; its state is to be kept."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + self.signum


class CtrlC(KeyboardInterrupt):
    """Ctrl-C while a command runs: code that is not ours may raise KeyboardInterrupt by itself, and not this."""


class NotStartedError(RunError):
    """Ends a run before it has begun, and so before it has a log to say it in."""


_ROOM, _RIGHTS = "make room there", "make it a folder that can be written to, or name another"
_DISK_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR), _RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP), "see what the disk has"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT), _RIGHTS),
}
"""What a person can do about each error of a disk."""


def disk_problem(error: BaseException, folder: object) -> str | None:
    """Say in a line what is wrong with the disk below `folder`, or None where it is something else."""
    if not isinstance(error, OSError) or error.errno not in _DISK_ERRORS:
        return None
    return f"{error.filename or folder}: {error.strerror}. {_DISK_ERRORS[error.errno].capitalize()}"


end_process = os._exit
"""End the process at once, with an exit code: os._exit, whatever stands in its place now."""


class Exited(SystemExit):
    """A call of os._exit() that has not ended the process."""


@contextmanager
def guarded_exit() -> Iterator[None]:
    """Let os._exit(), called in this process within the block, fail the code that calls it: all exit codes are ours,
    and 0 would say that everything is done.

    Forks of the process end by it as ever. In a thread beside the main one, where nobody would see it fail, it ends
    the process with the exit code 1.
    """
    guarded, earlier = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != guarded:
            end_process(status)
        if threading.current_thread() is not threading.main_thread():
            sys.stderr.write(f"error: code that is not ours called os._exit({status!r}) in a thread of its own\n")
            sys.stderr.flush()
            end_process(1)
        raise Exited(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = earlier


PACKAGES = {
    **dict.fromkeys(("torch", "ray", "gymnasium", "numpy", "safetensors", "boto3", "botocore", "filelock"), "trainer"),
    **dict.fromkeys(("kubernetes", "tensorboardX", "tqdm", "imageio", "cloudpickle"), "trainer"),
    **dict.fromkeys(("hyperopt", "optuna"), "search"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("matplotlib", "plotext"), "plot"),
}
"""The extra of this package that installs each package which may be missing."""


def install(extra: str) -> str:
    """Say how an extra of this package, which is on no index, is installed."""
    return f'pip install ".[{extra}]" in a checkout of rl-kubernetes, or with its wheel pip install "FILE.whl[{extra}]"'


NO_MEMORY = re.compile(r"can't allocate memory|out of memory|Cannot allocate memory|not enough memory", re.IGNORECASE)
"""What PyTorch and the system say, in a RuntimeError or an OSError, where there is not enough memory."""


def expected(error: BaseException, folder: object) -> RunError | None:
    """Return what a person can mend of `error`, in one line; None for a fault of the program. `folder` is where it
    writes."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, ModuleNotFoundError) and (extra := PACKAGES.get((error.name or "").partition(".")[0])):
        package = (error.name or "").partition(".")[0]
        return RunError("MissingPackage", f"{package} is not installed: {install(extra)}", permanent=True)
    if isinstance(error, MemoryError | RuntimeError | OSError) and _is_memory(error):
        detail = " ".join(str(error).split()) or "an allocation failed"
        return RunError(
            "OutOfMemory",
            f"there is not enough memory: {detail}. Make buffer_size, num_envs_per_worker, batches or networks smaller",
        )
    if (problem := disk_problem(error, folder)) is not None:
        return RunError("WriteFailed", problem)
    return None


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))
