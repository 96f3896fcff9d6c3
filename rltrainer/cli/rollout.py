"""`rltrainer rollout`: run episodes of a trained policy."""

import argparse

from rltrainer.cli.checkpoints import checkpoint_arguments, policy_arguments
from rltrainer.cli.common import natural, positive


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollout`."""
    checkpoint_arguments(sub, optional=True)
    sub.add_argument("-f", "--file", metavar="FILE", help="an RLRollout, as the operator runs it")
    sub.add_argument("--episodes", type=positive, metavar="N", help="episodes to run (10)")
    sub.add_argument("--steps", type=positive, metavar="N", help="steps after which no new episode begins")
    sub.add_argument(
        "--seed", type=natural, metavar="N", help="seed of the first episode; each next one has the next (0)"
    )
    policy_arguments(sub)
    sub.add_argument(
        "--render", action=argparse.BooleanOptionalAction, default=False, help="show the episodes in a window (no)"
    )
    sub.add_argument("--out", metavar="DIR", help="folder or s3:// URI for each episode's trajectory, as .npz")
    sub.add_argument("--video-dir", metavar="DIR", help="folder or s3:// URI for a video of the first episode")


def main(arguments: argparse.Namespace) -> int:
    """Run a trained policy."""
    from rltrainer.cli import play  # noqa: PLC0415 - PyTorch comes with it

    return play.main(arguments)
