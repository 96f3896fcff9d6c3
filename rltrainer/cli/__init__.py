"""The command line. A command imports what it needs when it runs, so that --help and `validate` are quick."""

import argparse
import faulthandler
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
from rltrainer.cli.common import Command, UsageError, add_command, complain, no_arguments
from rltrainer.errors import CtrlC, Exited, RunError, disk_problem, guarded_exit

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
        with guarded_exit():
            code = arguments.command(arguments)
    except (UsageError, DocumentError, OptionError) as error:
        code = complain(str(error), 2)
    except RunError as error:
        code = complain(str(error), error.exit_code)
    except OSError as error:
        if (problem := disk_problem(error, Path.cwd())) is None:
            raise
        code = complain(problem, 1)
    except Exited as error:
        code = complain(f"code that is not ours called os._exit({error.code!r})", 1)
    except KeyboardInterrupt:
        code = 130
    finally:
        signal.signal(signal.SIGINT, earlier)
    sys.exit(code)


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
