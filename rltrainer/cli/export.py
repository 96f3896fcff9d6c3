"""`rltrainer export`: a policy, for others to use."""

import argparse
import sys
import tempfile
from pathlib import Path

from rltrainer.cli.checkpoints import checkpoint_arguments, source_of


def arguments(sub: argparse.ArgumentParser) -> None:
    """What `export` takes."""
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
    """Exports a policy and prints where it is."""
    from rltrainer.cli.speaking import speaking  # noqa: PLC0415
    from rltrainer.runs.export import export  # noqa: PLC0415
    from rltrainer.storage import locate  # noqa: PLC0415 - PyTorch comes with it

    with tempfile.TemporaryDirectory(prefix="rltrainer-") as scratch, speaking():
        place, source = Path(scratch) / "checkpoint", source_of(arguments)
        locate.fetch(source.uri, place, source.storage, source.which)
        sys.stdout.write(f"{export(place, arguments.format, Path(arguments.out).expanduser())}\n")
    return 0
