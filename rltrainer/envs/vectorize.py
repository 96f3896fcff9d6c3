"""Vectors of environments that have none of their own: stepped one by one, or each in a process of its own.

Both give the same numbers, and the state of either can be restored into the other.
"""

import contextlib
import logging
import math
import multiprocessing as mp
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from time import perf_counter
from types import ModuleType
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import Env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from rltrainer.envs.state import State, load, save

log = logging.getLogger(__name__)

How = Literal["auto", "sync", "subprocess"]
Make = Callable[[], Env[Any, Any]]

PIPE_SECONDS = 80e-6
"""What a step of one environment in another process costs beside the step. `python -m benchmarks.vector_env` on 2 CPUs:
8 environments that do nothing take 18 us one by one and 468 us in processes; with images of 4 x 84 x 84, 20 and 625."""
CLEARLY = 1.5
"""How many times faster processes must promise to be: they also take memory, and seconds to begin."""
MOST_PROCESSES = 64
"""Environments of one worker up to which `auto` gives each a process."""
MEASURED_SECONDS, MEASURED_STEPS = 0.2, 500
"""How long a step's time is measured, at most."""


def vectorized(make: Make, num_envs: int, how: How, cpus: int) -> "SerialVectorEnv | Subprocesses":
    """`num_envs` environments that `make` makes, as one vector; with "auto", as `cpus` CPUs step them faster."""
    if how == "auto":
        how = quicker(make, num_envs, cpus)
    members: list[Make] = [lambda: EnvWorker(make())] * num_envs
    return SerialVectorEnv(members) if how == "sync" else Subprocesses(members)


def quicker(make: Make, num_envs: int, cpus: int) -> How:
    """How `num_envs` environments are stepped faster on `cpus` CPUs, measured with an environment made for this."""
    if cpus <= 1 or not 1 < num_envs <= MOST_PROCESSES:
        return "sync"
    try:
        step = step_seconds(make)
    except Exception:  # whatever it is, the run meets it too, and names the step and the seed
        return "sync"
    how = choice(step, num_envs, cpus)
    log.info(
        "a step of one environment takes %.0f us: %d are stepped %s",
        *(step * 1e6, num_envs, "one by one" if how == "sync" else "each in a process of its own"),
    )
    return how


def choice(step: float, num_envs: int, cpus: int) -> How:
    """The same, from the seconds of one environment's step: processes must clearly gain more than their pipes cost."""
    one_by_one = num_envs * step
    apart = math.ceil(num_envs / cpus) * step + num_envs * PIPE_SECONDS
    return "subprocess" if one_by_one > CLEARLY * apart else "sync"


def step_seconds(make: Make) -> float:
    """Mean seconds of a step of one environment with random actions, the resets between episodes included."""
    env = make()
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
        env.close()


class EnvWorker(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment of a vector. Its observations have the shape of its space, and its state can be had and set."""

    over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode. What else the environment tells is not read by anybody, and so not sent."""
        self.over = False
        obs, _ = self.env.reset(seed=seed, options=options)
        return self._checked(obs), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, or the beginning of the next episode where a restored one was over."""
        if self.over:
            return self.reset()[0], 0.0, False, False, {}
        obs, reward, terminated, truncated, _ = self.env.step(action)
        self.over = bool(terminated or truncated)
        return self._checked(obs), reward, terminated, truncated, {}

    def _checked(self, obs: Any) -> Any:
        """`obs`. Vectors copy it into its place, where another shape may be repeated until it fits."""
        shape = self.observation_space.shape
        if shape is not None and np.shape(obs) != shape:
            raise ValueError(f"observations have shape {np.shape(obs)}, where its space says {shape}")
        return obs

    @property
    def saved(self) -> State | None:
        """The environment's state, or None where it cannot be had."""
        state = save(self.env)
        return None if state is None else {**state, "over": self.over}

    @saved.setter
    def saved(self, state: State) -> None:
        load(self.env, state)
        self.over = bool(state["over"])


class SerialVectorEnv(SyncVectorEnv):
    """Environments stepped one by one."""

    def __init__(self, members: list[Make]) -> None:
        # copy=False: each observation is copied once, into the fragment, and not before
        super().__init__(members, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)

    def state_dict(self) -> State | None:
        """The states of all environments, or None where they cannot be had."""
        return gathered(self)

    def load_state_dict(self, state: State) -> None:
        """Goes on from `state_dict()` of an equal vector, once this one has been reset."""
        scattered(self, state)


class Subprocesses(AsyncVectorEnv):
    """Environments each in a process of its own; observations come back through shared memory."""

    def __init__(self, members: list[Make]) -> None:
        # a clean server forks the processes: this one may have threads, whose locks a fork would copy as they are
        mp.set_forkserver_preload(["rltrainer.envs.source"])
        with clean_child_env():
            super().__init__(
                members, copy=False, context="forkserver", worker=_child, autoreset_mode=AutoresetMode.NEXT_STEP
            )

    def reset(self, **given: Any) -> Any:
        """As in Gymnasium. Raises what an environment raised, or ChildProcessError where its process has ended."""
        with self._watched():
            return super().reset(**given)

    def step(self, actions: Any) -> Any:
        """As in Gymnasium, with the errors of `reset`."""
        with self._watched():
            return super().step(actions)

    def state_dict(self) -> State | None:
        """The states of all environments, or None where they cannot be had."""
        return gathered(self)

    def load_state_dict(self, state: State) -> None:
        """Goes on from `state_dict()` of an equal vector, once this one has been reset."""
        scattered(self, state)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            wait([process.sentinel for process in self.processes], timeout=1.0)
            codes = {index: process.exitcode for index, process in enumerate(self.processes)}
            ended = [f"{index} ended with exit code {code}" for index, code in codes.items() if code is not None]
            self._end()
            raise ChildProcessError("the process of environment " + ", ".join(ended)) from error

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if all(successes):
            return
        index, kind, message, trace = self.error_queue.get()
        self._end()
        error = type(kind, (Exception,), {})(message)  # by its own name, as if it had been raised here
        error.add_note(f"in the process of environment {index}:\n{trace}")
        raise error

    def _end(self) -> None:
        self._state = AsyncState.DEFAULT
        self.close(terminate=True)


def _child(index: int, member: Make, pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any) -> None:
    """What a process does: Gymnasium's loop, until the pipe closes. Signals to the trainer's group do not reach it."""
    os.setsid()
    with contextlib.suppress(BrokenPipeError):  # the trainer is gone
        _async_worker(index, member, pipe, parent_pipe, memory, PicklableErrorQueue(errors), *rest)  # type: ignore[arg-type]


class PicklableErrorQueue:
    """A queue of errors that passes on their names and messages: not every error can be pickled."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, item: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Passes on an error: whose it is, its type, itself and its traceback."""
        index, kind, error, trace = item
        self.queue.put((index, kind.__name__, str(error), trace))


@contextlib.contextmanager
def clean_child_env() -> Iterator[None]:
    """Within it processes begin with one thread for numerics, and without the program's main module.

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


def gathered(envs: SerialVectorEnv | Subprocesses) -> State | None:
    """The state of each environment by its index, or None where one cannot be had."""
    states = envs.get_attr("saved")
    return None if any(state is None for state in states) else {str(i): state for i, state in enumerate(states)}


def scattered(envs: SerialVectorEnv | Subprocesses, state: State) -> None:
    """Gives each environment its state."""
    envs.set_attr("saved", [state[str(i)] for i in range(envs.num_envs)])
