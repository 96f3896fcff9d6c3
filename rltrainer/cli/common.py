"""What the commands share: adding one, argument types, and usage errors."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from rltrainer.api.experiment import Storage
from rltrainer.api.options import complaint

Command = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """The command line is wrong; the message says how."""


def complain(message: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    sys.stderr.write(f"error: {message}\n")
    return code


def show_origin(arguments: argparse.Namespace, error: BaseException) -> None:
    """Print the traceback of `error`, with --debug."""
    if arguments.debug:
        traceback.print_exception(error)


def add_command(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """Add a subcommand that calls `command`."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    sub.set_defaults(command=command)
    sub.add_argument("--debug", action="store_true", help="of an error, show where in the program it was raised")
    return sub


def no_arguments(sub: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def storage_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments that say how S3 is reached."""
    sub.add_argument("--endpoint", metavar="URL", help="S3-compatible server, for s3:// URIs")
    sub.add_argument("--region", metavar="NAME", help="region of the bucket, for s3:// URIs")


def storage_of(arguments: argparse.Namespace, *uris: str | None) -> Storage | None:
    """Return how S3 is reached where one of `uris` lies there, else None. Raises UsageError."""
    remote = [uri for uri in uris if uri and uri.startswith("s3://")]
    if not remote:
        if arguments.endpoint or arguments.region:
            raise UsageError("--endpoint and --region mean something only with an s3:// URI")
        return None
    try:
        return Storage(uri=remote[0], endpoint=arguments.endpoint, region=arguments.region)
    except ValidationError as error:
        raise UsageError(complaint(error, "storage", Storage)) from None


def positive(text: str) -> int:
    """Parse a whole number of 1 or more, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text}")
    return int(text)


def natural(text: str) -> int:
    """Parse a whole number of 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, not {text}")
    return int(text)


def as_json(text: str | None, option: str) -> dict[str, Any]:
    """Parse the JSON object of `option`, empty where there is none. Raises UsageError that says where it is wrong."""
    example = "It takes an object, as in '{\"lr\": 0.001}'"
    try:
        value = json.loads(text or "{}", object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise UsageError(f"{option} is not JSON: {error}, in {text}. {example}") from None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{option} takes a JSON object, and got {text}. {example}")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f'"{repeated[0]}" is given twice')
    return dict(pairs)
