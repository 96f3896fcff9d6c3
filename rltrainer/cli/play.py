"""Roll a policy out: for the command line of a laptop, or for an RLRollout in a cluster."""

import argparse
import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Rollout
from rltrainer.api.options import OptionError
from rltrainer.api.status import Problem, RolloutResults
from rltrainer.cli.checkpoints import policy_request, source_of
from rltrainer.cli.common import UsageError, show_origin
from rltrainer.errors import Interrupted, RunError
from rltrainer.reporting.results import log_to, on_terminal, stop_logging
from rltrainer.reporting.status import ROLLOUT, Reporter, Target
from rltrainer.runs.rollout import Request, run
from rltrainer.storage.paths import run_uri
from rltrainer.storage.store import StorageError

log = logging.getLogger(__name__)

CHECKPOINT_URI = "RLTRAINER_CHECKPOINT_URI"
"""Environment variable that the operator sets to the chosen checkpoint."""
GENERATION = "RLTRAINER_GENERATION"
"""Environment variable that the operator sets to the generation of the document that it made the Job of."""


def main(arguments: argparse.Namespace) -> int:
    """Run a policy, print its returns and return the exit code."""
    handlers = log_to(None, on_terminal())
    report = Report()
    earlier = signal.signal(signal.SIGTERM, end)
    try:
        return report.run(request_of(arguments))
    except Interrupted as error:  # what is half done is nothing to report: another pod begins anew
        log.warning("ended by %s after %d episodes: this rollout is not done", error, report.results.episodes)
        return error.exit_code
    except (RunError, StorageError, DocumentError, OptionError, UsageError) as error:
        show_origin(arguments, error)
        permanent = getattr(error, "permanent", True)
        log.critical("error: %s", error)
        report.fail(getattr(error, "reason", "InvalidOption"), str(error), permanent)
        return 2 if permanent else 1
    finally:
        signal.signal(signal.SIGTERM, earlier)
        stop_logging(handlers)


def end(signum: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM, which a container's first process ignores unless it is handled."""
    raise Interrupted(signum)


def request_of(arguments: argparse.Namespace) -> Request:
    """Return the request of the command line or its document. Raises DocumentError or UsageError."""
    names = ("which", "episodes", "steps", "seed", "out")
    overrides = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    overrides |= policy_request(arguments)
    if arguments.video_dir is not None:
        overrides["video"] = arguments.video_dir
    if arguments.render:
        if arguments.video_dir:
            raise UsageError("an environment is drawn in one way: give --render or --video-dir, not both")
        overrides["render"] = True
    if arguments.file:
        location = ("checkpoint", "endpoint", "region", "namespace")
        if conflicts := [name for name in location if getattr(arguments, name)]:
            raise UsageError(f"{arguments.file} says where the checkpoint is: leave out {' and '.join(conflicts)}")
        return Request(**{**vars(from_document(arguments.file)), **overrides})
    if not arguments.checkpoint:
        raise UsageError("rollout takes a CHECKPOINT, or a document with -f FILE")
    return Request(**{**overrides, **source_of(arguments, arguments.out, arguments.video_dir).request()})


def from_document(path: str) -> Request:
    """Return the request of the RLRollout at `path`. Raises DocumentError."""
    document = Rollout.from_yaml(path)
    spec = document.spec
    checkpoint = os.environ.get(CHECKPOINT_URI) or spec.checkpoint
    if not checkpoint:
        raise DocumentError(f"{path}: spec.experiment means something only in a cluster: give spec.checkpoint")
    folder = run_uri(spec.storage.uri, document.metadata) if spec.storage else None
    if folder is None and (spec.out or spec.video):
        raise DocumentError(f"{path}: spec.out and spec.video need spec.storage, to be kept in")
    return Request(
        checkpoint=checkpoint,
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
    """Reports episodes on standard output and, in a cluster, in the RLRollout's status."""

    def __init__(self) -> None:
        self.results = RolloutResults(episodes=0, timesteps=0)
        target = Target.from_environment(*ROLLOUT)
        number = os.environ.get(GENERATION, "")
        self.generation = int(number) if number.isdigit() else None
        self.reporter = Reporter(target, self.snapshot) if target else None

    def snapshot(self) -> RolloutResults:
        """Return the results so far, as those of the document that is run."""
        return self.results.model_copy(update={"generation": self.generation})

    def run(self, request: Request) -> int:
        """Run `request` to its end and return the exit code."""
        for episode, self.results in run(request):
            if episode is not None:
                line = f"return {episode.total:10.2f}  length {len(episode.rewards):6,}  seed {episode.seed}"
                sys.stdout.write(f"episode {self.results.episodes:4d}  {line}\n")
        sys.stdout.write(summary(self.results) + "\n")
        return 0 if self.close() else 1

    def fail(self, reason: str, message: str, permanent: bool) -> None:
        """Send the last report, with the error where no retry helps."""
        if permanent:
            self.results = self.results.model_copy(update={"error": Problem.of(reason, message)})
        self.close()

    def close(self) -> bool:
        """Send the last report and return whether it arrived."""
        return self.reporter is None or self.reporter.close()


def summary(results: RolloutResults) -> str:
    """Format the results as one line."""
    if results.reward_mean is None:
        return "no episode was run"
    error = "" if results.reward_stderr is None else f", standard error {results.reward_stderr:.2f}"
    bounds = f"min {results.reward_min:.2f}, max {results.reward_max:.2f}"
    return (
        f"{results.episodes} episodes of {results.checkpoint}: mean return {results.reward_mean:.2f}, {bounds}{error}"
    )
