"""Vectors of environments that have none of their own: stepped one by one, or each in a process of its own.

Both give the same numbers, and the state of either can be restored into the other.
"""

import contextlib
import faulthandler
import logging
import math
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import wait
from time import perf_counter
from types import ModuleType
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import Env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from rltrainer.envs.chain import EnvState, NotRestoredError
from rltrainer.envs.env_worker import EnvWorker
from rltrainer.errors import RunError
from rltrainer.foreign import Failure, caught

log = logging.getLogger(__name__)

VectorMode = Literal["auto", "sync", "subprocess"]
MakeEnv = Callable[[], Env[Any, Any]]
FailureArguments = tuple[str, str, int]
"""What a Failure is made of."""

PIPE_SECONDS = 80e-6
"""What a step of one environment in another process costs beside the step. `python -m benchmarks.vector_env` on 2 CPUs:
8 environments that do nothing take 18 us one by one and 468 us in processes; with images of 4 x 84 x 84, 20 and 625."""
MIN_SPEEDUP = 1.5
"""How many times faster processes must promise to be: they also take memory, and seconds to begin."""
MAX_AUTO_PROCESSES = 64
"""Environments of one worker up to which `auto` gives each a process."""
MEASURED_SECONDS, MEASURED_STEPS = 0.2, 500
"""How long a step's time is measured, at most."""


def vectorized(make: MakeEnv, num_envs: int, mode: VectorMode, cpus: int) -> "SerialVectorEnv | SubprocessVectorEnv":
    """Make `num_envs` environments by `make` as one vector; with "auto", as `cpus` CPUs step them faster."""
    if mode == "auto":
        mode = faster_mode(make, num_envs, cpus)
    trainer = None if mode == "sync" else os.getpid()
    env_fns: list[MakeEnv] = [partial(make_worker, make, index, trainer) for index in range(num_envs)]
    return SerialVectorEnv(env_fns) if mode == "sync" else SubprocessVectorEnv(env_fns)


def make_worker(make: MakeEnv, index: int, trainer: int | None = None) -> EnvWorker:
    """Make environment `index` of a vector: in process `trainer`, where that is given, only to be looked at."""
    env = EnvWorker(make(), index)
    env.closes_silently = os.getpid() == trainer
    return env


def faster_mode(make: MakeEnv, num_envs: int, cpus: int) -> VectorMode:
    """Return how `num_envs` environments are stepped faster on `cpus` CPUs, measured on an environment of its own."""
    if cpus <= 1 or not 1 < num_envs <= MAX_AUTO_PROCESSES:
        return "sync"
    try:
        step = step_seconds(make)
    except (Failure, RunError):  # whatever it is, the run meets it too, and names the step and the seed
        return "sync"
    mode = mode_for(step, num_envs, cpus)
    log.info(
        "a step of one environment takes %.0f us: %d are stepped %s",
        *(step * 1e6, num_envs, "one by one" if mode == "sync" else "each in a process of its own"),
    )
    return mode


def mode_for(step: float, num_envs: int, cpus: int) -> VectorMode:
    """Return the faster way where one environment's step takes `step` seconds: processes must pay for their pipes."""
    serial = num_envs * step
    parallel = math.ceil(num_envs / cpus) * step + num_envs * PIPE_SECONDS
    return "subprocess" if serial > MIN_SPEEDUP * parallel else "sync"


def step_seconds(make: MakeEnv) -> float:
    """Measure mean seconds of a step of one environment with random actions, resets between episodes included."""
    env = make_worker(make, 0)
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        spent, steps = 0.0, 0
        while spent < MEASURED_SECONDS and steps < MEASURED_STEPS:
            action = env.action_space.sample()
            begun = perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
            spent, steps = spent + perf_counter() - begun, steps + 1
        return spent / steps
    finally:
        with contextlib.suppress(Failure):
            env.close()


def check_autoreset(name: str, envs: VectorEnv[Any, Any, Any]) -> None:
    """Close `envs` and raise RunError, permanent, unless they begin the next episode in the step after the last one.

    Vectors that do not say how they begin it do so, for that is Gymnasium's default.
    """
    mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
    if mode != AutoresetMode.NEXT_STEP:
        envs.close()
        raise RunError(
            "EnvironmentFailed",
            f"environment {name} is a vector of autoreset_mode {mode.value}, which hides what "
            "episodes end in: it must begin the next episode in the next step (NEXT_STEP, Gymnasium's default)",
            permanent=True,
        )


class SerialVectorEnv(SyncVectorEnv):
    """Environments stepped one by one."""

    def __init__(self, env_fns: list[MakeEnv]) -> None:
        # copy=False: each observation is copied once, into the fragment, and not before
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)

    def close_extras(self, **kwargs: Any) -> None:
        """Close all environments, those after one that fails in it too. Raises the Failure of one."""
        self.closed = True
        with contextlib.ExitStack() as closing:
            for env in self.envs:
                closing.callback(env.close)

    def state_dict(self) -> EnvState | None:
        """Return the states of all environments; None where they cannot be had."""
        return states_of(self)

    def load_state_dict(self, state: EnvState) -> None:
        """Restore `state_dict()` of an equal vector, once this one has been reset."""
        set_states(self, state)


