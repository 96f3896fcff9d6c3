"""What the commands share: how one is added, and the errors of a person's command line."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from rltrainer.api.experiment import Storage
from rltrainer.api.options import complaint

Command = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """The command line is wrong, in words."""


def complain(message: str, code: int) -> int:
    """One clear line on standard error."""
    sys.stderr.write(f"error: {message}\n")
    return code


def add(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """A subcommand that calls `command`."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    sub.set_defaults(command=command)
    return sub


def nothing(sub: argparse.ArgumentParser) -> None:
    """What a command takes that takes nothing."""


def storage_arguments(sub: argparse.ArgumentParser) -> None:
    """How S3 is reached."""
    sub.add_argument("--endpoint", metavar="URL", help="S3-compatible server, for s3:// URIs")
    sub.add_argument("--region", metavar="NAME", help="region of the bucket, for s3:// URIs")


def storage_of(arguments: argparse.Namespace, *uris: str | None) -> Storage | None:
    """How S3 is reached, where one of `uris` lies there. Raises UsageError."""
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
    """A number of things, at least one, as argparse takes it."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text}")
    return int(text)


def natural(text: str) -> int:
    """A whole number of 0 or more, as argparse takes it."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, not {text}")
    return int(text)


def as_json(text: str | None, option: str) -> dict[str, Any]:
    """The JSON object given for `option`, or an empty one. Raises UsageError that says where it is wrong."""
    example = "It takes an object, as in '{\"lr\": 0.001}'"
    try:
        value = json.loads(text or "{}", object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise UsageError(f"{option} is not JSON: {error}, in {text}. {example}") from None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{option} takes a JSON object, and got {text}. {example}")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f'"{twice[0]}" is given twice')
    return dict(pairs)
