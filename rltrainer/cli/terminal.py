"""Has what the package says while a command runs appear on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rltrainer.errors import RunError
from rltrainer.reporting.results import log_to, on_terminal, stop_logging
from rltrainer.storage.store import StorageError


@contextmanager
def speaking() -> Iterator[None]:
    """Within it, the package's log goes to standard error, and storage that fails is a RunError."""
    handlers = log_to(None, on_terminal())
    try:
        yield
    except StorageError as error:
        raise RunError(error.reason, str(error)) from error
    finally:
        stop_logging(handlers)