class SubprocessVectorEnv(AsyncVectorEnv):
    """Environments each in a process of its own; observations come back through shared memory."""

    def __init__(self, env_fns: list[MakeEnv]) -> None:
        # a clean server forks the processes: this one may have threads, whose locks a fork would copy as they are
        mp.set_forkserver_preload(["rltrainer.envs.source"])
        with clean_child_env(), self._naming_dead_processes():
            super().__init__(
                env_fns, copy=False, context="forkserver", worker=_serve_env, autoreset_mode=AutoresetMode.NEXT_STEP
            )

    def reset(self, **kwargs: Any) -> Any:
        """Begin episodes, as in Gymnasium.

        Raises Failure of an environment, also where its process has ended.
        """
        with self._naming_dead_processes():
            return super().reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Step all environments, as in Gymnasium, with the errors of `reset`."""
        with self._naming_dead_processes():
            return super().step(actions)

    def state_dict(self) -> EnvState | None:
        """Return the states of all environments; None where they cannot be had."""
        with self._naming_dead_processes():
            return states_of(self)

    def load_state_dict(self, state: EnvState) -> None:
        """Restore `state_dict()` of an equal vector, once this one has been reset."""
        with self._naming_dead_processes():
            set_states(self, state)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close all environments and end their processes. Raises the Failure of one."""
        self.closed = True
        with self._naming_dead_processes():
            super().close_extras(timeout, terminate)
        self._raise_reported()

    @contextlib.contextmanager
    def _naming_dead_processes(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            wait([process.sentinel for process in self.processes], timeout=1.0)
            ended = [(i, process.exitcode) for i, process in enumerate(self.processes) if process.exitcode is not None]
            self._raise_reported()
            self._terminate()
            raise Failure("; ".join(f"the process of environment {i} {_end(code)}" for i, code in ended)) from error

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if not all(successes):
            self._terminate(self.error_queue.get())

    def _raise_reported(self) -> None:
        """Raise what a process that has ended has reported last, if it has."""
        if not self.error_queue.empty():
            self._terminate(self.error_queue.get())

    def _terminate(self, report: FailureArguments | None = None) -> None:
        """End all processes, and raise the Failure that one has reported."""
        self._state = AsyncState.DEFAULT
        self.closed = True
        super().close_extras(terminate=True)
        if report is not None:
            raise Failure(*report)


def _end(exit_code: int) -> str:
    """Say how a process has ended."""
    return f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"


def _serve_env(index: int, env_fn: MakeEnv, pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any) -> None:
    """Run Gymnasium's loop in a process, until the pipe closes. Signals to the trainer's group do not reach it.

    What it raises outside of that loop, in making the environment and in closing it, is reported too.
    """
    os.setsid()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # where the program had begun a fork server before us
    signal.signal(signal.SIGINT, lambda *_: None)  # so that a KeyboardInterrupt can be the environment's own alone
    faulthandler.enable()  # native code may crash the process: it says where
    logging.getLogger("rltrainer").setLevel(logging.ERROR)  # the trainer itself has met what there is to warn of
    reports = FailureQueue(errors)
    with contextlib.suppress(BrokenPipeError):  # the trainer is gone
        try:
            _async_worker(index, env_fn, pipe, parent_pipe, memory, reports, *rest)  # type: ignore[arg-type]
        except (Failure, RunError) as error:
            reports.put((index, type(error), error, ""))


class FailureQueue:
    """A queue of what Failures are made of: not every error can be pickled."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, item: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Pass on an error: the index of its environment, its type, itself and its traceback."""
        index, _, error, _ = item
        failure = Failure(str(error)) if isinstance(error, RunError) else caught(error)
        self.queue.put((failure.words, failure.frames, index))


@contextlib.contextmanager
def clean_child_env() -> Iterator[None]:
    """Let processes that begin within it have one thread for numerics, and not the program's main module.

    Python would import that again in each: a script without a guard would begin anew there, and the command line
    would load PyTorch.
    """
    main, threads = sys.modules["__main__"], os.environ.get("OMP_NUM_THREADS")
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]


def states_of(envs: SerialVectorEnv | SubprocessVectorEnv) -> EnvState | None:
    """Return the state of each environment by its index; None where one cannot be had."""
    states = envs.get_attr("env_state")
    return None if any(state is None for state in states) else {str(i): state for i, state in enumerate(states)}


def set_states(envs: SerialVectorEnv | SubprocessVectorEnv, state: EnvState) -> None:
    """Restore the state of each environment. Raises NotRestoredError where one cannot go on from it."""
    envs.set_attr("env_state", [state[str(i)] for i in range(envs.num_envs)])
    for index, why in enumerate(envs.get_attr("not_restored")):
        if why:
            raise NotRestoredError(f"environment {index}: {why}")


class SingleEnvView(gymnasium.Env[Any, Any]):
    """The one environment of a vector of one."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs, self.metadata, self.render_mode = envs, envs.metadata, envs.render_mode
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, _ = self.envs.reset(seed=seed, options=options)
        return obs[0].copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        obs, reward, terminated, truncated, _ = self.envs.step(np.asarray(action)[None])
        return obs[0].copy(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """Return its picture, [H, W, 3]; None where it gives none."""
        frames = self.envs.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the vector."""
        self.envs.close()
