"""Where the time of a training step goes: `make profile`.

    python -m benchmarks.profile [--only PATTERN] [--seconds S]

Each algorithm is trained for a while as `rltrainer train` does it, with the functions below wrapped in a stopwatch. A
stopwatch stands still while another one runs within it, so that the parts add up. Each costs about a microsecond a
call. Prints microseconds for each environment step.
"""

import argparse
import fnmatch
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import wraps
from time import perf_counter
from typing import Any
from unittest.mock import patch

from benchmarks.speed import ours
from benchmarks.speed.table import CONTINUOUS, DQN_PONG, PPO_PONG, TWO_WORKERS, ZOO_DQN, ZOO_PPO
from rltrainer import algorithms
from rltrainer.accel.tape import Tape
from rltrainer.api.base import API_VERSION
from rltrainer.api.documents import Experiment
from rltrainer.backend.ray.backend import RayBackend
from rltrainer.core.algorithm import Algorithm
from rltrainer.errors import Interrupted
from rltrainer.learning import learner, update_context
from rltrainer.learning.parameter_groups import ParameterGroups
from rltrainer.replay.buffer import Replay
from rltrainer.reporting.progress import Progress
from rltrainer.reporting.results import Results
from rltrainer.runs import train
from rltrainer.runs.interrupt import Interrupt
from rltrainer.sampling import worker

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "PG": ("CartPole-v1", {}),
    "A2C": ("CartPole-v1", {"timesteps_per_iteration": 2000}),
    "A3C": ("CartPole-v1", {}),
    "PPO": ("CartPole-v1", ZOO_PPO),
    "IMPALA": ("CartPole-v1", {}),
    "APPO": ("CartPole-v1", {}),
    "DQN": ("CartPole-v1", ZOO_DQN),
    "Rainbow": ("CartPole-v1", {}),
    "ApexDQN": ("CartPole-v1", {}),
    "DDPG": ("Pendulum-v1", CONTINUOUS),
    "TD3": ("Pendulum-v1", CONTINUOUS),
    "ApexDDPG": ("Pendulum-v1", CONTINUOUS),
    "SAC": ("Pendulum-v1", CONTINUOUS),
    "PPO, images": ("ALE/Pong-v5", PPO_PONG),
    "DQN, images": ("ALE/Pong-v5", DQN_PONG),
    "IMPALA, 2 workers": ("CartPole-v1", TWO_WORKERS),
    "APPO, 2 workers": ("CartPole-v1", TWO_WORKERS),
}
PARTS = (
    "environment", "inference", "copies", "buffer", "drawing", "forward", "backward", "optimizer", "logging", "Ray",
    "rest",
)  # fmt: skip
WARM = 0.25
"""Share of the time before the count begins."""


class Stopwatches:
    """A stopwatch for each part, of which one runs at a time."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.running = ["rest"]
        self.since = perf_counter()

    def restart(self, keep: bool = False) -> None:
        """Set all to zero; with `keep`, only bring the running one up to date."""
        self._split()
        if not keep:
            self.seconds.clear()

    def _split(self) -> None:
        now = perf_counter()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `function` so that its time counts as that of `part`."""

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self._split()
            self.running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._split()
                self.running.pop()

        return measured


def timed_functions(ray: bool) -> Iterator[tuple[str, Any, str]]:
    """Yield (part, owner, name) of each function that is timed."""
    yield from (("copies", worker.Worker, "_store_obs"), ("copies", worker, "load_weights"))
    yield from (("copies", learner.Learner, "weights"), ("copies", learner, "collate"))
    yield from (("buffer", Replay, "add"), ("drawing", Replay, "sample"), ("drawing", Replay, "update_priorities"))
    yield from (("forward", update_context.UpdateContext, "run_update"), ("backward", Tape, "backward"))
    yield from (("optimizer", ParameterGroups, "step"), ("optimizer", ParameterGroups, "update_targets"))
    yield from (("logging", Results, "write"), ("logging", Progress, "add"))
    if ray:
        yield from (("Ray", RayBackend, name) for name in ("submit", "poll", "weights"))


@contextmanager
def timed(run: str, ray: bool) -> Iterator[tuple[Stopwatches, Algorithm]]:
    """Time the functions in this context, and those of the algorithm that it yields, unless Ray runs them."""
    watches, algorithm, initialize = Stopwatches(), algorithms.load(run), worker.Worker.__init__

    def with_timed_env(worker: worker.Worker, *args: Any, **kwargs: Any) -> None:
        initialize(worker, *args, **kwargs)
        worker.envs.step = watches.timed("environment", worker.envs.step)  # type: ignore[method-assign]

    with ExitStack() as stack:
        for part, owner, name in timed_functions(ray):
            stack.enter_context(patch.object(owner, name, watches.timed(part, getattr(owner, name))))
        if not ray:
            stack.enter_context(patch.object(worker.Worker, "__init__", with_timed_env))
            act, update = watches.timed("inference", algorithm.act), watches.timed("forward", algorithm.update)
            algorithm = replace(algorithm, act=act, update=update)
        yield watches, algorithm


class Count:
    """Counts the steps of a run after its warm-up, then interrupts it."""

    def __init__(self, watches: Stopwatches, interrupt: Interrupt, seconds: float) -> None:
        self.watches, self.interrupt, self.seconds = watches, interrupt, seconds
        self.start, self.warm, self.steps = perf_counter(), False, 0

    def tick(self, steps: int) -> None:
        """Count the steps of an iteration."""
        now = perf_counter()
        self.steps += steps
        if not self.warm and now - self.start > WARM * self.seconds:
            self.start, self.warm, self.steps = now, True, 0
            self.watches.restart()
        elif self.warm and now - self.start > self.seconds:
            self.interrupt.ask(signal.SIGTERM)


def profile(run: str, env: str, config: Mapping[str, Any], seconds: float) -> tuple[Stopwatches, int]:
    """Train for `seconds`; return the time of each part and the environment steps."""
    spec = {"run": run, "env": env, "config": dict(config), "checkpoint": {"atEnd": False}}
    experiment = Experiment.parse(
        {"apiVersion": API_VERSION, "kind": "RLExperiment", "metadata": {"name": "profile"}, "spec": spec}
    )
    interrupt, ray = Interrupt(), bool(config.get("num_workers"))
    with timed(run, ray) as (watches, algorithm), tempfile.TemporaryDirectory() as folder:
        count = Count(watches, interrupt, seconds)
        ours.METERS[:] = [count]
        metered = replace(algorithm, strategy=ours.Metered(algorithm.strategy))
        with patch.object(algorithms, "load", lambda name: metered), suppress(Interrupted):
            train.run(experiment, folder, interrupt=interrupt)
        watches.restart(keep=True)
    if not count.steps:
        raise SystemExit(f"{run} on {env} was ended before its second iteration")
    return watches, count.steps


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="*", help="algorithms whose name matches")
    arguments.add_argument("--seconds", type=float, default=8.0, help="of each (%(default)s)")
    options = arguments.parse_args()
    print(f"{'us a step':18}" + "".join(f"{part:>12}" for part in (*PARTS, "steps/s")))
    for name, (env, config) in TASKS.items():
        if fnmatch.fnmatch(name, options.only):
            watches, steps = profile(name.partition(",")[0], env, config, options.seconds)
            parts = [watches.seconds[part] / steps * 1e6 for part in PARTS]
            print(f"{name:18}" + "".join(f"{part:12.1f}" for part in parts) + f"{1e6 / sum(parts):12.0f}", flush=True)


if __name__ == "__main__":
    main()
