"""The acting half: a worker steps a vector of environments and writes what it sees into one fragment, in place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces as gym_spaces

from rltrainer import machine
from rltrainer.api.options import Options
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.fragment import Fragment
from rltrainer.core.types import CPU, Array, EpisodeReport, Spaces, State, Weights
from rltrainer.envs import state as env_state
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.networks.parameters import FlatParameters, load_weights
from rltrainer.ops.normalization import discounted_so_far
from rltrainer.seeding import Role, derived_seed


@dataclass(frozen=True)
class WorkerConfig:
    """What it takes to build a worker or a learner, wherever it is to live."""

    algorithm: Algorithm
    source: EnvSource
    spaces: Spaces
    options: Options
    seed: int
    gpu_share: float = 1.0
    """Part of a GPU that each learner gets where it gets one: a search may have trials share them."""


class Worker:
    """`num_envs_per_worker` environments and a copy of the policy. It reuses its fragment: read it before the next."""

    def __init__(
        self, worker_config: WorkerConfig, index: int, generation: int = 0, device: torch.device = CPU
    ) -> None:
        """`device` is where the policy computes actions; environments are on the CPU."""
        options, algorithm = worker_config.options, worker_config.algorithm
        self.worker_config, self.index, self.device = worker_config, index, device
        self.unroll_length, self.num_envs = options.rollout_fragment_length, options.num_envs_per_worker
        self.policy = acting(algorithm, worker_config.spaces, options).to(device)
        self.flat = FlatParameters(self.policy)
        self.action_distribution = algorithm.action_distribution(worker_config.spaces.actions)
        cpus = machine.cpus() if not options.num_workers else int(options.num_cpus_per_worker)
        self.envs = worker_config.source.vector(self.num_envs, options.vector_env, cpus)
        self.clips_rewards = worker_config.source.clips_rewards
        self.fragment = self._allocate()
        self.context = ActContext(
            options,
            torch.Generator(),
            self.num_envs,
            first=index * self.num_envs,
            total=self.num_envs * max(1, options.num_workers),
        )
        self.begin(generation)

    def _allocate(self) -> Fragment:
        space, t, b = self.worker_config.spaces.observations, self.unroll_length, self.num_envs
        return Fragment(
            obs=np.zeros((t + 1, b, *(space.shape or ())), observation_dtype(space)),
            a=np.zeros((t, b, *self.action_distribution.shape), self.action_distribution.dtype),
            r=np.zeros((t, b), np.float32),
            terminated=np.zeros((t, b), np.bool_),
            truncated=np.zeros((t, b), np.bool_),
            valid=np.ones((t, b), np.bool_),
        )

    def begin(self, generation: int) -> None:
        """Begins new episodes. The same worker of the same generation begins in the same states."""
        seed = self.worker_config.seed
        self.context.rng.manual_seed(derived_seed(seed, Role.ACTIONS, self.index, generation))
        first = self.index * self.num_envs
        seeds = [derived_seed(seed, Role.ENVIRONMENT, first + i, generation) for i in range(self.num_envs)]
        self.env_seed, self.steps_done = seeds[0], 0
        # a vector with one random state for all its environments takes one seed, and no list of them
        per_env = hasattr(self.envs.unwrapped, "envs") or hasattr(self.envs.unwrapped, "env_fns")
        try:
            obs, _ = self.envs.reset(seed=seeds if per_env else seeds[0])  # type: ignore[arg-type]
            self._keep(0, obs)
        except Exception as error:
            self._blame(0, error)
        self.just_ended = np.zeros(self.num_envs, np.bool_)
        self.context.state = self._there(self.worker_config.algorithm.initial_state(self.policy, self.num_envs))
        self.running_return = np.zeros(self.num_envs)
        self.running_length = np.zeros(self.num_envs, np.int64)
        self.running_discounted = np.zeros(self.num_envs, np.float32)

    def sample(self, weights: Weights, check: Callable[[], None] | None = None) -> tuple[Fragment, EpisodeReport]:
        """One fragment with the policy of `weights`. `check` is called before each step, and may raise to abandon."""
        load_weights(self.flat, weights)
        self.context.timesteps = weights["timesteps"]
        fragment = self.fragment
        if self.steps_done:
            fragment.obs[0] = fragment.obs[self.unroll_length]
        fragment.state = {name: value.cpu().numpy().copy() for name, value in self.context.state.items()}
        with torch.inference_mode():
            for t in range(self.unroll_length):
                if check is not None:
                    check()
                self._step(t)
            self._check()
            report = self._account()
            self._prepare()
        self.steps_done += self.unroll_length
        return fragment, report

    def _step(self, t: int) -> None:
        """Acts on obs[t]; writes a[t], r[t], the ends of episodes and obs[t + 1]."""
        fragment = self.fragment
        obs_t = torch.from_numpy(fragment.obs[t]).to(self.device)
        action, extras = self.worker_config.algorithm.act(self.policy, obs_t, self.context)
        fragment.a[t] = a = action.cpu().numpy()
        for name, value in extras.items():
            self._note(name, t, value.cpu().numpy())
        try:
            obs, reward, fragment.terminated[t], fragment.truncated[t], _ = self.envs.step(
                self.action_distribution.to_env(a)
            )
            self._keep(t + 1, obs)
            fragment.r[t] = reward
        except Exception as error:
            self._blame(t, error)
        if self.context.state:
            self.context.forget(torch.from_numpy(self._done(t - 1)).to(self.device))

    def _done(self, t: int) -> Array:
        """Which episodes ended in step `t`, [B], or for -1 in the step before this fragment."""
        return self.just_ended if t < 0 else self.fragment.terminated[t] | self.fragment.truncated[t]

    def _there(self, state: State) -> State:
        """`state` where the policy is."""
        return {name: torch.as_tensor(value).to(self.device) for name, value in state.items()}

    def _note(self, name: str, t: int, value: Array) -> None:
        if name not in self.fragment.extras:
            self.fragment.extras[name] = np.zeros((self.unroll_length, *value.shape), value.dtype)
        self.fragment.extras[name][t] = value

    def _keep(self, t: int, obs: Any) -> None:
        place = self.fragment.obs[t]
        if np.shape(obs) != place.shape:
            raise ValueError(f"observations have shape {np.shape(obs)[1:]}, where its space says {place.shape[1:]}")
        place[...] = obs

    def _check(self) -> None:
        """Marks the steps that count, and looks over what the environments gave."""
        fragment = self.fragment
        done = fragment.terminated | fragment.truncated
        fragment.valid[0], fragment.valid[1:] = ~self.just_ended, ~done[:-1]
        fragment.r[~fragment.valid] = 0.0
        self.just_ended = done[-1].copy()
        self._check_numbers(self.unroll_length)

    def _prepare(self) -> None:
        """Makes of the rewards what is learnt from, and adds what learning needs beside them."""
        fragment, worker_config = self.fragment, self.worker_config
        if self.clips_rewards:
            fragment.r.clip(-1.0, 1.0, out=fragment.r)
        if getattr(worker_config.options, "normalize_rewards", False):
            gamma = worker_config.options.gamma
            done = fragment.terminated | fragment.truncated
            fragment.extras["discounted"] = discounted_so_far(fragment.r, done, gamma, self.running_discounted)
        if worker_config.algorithm.priorities is not None:
            found = worker_config.algorithm.priorities(self.policy, fragment, worker_config.options)
            fragment.priorities = found.cpu().numpy()

    def _check_numbers(self, steps: int) -> None:
        """Raises RunError if an observation or reward up to step `steps` is not finite."""
        for name, array in (
            ("an observation", self.fragment.obs[1 : steps + 1]),
            ("a reward", self.fragment.r[:steps]),
        ):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                t, b = np.argwhere(~np.isfinite(array))[0, :2]
                raise self._failure(int(t), f"{name} of environment {b} is NaN or infinite")

    def _account(self) -> EpisodeReport:
        """Adds the fragment to the episodes under way, and reports those that ended."""
        fragment = self.fragment
        done = fragment.terminated | fragment.truncated
        earned = self.running_return + fragment.r.cumsum(0, dtype=np.float64)
        lasted = self.running_length + fragment.valid.cumsum(0)
        report = EpisodeReport(int(fragment.valid.sum()))
        paid, spent = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        for t, b in np.argwhere(done):
            report.returns.append(float(earned[t, b] - paid[b]))
            report.lengths.append(int(lasted[t, b] - spent[b]))
            paid[b], spent[b] = earned[t, b], lasted[t, b]
        self.running_return, self.running_length = earned[-1] - paid, lasted[-1] - spent
        return report

    def _failure(self, t: int, what: str) -> RunError:
        where = f"worker {self.index}, step {self.steps_done + t}"
        return RunError(
            "EnvironmentFailed", f"environment {self.worker_config.source.name}: {what} ({where}, seed {self.env_seed})"
        )

    def _blame(self, t: int, error: Exception) -> NoReturn:
        """Raises RunError for what went wrong at step `t`: numbers that are none, if there are any, else `error`."""
        self._check_numbers(t)
        raise self._failure(t, f"{type(error).__name__}: {error}") from error

    def state(self) -> dict[str, Any]:
        """Everything that sampling goes on from. "envs" is None where the environments cannot be saved."""
        return {
            "rng": self.context.rng.get_state(),
            "memory": {name: value.cpu().clone() for name, value in self.context.state.items()},
            "envs": env_state.save(self.envs),
            "obs": self.fragment.obs[self.unroll_length if self.steps_done else 0].copy(),
            "just_ended": self.just_ended.copy(),
            "running_return": self.running_return.copy(),
            "running_length": self.running_length.copy(),
            "running_discounted": self.running_discounted.copy(),
            "steps_done": self.steps_done,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state()` of a worker of the same index, options and environments."""
        self.context.rng.set_state(torch.as_tensor(state["rng"]))
        self.context.state = {name: value.clone() for name, value in self._there(state["memory"]).items()}
        env_state.load(self.envs, state["envs"])
        self.fragment.obs[0] = self.fragment.obs[self.unroll_length] = np.asarray(state["obs"])
        self.just_ended = np.asarray(state["just_ended"])
        self.running_return = np.asarray(state["running_return"])
        self.running_length = np.asarray(state["running_length"])
        self.running_discounted = np.asarray(state["running_discounted"])
        self.steps_done = int(state["steps_done"])


def acting(algorithm: Algorithm, spaces: Spaces, options: Options) -> torch.nn.Module:
    """The part of new networks that acts, and does nothing else."""
    nets = algorithm.nets(spaces, options)
    return nets.get_submodule(algorithm.acts).requires_grad_(False).eval()


def observation_dtype(space: gym_spaces.Space[Any]) -> Any:
    """How observations are stored: bytes and integers as they are, floats in single precision."""
    return np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
