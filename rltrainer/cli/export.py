"""`rltrainer export`: a policy in formats that other programs read."""

import argparse
import sys
import tempfile
from pathlib import Path

from rltrainer.cli.checkpoints import checkpoint_arguments, source_of


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    checkpoint_arguments(sub)
    sub.add_argument(
        "--format",
        choices=("onnx", "model", "checkpoint"),
        default="onnx",
        help="onnx: the best actions as a graph, policy.onnx. model: the weights as safetensors with what builds the "
        "network, model/. checkpoint: all of it, to train on from (%(default)s)",
    )
    sub.add_argument("--out", metavar="DIR", required=True, help="folder that it goes to")


def main(arguments: argparse.Namespace) -> int:
    """Export a policy and print its path."""
    from rltrainer.cli.terminal import log_to_terminal  # noqa: PLC0415
    from rltrainer.runs.export import export  # noqa: PLC0415
    from rltrainer.runs.lock import output_folder  # noqa: PLC0415
    from rltrainer.storage import locate  # noqa: PLC0415 - PyTorch comes with it

    with tempfile.TemporaryDirectory(prefix="rltrainer-") as scratch, log_to_terminal():
        folder, source = Path(scratch) / "checkpoint", source_of(arguments)
        locate.fetch(source.uri, folder, source.storage, source.which)
        out = Path(arguments.out).expanduser()
        with output_folder(out, "--out"):
            sys.stdout.write(f"{export(folder, arguments.format, out)}\n")
    return 0
