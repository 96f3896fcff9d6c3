"""The acting half: a worker steps a vector of environments and writes what it sees into one fragment, in place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces as gym_spaces
from gymnasium.vector import AutoresetMode

from rltrainer import env_state
from rltrainer.algorithm import Algorithm
from rltrainer.distributions import family
from rltrainer.envs import EnvSource, Spaces, autoreset_mode
from rltrainer.errors import RunError
from rltrainer.fragment import Array, Fragment
from rltrainer.learner import Flat, Weights
from rltrainer.options import Options
from rltrainer.seeding import Role, derived_seed


@dataclass(frozen=True)
class Blueprint:
    """What it takes to build a worker or a learner, wherever it is to live."""

    algorithm: Algorithm
    source: EnvSource
    spaces: Spaces
    options: Options
    seed: int


@dataclass
class Report:
    """What a fragment tells the driver."""

    timesteps: int
    returns: list[float] = field(default_factory=list)
    """Returns of the episodes that ended, in the order in which they did."""
    lengths: list[int] = field(default_factory=list)


class Worker:
    """`num_envs_per_worker` environments and a copy of the policy. It reuses its fragment: read it before the next."""

    def __init__(self, blueprint: Blueprint, index: int, generation: int = 0) -> None:
        options = blueprint.options
        self.blueprint, self.index = blueprint, index
        self.length, self.width = options.rollout_fragment_length, options.num_envs_per_worker
        self.nets = blueprint.algorithm.nets(blueprint.spaces, options).requires_grad_(False).eval()
        self.flat = Flat(self.nets)
        self.family = family(blueprint.spaces.actions)
        self.envs = blueprint.source.vector(self.width)
        self.resets_next = autoreset_mode(self.envs) == AutoresetMode.NEXT_STEP
        self.fragment = self._allocate()
        self.rng = torch.Generator()
        self.begin(generation)

    def _allocate(self) -> Fragment:
        space, t, b = self.blueprint.spaces.observations, self.length, self.width
        return Fragment(
            obs=np.zeros((t + 1, b, *(space.shape or ())), observation_dtype(space)),
            a=np.zeros((t, b, *self.family.shape), np.float32 if self.family.gaussian else np.int64),
            r=np.zeros((t, b), np.float32),
            terminated=np.zeros((t, b), np.bool_),
            truncated=np.zeros((t, b), np.bool_),
            valid=np.ones((t, b), np.bool_),
            final_at=np.zeros((0, 2), np.int64),
            final_obs=np.zeros((0, *(space.shape or ())), observation_dtype(space)),
        )

    def begin(self, generation: int) -> None:
        """Begins new episodes. The same worker of the same generation begins in the same states."""
        seed = self.blueprint.seed
        self.rng.manual_seed(derived_seed(seed, Role.ACTIONS, self.index, generation))
        first = self.index * self.width
        seeds = [derived_seed(seed, Role.ENVIRONMENT, first + i, generation) for i in range(self.width)]
        self.env_seed, self.steps_done = seeds[0], 0
        # a vector with one random state for all its environments takes one seed, and no list of them
        per_env = hasattr(self.envs.unwrapped, "envs") or hasattr(self.envs.unwrapped, "env_fns")
        try:
            obs, _ = self.envs.reset(seed=seeds if per_env else seeds[0])  # type: ignore[arg-type]
            self._keep(0, obs)
        except Exception as error:
            self._blame(0, error)
        self.just_ended = np.zeros(self.width, np.bool_)
        self.running_return = np.zeros(self.width)
        self.running_length = np.zeros(self.width, np.int64)

    def sample(self, weights: Weights, check: Callable[[], None] | None = None) -> tuple[Fragment, Report]:
        """One fragment with the policy of `weights`. `check` is called before each step, and may raise to abandon."""
        self._load(weights)
        fragment = self.fragment
        if self.steps_done:
            fragment.obs[0] = fragment.obs[self.length]
        finals: list[tuple[int, int, Array]] = []
        with torch.inference_mode():
            for t in range(self.length):
                if check is not None:
                    check()
                self._step(t, finals)
        self._finish(finals)
        report = self._account()
        self.steps_done += self.length
        return fragment, report

    def _load(self, weights: Weights) -> None:
        self.flat.vector.data.copy_(torch.tensor(weights["parameters"]))
        for name, buffer in self.nets.named_buffers():
            buffer.copy_(torch.tensor(weights["buffers"][name]))

    def _step(self, t: int, finals: list[tuple[int, int, Array]]) -> None:
        """Acts on obs[t]; writes a[t], r[t], the ends of episodes and obs[t + 1]."""
        fragment = self.fragment
        action, extras = self.blueprint.algorithm.act(self.nets, torch.from_numpy(fragment.obs[t]), self.rng)
        fragment.a[t] = a = action.numpy()
        for name, value in extras.items():
            self._extra(name, value)[t] = value.numpy()
        try:
            obs, reward, terminated, truncated, info = self.envs.step(self.family.to_env(a))
            self._keep(t + 1, obs)
            fragment.r[t], fragment.terminated[t], fragment.truncated[t] = reward, terminated, truncated
        except Exception as error:
            self._blame(t, error)
        if not self.resets_next and truncated.any():
            finals += [(t, int(b), info["final_obs"][b]) for b in np.flatnonzero(truncated & ~terminated)]

    def _extra(self, name: str, value: torch.Tensor) -> Array:
        if name not in self.fragment.extras:
            shape = (self.length, *value.shape)
            self.fragment.extras[name] = np.zeros(shape, value.numpy().dtype)
        return self.fragment.extras[name]

    def _keep(self, t: int, obs: Any) -> None:
        place = self.fragment.obs[t]
        if np.shape(obs) != place.shape:
            raise ValueError(f"observations have shape {np.shape(obs)[1:]}, where its space says {place.shape[1:]}")
        place[...] = obs

    def _finish(self, finals: list[tuple[int, int, Array]]) -> None:
        """Marks the steps that count, and looks over what the environments gave."""
        fragment = self.fragment
        done = fragment.terminated | fragment.truncated
        if self.resets_next:
            fragment.valid[0], fragment.valid[1:] = ~self.just_ended, ~done[:-1]
            fragment.r[~fragment.valid] = 0.0
            self.just_ended = done[-1].copy()
        fragment.final_at = np.array([(t, b) for t, b, _ in finals], np.int64).reshape(-1, 2)
        shape = (len(finals), *fragment.obs.shape[2:])
        fragment.final_obs = np.array([obs for *_, obs in finals], fragment.obs.dtype).reshape(shape)
        self._check_numbers(self.length)
        if not np.isfinite(fragment.final_obs).all():
            self._blame(int(fragment.final_at[0, 0]), ValueError("a final observation holds NaN or infinity"))

    def _check_numbers(self, steps: int) -> None:
        """Raises RunError if an observation or reward up to step `steps` is not finite."""
        for name, array in (
            ("an observation", self.fragment.obs[1 : steps + 1]),
            ("a reward", self.fragment.r[:steps]),
        ):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                t, b = np.argwhere(~np.isfinite(array))[0, :2]
                raise self._failure(int(t), f"{name} of environment {b} is NaN or infinite")

    def _account(self) -> Report:
        """Adds the fragment to the episodes under way, and reports those that ended."""
        fragment = self.fragment
        done = fragment.terminated | fragment.truncated
        earned = self.running_return + fragment.r.cumsum(0, dtype=np.float64)
        lasted = self.running_length + fragment.valid.cumsum(0)
        report = Report(int(fragment.valid.sum()))
        paid, spent = np.zeros(self.width), np.zeros(self.width, np.int64)
        for t, b in np.argwhere(done):
            report.returns.append(float(earned[t, b] - paid[b]))
            report.lengths.append(int(lasted[t, b] - spent[b]))
            paid[b], spent[b] = earned[t, b], lasted[t, b]
        self.running_return, self.running_length = earned[-1] - paid, lasted[-1] - spent
        return report

    def _failure(self, t: int, what: str) -> RunError:
        where = f"worker {self.index}, step {self.steps_done + t}"
        return RunError(
            "EnvironmentFailed", f"environment {self.blueprint.source.name}: {what} ({where}, seed {self.env_seed})"
        )

    def _blame(self, t: int, error: Exception) -> NoReturn:
        """Raises RunError for what went wrong at step `t`: numbers that are none, if there are any, else `error`."""
        self._check_numbers(t)
        raise self._failure(t, f"{type(error).__name__}: {error}") from error

    def state(self) -> dict[str, Any]:
        """Everything that sampling goes on from. "envs" is None where the environments cannot be saved."""
        return {
            "rng": self.rng.get_state(),
            "envs": env_state.save(self.envs),
            "obs": self.fragment.obs[self.length if self.steps_done else 0].copy(),
            "just_ended": self.just_ended.copy(),
            "running_return": self.running_return.copy(),
            "running_length": self.running_length.copy(),
            "steps_done": self.steps_done,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state()` of a worker of the same index, options and environments."""
        self.rng.set_state(torch.as_tensor(state["rng"]))
        env_state.load(self.envs, state["envs"])
        self.fragment.obs[0] = self.fragment.obs[self.length] = np.asarray(state["obs"])
        self.just_ended = np.asarray(state["just_ended"])
        self.running_return = np.asarray(state["running_return"])
        self.running_length = np.asarray(state["running_length"])
        self.steps_done = int(state["steps_done"])


def observation_dtype(space: gym_spaces.Space[Any]) -> Any:
    """How observations are stored: bytes and integers as they are, floats in single precision."""
    return np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
