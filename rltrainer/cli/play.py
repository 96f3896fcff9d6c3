"""Plays a policy: from the command line on a laptop, from an RLRollout document in a cluster."""

import argparse
import logging
import os
import sys

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Rollout
from rltrainer.api.options import OptionError
from rltrainer.api.status import Problem, RolloutResults
from rltrainer.cli.checkpoints import policy_request, source_of
from rltrainer.cli.common import UsageError
from rltrainer.errors import RunError
from rltrainer.reporting.results import log_to, on_terminal, stop_logging
from rltrainer.reporting.status import ROLLOUT, Reporter, Target
from rltrainer.runs.rollout import Request, run
from rltrainer.storage.paths import run_uri
from rltrainer.storage.store import StorageError

log = logging.getLogger(__name__)

CHECKPOINT_URI = "RLTRAINER_CHECKPOINT_URI"
"""Set by the operator: the checkpoint that was chosen."""


def main(arguments: argparse.Namespace) -> int:
    """Runs a policy and prints its returns; the exit code."""
    handlers = log_to(None, on_terminal())
    report = Report()
    try:
        return report.run(request_of(arguments))
    except (RunError, StorageError, DocumentError, OptionError, UsageError) as error:
        permanent = not isinstance(error, StorageError) and getattr(error, "permanent", True)
        log.critical("error: %s", error)
        report.fail(getattr(error, "reason", "InvalidOption"), str(error), permanent)
        return 2 if permanent else 1
    finally:
        stop_logging(handlers)


def request_of(arguments: argparse.Namespace) -> Request:
    """What the command line or its document asks for. Raises DocumentError or UsageError."""
    names = ("which", "episodes", "steps", "seed", "out")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    given |= policy_request(arguments)
    if arguments.video_dir is not None:
        given["video"] = arguments.video_dir
    if arguments.render:
        if arguments.video_dir:
            raise UsageError("an environment is drawn in one way: give --render or --video-dir, not both")
        given["render"] = True
    if arguments.file:
        told = ("checkpoint", "endpoint", "region", "namespace")
        if twice := [name for name in told if getattr(arguments, name)]:
            raise UsageError(f"{arguments.file} says where the checkpoint is: leave out {' and '.join(twice)}")
        return Request(**{**vars(from_document(arguments.file)), **given})
    if not arguments.checkpoint:
        raise UsageError("rollout takes a CHECKPOINT, or a document with -f FILE")
    return Request(**{**given, **source_of(arguments, arguments.out, arguments.video_dir).request()})


def from_document(path: str) -> Request:
    """What the RLRollout at `path` asks for. Raises DocumentError."""
    document = Rollout.from_yaml(path)
    spec = document.spec
    chosen = os.environ.get(CHECKPOINT_URI) or spec.checkpoint
    if not chosen:
        raise DocumentError(f"{path}: spec.experiment means something only in a cluster: give spec.checkpoint")
    folder = run_uri(spec.storage.uri, document.metadata) if spec.storage else None
    if folder is None and (spec.out or spec.video):
        raise DocumentError(f"{path}: spec.out and spec.video need spec.storage, to be kept in")
    return Request(
        checkpoint=chosen,
        storage=spec.storage,
        which=spec.which,
        episodes=spec.episodes,
        steps=spec.steps,
        deterministic=spec.deterministic,
        seed=spec.seed,
        out=f"{folder}/trajectories" if spec.out else None,
        video=f"{folder}/video" if spec.video else None,
    )


class Report:
    """What the world is told, on standard output and in a cluster's status."""

    def __init__(self) -> None:
        self.now = RolloutResults(episodes=0, timesteps=0)
        target = Target.from_environment(*ROLLOUT)
        self.reporter = Reporter(target, lambda: self.now) if target else None

    def run(self, request: Request) -> int:
        """Runs `request` to its end; the exit code."""
        for episode, self.now in run(request):
            if episode is not None:
                line = f"return {episode.total:10.2f}  length {len(episode.rewards):6,}  seed {episode.seed}"
                sys.stdout.write(f"episode {self.now.episodes:4d}  {line}\n")
        sys.stdout.write(summary(self.now) + "\n")
        return 0 if self.close() else 1

    def fail(self, reason: str, message: str, permanent: bool) -> None:
        """Reports an error that no retry helps."""
        if permanent:
            self.now = self.now.model_copy(update={"error": Problem.of(reason, message)})
        self.close()

    def close(self) -> bool:
        """Delivers the last report; whether it arrived."""
        return self.reporter is None or self.reporter.close()


def summary(report: RolloutResults) -> str:
    """The returns in a line."""
    if report.reward_mean is None:
        return "no episode was run"
    error = "" if report.reward_stderr is None else f", standard error {report.reward_stderr:.2f}"
    bounds = f"min {report.reward_min:.2f}, max {report.reward_max:.2f}"
    return f"{report.episodes} episodes of {report.checkpoint}: mean return {report.reward_mean:.2f}, {bounds}{error}"
