"""`rl.train`: a run from Python, as `rltrainer train` runs it."""

import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment, default_name
from rltrainer.api.options import Options
from rltrainer.envs import given_envs
from rltrainer.errors import CtrlC, Interrupted, NotStartedError
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.train import Result, run
from rltrainer.storage.paths import LOCAL_DIR

Settings = Mapping[str, Any]
"""A part of a document, such as {"frequency": 5}."""
ARGUMENTS = {"--experiment-name": "name", "--resume": "resume=True", "--overwrite": "overwrite=True"}
"""What the options of the command line that messages name are called here."""


def train(
    algorithm: str | Experiment,
    env: str | given_envs.MakeEnv | None = None,
    *,
    env_config: Settings | None = None,
    stop: Settings | None = None,
    checkpoint: Settings | None = None,
    evaluation: Settings | None = None,
    storage: Settings | None = None,
    name: str | None = None,
    local_dir: str | Path = LOCAL_DIR,
    restore: str | Path | Result | None = None,
    resume: bool = False,
    overwrite: bool = False,
    max_failures: int = 0,
    export_formats: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Train an algorithm in an environment until a stop condition holds, and return how the run ended.

    `env` is a name, as in a document, a class, or a function that makes an environment from `env_config`. `stop`,
    `checkpoint`, `evaluation` and `storage` are those of a document, and all other arguments options of the algorithm;
    `lambda` is written `lambda_`. A document, as the only one of these, is trained as it is.

    The run's folder is `local_dir`/`name`; where that holds another run, `name`-2 and so on, so that none is moved.
    With `resume` the run in the folder goes on; with `overwrite` it moves aside. A new run starts from the checkpoint
    or the run `restore`. Raises DocumentError (a ValueError) for what cannot be trained, RunError for what ends a run
    early, and KeyboardInterrupt after Ctrl-C, with the state kept: the same call goes on.
    """
    if isinstance(algorithm, Experiment):
        parts = (env, env_config, stop, checkpoint, evaluation, storage, name, *options.values())
        experiment = _as_it_is(algorithm, any(part is not None for part in parts))
    else:
        sections = {"stop": stop, "checkpoint": checkpoint, "evaluation": evaluation, "storage": storage}
        experiment = experiment_of(algorithm, env, env_config or {}, sections, name, options)
    start = {"resume": resume, "overwrite": overwrite, "numbered": not (resume or overwrite)}
    origin = restore.folder if isinstance(restore, Result) else restore
    try:
        return run(
            experiment,
            local_dir,
            restore_from=None if origin is None else str(origin),
            interrupt=Interrupt(_at_once),
            max_failures=max_failures,
            export_formats=export_formats,
            **start,
        )
    except Interrupted as error:
        if error.signum != signal.SIGINT:
            raise SystemExit(error.exit_code) from None
        raise KeyboardInterrupt("the run's state is kept: the same call goes on") from None
    except NotStartedError as error:
        raise NotStartedError(error.reason, _in_python(error.message), error.permanent) from None


def experiment_of(
    algorithm: str,
    env: str | given_envs.MakeEnv | None,
    env_config: Settings,
    sections: Mapping[str, Settings | None],
    name: str | None,
    options: Mapping[str, Any],
) -> Experiment:
    """Return the document of a run that is described in Python. Raises DocumentError, and TypeError for what no
    document could say."""
    if env is None:
        raise TypeError('train() needs an environment, as in train("PPO", "CartPole-v1")')
    env_name = env if isinstance(env, str) else given_envs.name_of(env)
    spec = {
        "run": algorithm,
        "env": env_name,
        "envConfig": dict(env_config),
        "config": {"lambda" if option == "lambda_" else option: value for option, value in options.items()},
        **{section: content for section, content in sections.items() if content is not None},
    }
    metadata = {"name": name or default_name(algorithm, env_name)}
    experiment = Experiment.parse({"metadata": metadata, "spec": spec}, where="train()")
    if not isinstance(env, str):
        check_travels(env, env_name, experiment.spec.options())
    return experiment


def check_travels(env: given_envs.MakeEnv, name: str, options: Options) -> None:
    """Hold that an environment can be sent to the processes that step it. Raises DocumentError."""
    elsewhere = [option for option in ("num_workers", "num_learners", "num_gpus") if getattr(options, option)]
    if options.vector_env == "subprocess":
        elsewhere.append("vector_env")
    if not elsewhere:
        return
    try:
        cloudpickle.dumps(env)
    except Exception as error:  # whatever it holds says in its own way that it cannot be copied
        raise DocumentError(
            f"train(): {elsewhere[0]} has environments in other processes, and {name} cannot be sent there "
            f"({type(error).__name__}: {error}). Put it into a module and give its class, make in it what cannot be "
            f"copied, or leave out {' and '.join(elsewhere)}"
        ) from None


def _as_it_is(experiment: Experiment, has_more: bool) -> Experiment:
    if has_more:
        raise TypeError("train() of a document takes nothing that the document says: change the document instead")
    if experiment.spec.tune is not None:
        raise DocumentError(
            "train(): the document has spec.tune, which rltrainer.tune.run(document, local_dir) searches"
        )
    return experiment


def _at_once(code: int) -> NoReturn:
    """Answer the second Ctrl-C: the interpreter, which may be a notebook's, lives on."""
    raise CtrlC("ended at once: what came after the last checkpoint is lost")


def _in_python(message: str) -> str:
    """Return a message of the commands with what is called otherwise here."""
    words = re.compile("(another )?(" + "|".join(ARGUMENTS) + ")")
    return words.sub(lambda found: (found[1] or "") + ARGUMENTS[found[2]], message)
