"""What ends a run, in words."""

import signal


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
