"""The command line. A command imports what it needs when it runs, so that --help and `validate` are quick."""

import argparse
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rltrainer import __version__
from rltrainer.api.base import DocumentError
from rltrainer.api.options import OptionError
from rltrainer.cli import completion, evaluate, export, inspect, plot, rollout, terminate, train
from rltrainer.cli.common import Command, UsageError, add_command, complain, no_arguments, show_origin
from rltrainer.errors import CtrlC, Exited, expected, guarded_exit

AddArguments = Callable[[argparse.ArgumentParser], None]
COMMANDS: tuple[tuple[str, Command, AddArguments, str], ...] = (
    ("train", train.main, train.arguments, "train an RLExperiment"),
    ("rollout", rollout.main, rollout.arguments, "run a trained policy, episode by episode"),
    ("evaluate", evaluate.main, evaluate.arguments, "say how good a trained policy is"),
    ("plot", plot.main, plot.arguments, "draw the learning curves of runs"),
    ("export", export.main, export.arguments, "write a trained policy as others read it"),
    ("validate", inspect.validate, inspect.validate_arguments, "check documents, and say what they would run"),
    ("list", inspect.list_algorithms, no_arguments, "list the algorithms"),
    ("describe", inspect.describe_algorithm, inspect.describe_arguments, "list the options of an algorithm"),
    ("completion", completion.main, completion.arguments, "print a script that completes this command line"),
    ("terminate", terminate.main, terminate.arguments, "end the trainer in this container, once its state is kept"),
)
"""Each command: its name, its function, the function that adds its arguments, and its help."""
UNNAMED = "standard output, or a file that the command writes"
"""Where an error of the disk arose that names no file."""
BROKEN_PIPE = 128 + signal.SIGPIPE
"""The exit code where whoever reads standard output, such as `head`, has enough of it."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 2 the document is wrong, 1 anything else, 128 + n after signal n."""
    sys.path.insert(0, str(Path.cwd()))  # so that package.module:NAME beside the document can be imported
    arguments = parser().parse_args(argv)
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # native code of an environment may crash the process: it says where
    earlier = signal.getsignal(signal.SIGINT)
    if earlier is signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
    try:
        code = written(outcome(arguments))
    finally:
        signal.signal(signal.SIGINT, earlier)
    sys.exit(code)


def outcome(arguments: argparse.Namespace) -> int:
    """Run one command and return its exit code. What a person can mend is told in a line; all else is raised."""
    try:
        with guarded_exit():
            return arguments.command(arguments)  # type: ignore[no-any-return]
    except KeyboardInterrupt:
        return 130
    except Exited as error:
        return complain(f"code that is not ours called os._exit({error.code!r})", 1)
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        show_origin(arguments, error)
        if isinstance(error, UsageError | DocumentError | OptionError):
            return complain(str(error), 2)
        if (failure := expected(error, UNNAMED)) is None:
            raise
        return complain(str(failure), failure.exit_code)


def written(code: int) -> int:
    """Write out what the command has printed, and return its exit code, or that of why nobody can read it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except OSError as error:
        code = complain(f"standard output: {error.strerror}", 1)
    else:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left, Python would write at its end
    return code


def ctrl_c(signum: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGINT, as long as no run asks for it."""
    raise CtrlC


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    top = argparse.ArgumentParser(prog="rltrainer", description="Trains reinforcement learning experiments.")
    top.add_argument("--version", action="version", version=f"rltrainer {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command, add_arguments, text in COMMANDS:
        add_arguments(add_command(commands, name, command, text))
    return top
