"""The log of a command, on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rltrainer.errors import RunError
from rltrainer.reporting.results import log_to, on_terminal, stop_logging
from rltrainer.storage.store import StorageError


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Send the package's log to standard error in this context, and raise StorageError as RunError."""
    handlers = log_to(None, on_terminal())
    try:
        yield
    except StorageError as error:
        raise RunError(error.reason, str(error), error.permanent) from error
    finally:
        stop_logging(handlers)
