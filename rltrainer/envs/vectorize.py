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
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from rltrainer.envs.chain import EnvState, NotRestoredError
from rltrainer.envs.history import History
from rltrainer.envs.state import is_known, load, save
from rltrainer.errors import FOREIGN, RunError

log = logging.getLogger(__name__)

VectorMode = Literal["auto", "sync", "subprocess"]
MakeEnv = Callable[[], Env[Any, Any]]

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
    env_fns: list[MakeEnv] = [lambda: EnvWorker(make())] * num_envs
    return SerialVectorEnv(env_fns) if mode == "sync" else SubprocessVectorEnv(env_fns)


def faster_mode(make: MakeEnv, num_envs: int, cpus: int) -> VectorMode:
    """Return how `num_envs` environments are stepped faster on `cpus` CPUs, measured on an environment of its own."""
    if cpus <= 1 or not 1 < num_envs <= MAX_AUTO_PROCESSES:
        return "sync"
    try:
        step = step_seconds(make)
    except FOREIGN:  # whatever it is, the run meets it too, and names the step and the seed
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


EXITED = "it called sys.exit({})"


class EnvWorker(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment of a vector. Its observations have the shape of its space, and its state can be had and set."""

    episode_over = False
    not_restored = ""
    """Why it has not taken the last state that was set; nothing where it has."""

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self.history = None if is_known(env) else History(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. Nobody reads the environment's info, and so it is not sent."""
        self.episode_over = False
        if self.history is not None:
            self.history.begin(seed)
        try:
            obs, _ = self.env.reset(seed=seed, options=options)
        except SystemExit as error:  # in a process of its own it would end that, without a word
            raise RuntimeError(EXITED.format(error.code)) from error
        if self.history is not None:
            self.history.obs = obs
        return self._checked(obs), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, or begin the next episode where a restored one was over."""
        if self.episode_over:
            return self.reset()[0], 0.0, False, False, {}
        try:
            obs, reward, terminated, truncated, _ = self.env.step(action)
        except SystemExit as error:
            raise RuntimeError(EXITED.format(error.code)) from error
        self.episode_over = bool(terminated or truncated)
        if self.history is not None:
            self.history.add(action, obs, reward)
        return self._checked(obs), reward, terminated, truncated, {}

    def _checked(self, obs: Any) -> Any:
        """Return `obs`, checked: vectors copy it into its place, where another shape may be repeated until it fits."""
        shape = self.observation_space.shape
        if shape is not None and np.shape(obs) != shape:
            raise ValueError(f"observations have shape {np.shape(obs)}, where its space says {shape}")
        return obs

    @property
    def env_state(self) -> EnvState | None:
        """The environment's state, or None where it cannot be had."""
        state = save(self.env) if self.history is None else self.history.state()
        return None if state is None else {**state, "over": self.episode_over}

    @env_state.setter
    def env_state(self, state: EnvState) -> None:
        self.not_restored = ""
        try:
            if self.history is not None and "actions" in state:
                self.history.relive(state)
            else:
                load(self.env, state)
        except NotRestoredError as error:
            self.not_restored = str(error)
        self.episode_over = bool(state["over"])


class SerialVectorEnv(SyncVectorEnv):
    """Environments stepped one by one."""

    def __init__(self, env_fns: list[MakeEnv]) -> None:
        # copy=False: each observation is copied once, into the fragment, and not before
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)

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
        with clean_child_env():
            super().__init__(
                env_fns, copy=False, context="forkserver", worker=_serve_env, autoreset_mode=AutoresetMode.NEXT_STEP
            )

    def reset(self, **kwargs: Any) -> Any:
        """Begin episodes, as in Gymnasium.

        Raises what an environment raised, or ChildProcessError where its process has ended.
        """
        with self._naming_dead_processes():
            return super().reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Step all environments, as in Gymnasium, with the errors of `reset`."""
        with self._naming_dead_processes():
            return super().step(actions)

    def state_dict(self) -> EnvState | None:
        """Return the states of all environments; None where they cannot be had."""
        return states_of(self)

    def load_state_dict(self, state: EnvState) -> None:
        """Restore `state_dict()` of an equal vector, once this one has been reset."""
        set_states(self, state)

    @contextlib.contextmanager
    def _naming_dead_processes(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            wait([process.sentinel for process in self.processes], timeout=1.0)
            codes = {index: process.exitcode for index, process in enumerate(self.processes)}
            ended = [f"{index} ended with exit code {code}" for index, code in codes.items() if code is not None]
            self._terminate()
            raise ChildProcessError("the process of environment " + ", ".join(ended)) from error

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if all(successes):
            return
        index, type_name, message, trace = self.error_queue.get()
        self._terminate()
        error = type(type_name, (Exception,), {})(message)  # by its own name, as if it had been raised here
        error.add_note(f"in the process of environment {index}:\n{trace}")
        raise error

    def _terminate(self) -> None:
        self._state = AsyncState.DEFAULT
        self.close(terminate=True)


def _serve_env(index: int, env_fn: MakeEnv, pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any) -> None:
    """Run Gymnasium's loop in a process, until the pipe closes. Signals to the trainer's group do not reach it."""
    os.setsid()
    with contextlib.suppress(BrokenPipeError):  # the trainer is gone
        _async_worker(index, env_fn, pipe, parent_pipe, memory, PicklableErrorQueue(errors), *rest)  # type: ignore[arg-type]


class PicklableErrorQueue:
    """A queue of errors that passes on their names and messages: not every error can be pickled."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, item: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Pass on an error: the index of its environment, its type, itself and its traceback."""
        index, error_type, error, trace = item
        self.queue.put((index, error_type.__name__, str(error), trace))


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
