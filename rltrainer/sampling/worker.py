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
from rltrainer.envs.chain import NotRestoredError
from rltrainer.envs.failures import close
from rltrainer.envs.observations import check_finite, check_observation
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.foreign import Failure, caught
from rltrainer.networks.parameters import FlatParameters, load_weights
from rltrainer.ops.action_spaces import ActionDistribution
from rltrainer.sampling.checks import Oddities, ReturnsBeyond, checked_state, first_not_finite
from rltrainer.sampling.episodes import EpisodeTracker
from rltrainer.seeding import Role, derived_seed


@dataclass(frozen=True)
class WorkerConfig:
    """All that it takes to build a worker or a learner, wherever it is to live."""

    algorithm: Algorithm
    source: EnvSource
    spaces: Spaces
    options: Options
    seed: int
    gpu_share: float = 1.0
    """Part of a GPU that each learner gets where it gets one: a search may have trials share them."""


class Worker:
    """B environments and a copy of the policy, which acts in them T steps at a time.

    B is `num_envs_per_worker` and T `rollout_fragment_length`. All fragments are one and the same: read it before the
    next is sampled.
    """

    def __init__(
        self, worker_config: WorkerConfig, index: int, generation: int = 0, device: torch.device = CPU
    ) -> None:
        """Make environments and policy. Actions are computed on `device`; environments are on the CPU."""
        options, algorithm, spaces = worker_config.options, worker_config.algorithm, worker_config.spaces
        self.worker_config, self.index, self.device = worker_config, index, device
        self.notice = ""
        """Why it has not gone on from a checkpoint's state; nothing where it has, or there was none."""
        self.unroll_length, self.num_envs = options.rollout_fragment_length, options.num_envs_per_worker
        self.policy = acting_part(algorithm, spaces, options).to(device)
        self.flat = FlatParameters(self.policy)
        self.action_distribution = algorithm.action_distribution(spaces.actions)
        cpus = machine.cpus() if not options.num_workers else int(options.num_cpus_per_worker)
        self.envs = worker_config.source.vector(self.num_envs, options.vector_env, cpus)
        self.clips_rewards = worker_config.source.clips_rewards
        self.fragment = empty_fragment(spaces.observations, self.action_distribution, self.unroll_length, self.num_envs)
        self.context = ActContext(
            options,
            torch.Generator(),
            self.num_envs,
            first=index * self.num_envs,
            total=self.num_envs * max(1, options.num_workers),
        )
        self.oddities = Oddities(worker_config.source.name, spaces.observations)
        self.begin(generation)

    def begin(self, generation: int) -> None:
        """Begin new episodes. The same worker of the same generation begins in the same states."""
        seed = self.worker_config.seed
        self.context.rng.manual_seed(derived_seed(seed, Role.ACTIONS, self.index, generation))
        indices = range(self.context.first, self.context.first + self.num_envs)
        self._reset_envs([derived_seed(seed, Role.ENVIRONMENT, i, generation) for i in indices])
        self.context.state = self._on_device(self.worker_config.algorithm.initial_state(self.policy, self.num_envs))
        self.episodes = EpisodeTracker(self.num_envs)
        self.beyond = ReturnsBeyond(self.worker_config.source.name, self.worker_config.options, self.num_envs)

    def _reset_envs(self, seeds: list[int]) -> None:
        """Write the first observations of episodes begun with `seeds`, one for each environment, into obs[0]."""
        self.steps_done = 0
        # a vector with one random state for all its environments takes one seed, and no list of them
        per_env = hasattr(self.envs.unwrapped, "envs") or hasattr(self.envs.unwrapped, "env_fns")
        self.env_seeds = seeds if per_env else seeds[:1] * self.num_envs
        try:
            obs, _ = self.envs.reset(seed=seeds if per_env else seeds[0])  # type: ignore[arg-type]
            self._store_obs(0, obs)
            check_finite(obs)
        except BaseException as error:
            raise self._failure(0, caught(error)) from error

    def sample(self, weights: Weights, check: Callable[[], None] | None = None) -> tuple[Fragment, EpisodeReport]:
        """Unroll the policy of `weights` for T steps; return the fragment and the episodes that ended in it.

        `check` is called before each step, and may raise to abandon. Raises RunError where an environment fails.
        """
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
            self.episodes.mark_valid(fragment)
            self._check_finite(self.unroll_length)
            report = self.episodes.report(fragment)
            self.oddities.look(fragment, self.episodes.lengths)
            self._prepare_learning(fragment)
            self.beyond.look(fragment)
        self.steps_done += self.unroll_length
        return fragment, report

    def _step(self, t: int) -> None:
        """Act on obs[t]; write a[t], r[t], the ends of episodes and obs[t + 1]."""
        fragment = self.fragment
        obs_t = torch.from_numpy(fragment.obs[t]).to(self.device)
        action, extras = self.worker_config.algorithm.act(self.policy, obs_t, self.context)
        fragment.a[t] = a_t = action.cpu().numpy()
        for name, value in extras.items():
            self._store_extra(name, t, value.cpu().numpy())
        try:
            obs, reward, fragment.terminated[t], fragment.truncated[t], _ = self.envs.step(
                self.action_distribution.to_env(a_t)
            )
            self._store_obs(t + 1, obs)
            with np.errstate(over="ignore"):
                fragment.r[t] = reward
        except BaseException as error:
            self._raise_failure(t, error)
        if self.context.state:
            self.context.forget(torch.from_numpy(self.episodes.ended_before(fragment, t)).to(self.device))

    def _store_obs(self, t: int, obs: Any) -> None:
        check_observation(self.worker_config.spaces.observations, obs, (self.num_envs,))
        with np.errstate(over="ignore"):  # what is beyond single precision is infinite then, and told as that
            self.fragment.obs[t] = obs

    def _store_extra(self, name: str, t: int, value: Array) -> None:
        if name not in self.fragment.extras:
            self.fragment.extras[name] = np.zeros((self.unroll_length, *value.shape), value.dtype)
        self.fragment.extras[name][t] = value

    def _prepare_learning(self, fragment: Fragment) -> None:
        """Clip the rewards where that is asked for, and add what learning needs beside them."""
        algorithm, options = self.worker_config.algorithm, self.worker_config.options
        if self.clips_rewards:
            fragment.r.clip(-1.0, 1.0, out=fragment.r)
        if options.scales_rewards:
            fragment.extras["discounted"] = self.episodes.discount(fragment, options.gamma)
        if algorithm.priorities is not None:
            fragment.priorities = algorithm.priorities(self.policy, fragment, options).cpu().numpy()

    def _check_finite(self, steps: int) -> None:
        """Raise RunError if an observation or reward of the first `steps` steps is NaN or infinite."""
        if (fault := first_not_finite(self.fragment, steps)) is not None:
            t, environment, words = fault
            raise self._failure(t, Failure(words, environment=environment))

    def _raise_failure(self, t: int, error: BaseException) -> NoReturn:
        """Raise RunError for what went wrong at step `t`: numbers that are not finite, if any, else `error`."""
        failure = caught(error)
        self._check_finite(t)
        raise self._failure(t, failure) from error

    def _failure(self, t: int, failure: Failure) -> RunError:
        message = failure.sentence(f"environment {self.worker_config.source.name}", self._place(t, failure.environment))
        return RunError("EnvironmentFailed", message)

    def _place(self, t: int, environment: int | None = None) -> str:
        """Say where step `t` of the fragment under way is, for somebody to get there again."""
        of = "" if environment is None or self.num_envs == 1 else f" of environment {environment}"
        return f"worker {self.index}, step {self.steps_done + t}, seed {self.env_seeds[environment or 0]}{of}"

    def _saving(self, call: str, do: Callable[[], Any]) -> Any:
        """Return what `do` does with the environments' state.

        Raises RunError where they fail in it, and NotRestoredError where they cannot go on from it.
        """
        try:
            return do()
        except NotRestoredError:
            raise
        except BaseException as error:
            failure = caught(error)
            name = f"environment {self.worker_config.source.name} failed in {call}"
            raise RunError("EnvironmentFailed", failure.sentence(name, self._place(0, failure.environment))) from error

    def close(self) -> None:
        """Close the environments."""
        close(self.envs.close, self.worker_config.source.name, self._place(0))

    def _on_device(self, state: State) -> State:
        return {name: torch.as_tensor(value).to(self.device) for name, value in state.items()}

    def state(self) -> dict[str, Any]:
        """Return everything that sampling goes on from. "envs" is None where the environments cannot be saved."""
        return {
            "rng": self.context.rng.get_state(),
            "memory": {name: value.cpu().clone() for name, value in self.context.state.items()},
            "envs": self._saving("state_dict()", lambda: checked_state(env_state.save(self.envs))),
            "obs": self.fragment.obs[self.unroll_length if self.steps_done else 0].copy(),
            **self.episodes.state(),
            "steps_done": self.steps_done,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of a worker of the same index, options and environments."""
        self.context.rng.set_state(torch.as_tensor(state["rng"]))
        self.context.state = {name: value.clone() for name, value in self._on_device(state["memory"]).items()}
        self._saving("load_state_dict()", lambda: env_state.load(self.envs, state["envs"]))
        self.fragment.obs[0] = self.fragment.obs[self.unroll_length] = np.asarray(state["obs"])
        self.episodes.load(state)
        self.steps_done = int(state["steps_done"])


def acting_part(algorithm: Algorithm, spaces: Spaces, options: Options) -> torch.nn.Module:
    """Make networks, and return the part of them that acts, in evaluation mode and without gradients."""
    nets = algorithm.nets(spaces, options)
    return nets.get_submodule(algorithm.acts).requires_grad_(False).eval()


def empty_fragment(
    observations: gym_spaces.Space[Any], actions: ActionDistribution[Any], unroll_length: int, num_envs: int
) -> Fragment:
    """Allocate a fragment [T, B] of T = `unroll_length` steps of B = `num_envs` environments."""
    t, b = unroll_length, num_envs
    return Fragment(
        obs=np.zeros((t + 1, b, *(observations.shape or ())), observation_dtype(observations)),
        a=np.zeros((t, b, *actions.shape), actions.dtype),
        r=np.zeros((t, b), np.float32),
        terminated=np.zeros((t, b), np.bool_),
        truncated=np.zeros((t, b), np.bool_),
        valid=np.ones((t, b), np.bool_),
    )


def observation_dtype(space: gym_spaces.Space[Any]) -> Any:
    """Return the type that observations are stored in: bytes and integers as they are, floats in single precision."""
    return np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
