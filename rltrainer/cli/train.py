"""`rltrainer train`: a run, or a search over options, of a document or of the command line alone."""

import argparse
import os
import sys

from rltrainer.api.base import DocumentError
from rltrainer.api.options import OptionError
from rltrainer.api.status import Problem
from rltrainer.cli import ray_arguments
from rltrainer.cli.common import natural, positive, show_origin
from rltrainer.cli.document import EXPORTS, SCHEDULER_NAMES, Job, jobs
from rltrainer.errors import Interrupted, NotStartedError, RunError
from rltrainer.reporting.status import EXPERIMENT, Reporter, Target, earlier
from rltrainer.runs.interrupt import Interrupt
from rltrainer.storage.paths import LOCAL_DIR, pid_file


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    what = sub.add_argument_group("what to train")
    what.add_argument(
        *("-f", "--file", "--config-file"),
        metavar="FILE",
        help="a document or several, or RLlib's YAML of named experiments, - for standard input; without it, --run and "
        "--env say what to train",
    )
    what.add_argument("--run", metavar="NAME", help="algorithm, instead of the document's")
    what.add_argument("--env", metavar="NAME", help="environment, instead of the document's")
    what.add_argument(
        "--config",
        metavar="JSON",
        help='options, over the document\'s; {"lr": {"grid_search": [0.001, 0.0001]}} searches. RLlib\'s names are '
        "understood",
    )
    what.add_argument("--stop", metavar="JSON", help="stop conditions, over the document's")
    what.add_argument("--env-config", metavar="JSON", help="arguments of the environment, over the document's")
    what.add_argument(
        "--eval-interval", type=positive, metavar="N", help="iterations between evaluations of the policy (none)"
    )
    what.add_argument("--eval-episodes", type=positive, metavar="N", help="episodes of each evaluation (10)")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the document, its value as YAML, as in spec.evaluation.interval=2; goes over all else, and "
        "may be given again",
    )
    what.add_argument("--experiment-name", metavar="NAME", help="name of the run and of its folder")
    _search_arguments(sub.add_argument_group("search"))
    _checkpoint_arguments(sub.add_argument_group("checkpoints"))
    _place_arguments(sub.add_argument_group("where results go"))
    ray_arguments.add_arguments(sub.add_argument_group("Ray"))
    sub.add_argument("--attempt", type=natural, default=0, metavar="N", help="number to report, set by the operator")


def _search_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--num-samples", type=positive, metavar="N", help="trials; with grids, times that each point is tried"
    )
    group.add_argument(
        "--scheduler",
        choices=SCHEDULER_NAMES,
        metavar="NAME",
        help=f"which trials go on: {', '.join(SCHEDULER_NAMES)}. HyperOpt and Optuna choose options instead",
    )
    group.add_argument(
        "--scheduler-config", metavar="JSON", help='its options, as in {"time_attr": "training_iteration", "max_t": 50}'
    )
    group.add_argument(
        "--resources-per-trial", metavar="JSON", help='what a trial reserves, as in {"cpu": 2, "gpu": 0.5}'
    )


def _checkpoint_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--checkpoint-freq",
        type=natural,
        metavar="N",
        help="iterations between checkpoints; 0: only at the end",
    )
    group.add_argument("--checkpoint-at-end", action="store_true", default=None, help="write one at the end (default)")
    group.add_argument("--keep-checkpoints-num", type=natural, metavar="N", help="checkpoints kept; 0 keeps all")
    group.add_argument(
        "--checkpoint-score-attr", metavar="METRIC", help="metric that ranks them; with min-, the smallest is the best"
    )
    group.add_argument(
        "--export-formats", nargs="+", choices=EXPORTS, default=[], help="what the policy is written as at the end"
    )
    group.add_argument(
        "--max-failures", type=natural, metavar="N", help="failures after which the run, or a trial, goes on"
    )
    group.add_argument(
        "--restore", metavar="PATH", help="checkpoint or run, a folder or s3:// URI, that a new run starts from"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in its folder, even one that is done",
    )
    group.add_argument("--overwrite", action="store_true", help="begin anew; what the folder holds is moved aside")


def _place_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--local-dir", metavar="DIR", help=f"where runs are kept ({LOCAL_DIR})")
    group.add_argument(
        "--upload-dir", metavar="URI", help="s3://bucket/… that results are synced to; AWS_ENDPOINT_URL names a server"
    )


def main(arguments: argparse.Namespace) -> int:
    """Train the documents of the command line; one that is invalid is reported to Kubernetes too."""
    try:
        pending = jobs(arguments)
    except (DocumentError, OptionError) as error:
        report_invalid(str(error))
        raise
    ray_arguments.apply(arguments, any(job.uses_ray for job in pending))
    return run_jobs(pending, arguments)


def run_jobs(pending: list[Job], arguments: argparse.Namespace) -> int:
    """Train documents in this process, one after the other; return the first exit code that is not 0."""
    interrupt, file = Interrupt(), pid_file()
    interrupt.install()  # before the long import, and for as long as the process lives: a repeated SIGTERM does no harm
    if file:
        file.write_text(str(os.getpid()))
    try:
        for job in pending:
            for note in job.notes:
                sys.stderr.write(f"note: {note}\n")
            if code := train(job, arguments, interrupt):
                return code
    finally:
        interrupt.close()
        if file:
            file.unlink(missing_ok=True)
    return 0


def train(job: Job, arguments: argparse.Namespace, interrupt: Interrupt) -> int:
    """Train one document and return the exit code."""
    settings = {
        "local_dir": job.local_dir,
        "attempt": arguments.attempt,
        "restore_from": job.restore,
        "overwrite": arguments.overwrite,
        "interrupt": interrupt,
        "resume": arguments.resume,
        "export_formats": job.export_formats,
        "numbered": job.numbered,
    }
    try:
        if job.experiment.spec.tune is not None:
            from rltrainer import tune  # noqa: PLC0415 - PyTorch and Ray come with it

            search = tune.run(job.experiment, **settings)
            best = search.best.name if search.best else f"none: no trial has reported {job.experiment.spec.tune.metric}"
            sys.stdout.write(f"all trials are done: {search.folder}, the best is {best}\n")
            return 0
        from rltrainer.runs.train import run  # noqa: PLC0415 - PyTorch comes with it

        result = run(job.experiment, max_failures=retries(job, arguments), **settings)
    except NotStartedError:
        raise
    except (RunError, Interrupted) as error:  # the run has logged why
        show_origin(arguments, error)
        return error.exit_code
    sys.stdout.write(f"{result.stopped_by}: {result.checkpoint or result.folder}\n")
    return 0


def retries(job: Job, arguments: argparse.Namespace) -> int:
    """Return the failures after which a single run goes on; in a cluster the operator makes another attempt instead."""
    if arguments.max_failures is not None:
        return int(arguments.max_failures)
    spec, in_cluster = job.experiment.spec, Target.from_environment(*EXPERIMENT) is not None
    return spec.max_failures if "max_failures" in spec.model_fields_set and not in_cluster else 0


def report_invalid(message: str) -> None:
    """Report to Kubernetes, in a cluster, that the document is invalid."""
    target = Target.from_environment(*EXPERIMENT)
    if target:
        problem = Problem.of("InvalidOption", message)
        report = earlier(target).model_copy(update={"error": problem})
        Reporter(target, lambda: report).close()
