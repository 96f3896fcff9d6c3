"""The command line. What a command needs is imported when it runs, so that --help and `validate` are quick."""

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rltrainer import __version__
from rltrainer.errors import Interrupted, RunError
from rltrainer.interrupt import Interrupt
from rltrainer.options import OPTIONS, OptionError, for_algorithm, parse_options
from rltrainer.paths import pid_file
from rltrainer.spec import API_VERSION, DocumentError, Experiment
from rltrainer.status import EXPERIMENT, Reporter, Target, earlier
from rltrainer.statuses import Problem


class UsageError(Exception):
    """The command line is wrong, in words."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Runs one command and exits: 0 done, 2 the document is wrong, 1 anything else, 128 + n after signal n."""
    sys.path.insert(0, str(Path.cwd()))  # so that package.module:NAME is found beside the document
    arguments = parser().parse_args(argv)
    try:
        code = arguments.command(arguments)
    except (UsageError, DocumentError, OptionError) as error:
        code = complain(str(error), 2)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def complain(message: str, code: int) -> int:
    """One clear line on standard error."""
    sys.stderr.write(f"error: {message}\n")
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(prog="rltrainer", description="Trains reinforcement learning experiments.")
    top.add_argument("--version", action="version", version=f"rltrainer {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _train_parser(add(commands, "train", train, "train an RLExperiment"))
    _rollout_parser(add(commands, "rollout", rollout, "run a trained policy"))
    checked = add(commands, "validate", validate, "check an RLExperiment without running it")
    checked.add_argument("-f", "--file", required=True, metavar="FILE", help="the document")
    add(commands, "list", list_algorithms, "list the algorithms")
    described = add(commands, "describe", describe_algorithm, "list the options of an algorithm")
    described.add_argument("algorithm", help=f"one of {', '.join(sorted(OPTIONS))}")
    ended = add(commands, "terminate", terminate, "end the trainer that runs in this container, once its state is kept")
    ended.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait for it")
    return top


Command = Callable[[argparse.Namespace], int]


def add(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """A subcommand that calls `command`."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    sub.set_defaults(command=command)
    return sub


def _train_parser(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-f", "--file", metavar="FILE", help="the document; without it, --run and --env say what to train")
    sub.add_argument("--run", metavar="NAME", help="algorithm, instead of the document's")
    sub.add_argument("--env", metavar="NAME", help="environment, instead of the document's")
    sub.add_argument("--config", metavar="JSON", help="options, over the document's")
    sub.add_argument("--stop", metavar="JSON", help="stop conditions, over the document's")
    sub.add_argument(
        "--local-dir", metavar="DIR", default="~/rltrainer_results", help="where runs are kept (%(default)s)"
    )
    sub.add_argument(
        "--restore", metavar="PATH", help="checkpoint or run, a folder or s3:// URI, that a new run starts from"
    )
    sub.add_argument("--overwrite", action="store_true", help="begin anew; what is in the run's folder is moved aside")
    sub.add_argument("--attempt", type=int, default=0, metavar="N", help="number to report, set by the operator")


def _rollout_parser(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="checkpoint or run: a folder or an s3:// URI")
    sub.add_argument("-f", "--file", metavar="FILE", help="an RLRollout, as the operator runs it")
    sub.add_argument("--episodes", type=int, metavar="N", help="episodes to run (10)")
    sub.add_argument("--steps", type=int, metavar="N", help="steps after which no new episode begins")
    sub.add_argument("--seed", type=int, metavar="N", help="seed of the first episode (0)")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "--deterministic", dest="deterministic", action="store_true", default=None, help="best action (default)"
    )
    how.add_argument("--stochastic", dest="deterministic", action="store_false", help="draw actions from the policy")
    sub.add_argument("--which", choices=("best", "latest"), help="which checkpoint of a run (best)")
    sub.add_argument("--out", metavar="DIR", help="folder or s3:// URI for each episode's trajectory, as .npz")
    sub.add_argument("--video-dir", metavar="DIR", help="folder or s3:// URI for a video of the first episode")
    sub.add_argument("--endpoint", metavar="URL", help="S3-compatible server, for s3:// URIs")
    sub.add_argument("--region", metavar="NAME", help="region of the bucket, for s3:// URIs")


def train(arguments: argparse.Namespace) -> int:
    """Trains a document, and reports one that cannot be trained."""
    try:
        experiment = document(arguments)
    except (DocumentError, OptionError) as error:
        report_invalid(str(error))
        raise
    return run_training(experiment, arguments)


def document(arguments: argparse.Namespace) -> Experiment:
    """The document that the command line describes. Raises UsageError, DocumentError or OptionError."""
    content: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "RLExperiment", "spec": {}}
    if arguments.file:
        content = Experiment.from_yaml(arguments.file).model_dump(by_alias=True, exclude_unset=True)
    elif not (arguments.run and arguments.env):
        raise UsageError("give a document with -f FILE, or both --run and --env")
    spec = content["spec"]
    if arguments.run:
        spec["run"] = arguments.run
    if arguments.env:
        spec["env"] = arguments.env
    config = as_json(arguments.config, "--config")
    if config:
        parse_options(spec["run"], config, where="--config")
    spec["config"] = {**spec.get("config", {}), **config}
    spec["stop"] = {**spec.get("stop", {}), **as_json(arguments.stop, "--stop")}
    content.setdefault("metadata", {"name": default_name(spec["run"], spec["env"])})
    return Experiment.parse(content, where=arguments.file or "command line")


def as_json(text: str | None, option: str) -> dict[str, Any]:
    """The JSON object given for `option`, or an empty one."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {error}. It takes an object, as in '{{\"lr\": 0.001}}'") from None
    if not isinstance(value, dict):
        raise UsageError(f"{option} takes a JSON object, as in '{{\"lr\": 0.001}}', and got {text}")
    return value


def default_name(run: str, env: str) -> str:
    """A name for a run without a document."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{run}-{env}".lower()).strip("-")
    return plain[:40].rstrip("-")


def run_training(experiment: Experiment, arguments: argparse.Namespace) -> int:
    """Trains a checked document in this process."""
    interrupt, noted = Interrupt(), pid_file()
    interrupt.install()  # before the long import, and for as long as the process lives: a repeated SIGTERM does no harm
    if noted:
        noted.write_text(str(os.getpid()))
    from rltrainer.train import run  # noqa: PLC0415 - PyTorch comes with it

    try:
        result = run(
            experiment, arguments.local_dir, arguments.attempt, arguments.restore, arguments.overwrite, interrupt
        )
    except (RunError, Interrupted) as error:  # the run has said why
        return error.exit_code
    finally:
        interrupt.close()
        if noted:
            noted.unlink(missing_ok=True)
    sys.stdout.write(f"{result.stopped_by}: {result.checkpoint or result.folder}\n")
    return 0


def report_invalid(message: str) -> None:
    """Tells Kubernetes, where there is one, that the document cannot be run."""
    target = Target.from_environment(*EXPERIMENT)
    if target:
        problem = Problem(reason="InvalidOption", message=message[:4096])
        report = earlier(target).model_copy(update={"error": problem})
        Reporter(target, lambda: report).close()


def rollout(arguments: argparse.Namespace) -> int:
    """Runs a trained policy."""
    from rltrainer import cli_rollout  # noqa: PLC0415 - PyTorch comes with it

    return cli_rollout.main(arguments)


def validate(arguments: argparse.Namespace) -> int:
    """Checks a document."""
    experiment = Experiment.from_yaml(arguments.file)
    sys.stdout.write(f"{arguments.file} is valid: {experiment.spec.run} on {experiment.spec.env}\n")
    return 0


def list_algorithms(arguments: argparse.Namespace) -> int:
    """One line for each algorithm."""
    for name, options in sorted(OPTIONS.items()):
        sys.stdout.write(f"{name:10} {(options.__doc__ or '').strip()}\n")
    return 0


def describe_algorithm(arguments: argparse.Namespace) -> int:
    """Every option of an algorithm, with its type, default and meaning."""
    options = for_algorithm(arguments.algorithm)
    schema = options.model_json_schema(by_alias=True)["properties"]
    sys.stdout.write(f"{arguments.algorithm}: {(options.__doc__ or '').strip()}\n\n")
    for name, entry in schema.items():
        default = json.dumps(entry.get("default"))
        sys.stdout.write(f"  {name}  {kind(entry)}, default {default}\n      {entry.get('description', '')}\n")
    return 0


def kind(entry: dict[str, Any]) -> str:
    """An option's type in words, with its bounds."""
    if "enum" in entry:
        return "one of " + ", ".join(entry["enum"])
    if "anyOf" in entry:
        return " or ".join(kind(each) for each in entry["anyOf"] if each.get("type") != "null")
    if entry.get("type") == "array":
        return f"list of {kind(entry['items'])}" if "items" in entry else "list"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {entry[key]:g}" for key, sign in signs.items() if key in entry]
    return " ".join([entry.get("type", "any"), *bounds])


def terminate(arguments: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    main()
