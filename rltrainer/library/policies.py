"""`rl.load`: a trained policy that Python code uses."""

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from gymnasium.spaces.utils import flatten

from rltrainer.api.experiment import Storage
from rltrainer.core.algorithm import ActContext
from rltrainer.core.types import EpisodeReport
from rltrainer.envs import given_envs
from rltrainer.envs.failures import close
from rltrainer.errors import RunError
from rltrainer.runs import rollout
from rltrainer.runs.policy import TrainedPolicy
from rltrainer.runs.rollout import Request
from rltrainer.runs.train import Result
from rltrainer.storage.locate import WHICH
from rltrainer.storage.store import StorageError


@dataclass(frozen=True)
class Episodes:
    """Whole episodes of a policy: their returns, not discounted, and their lengths in steps."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """The mean return."""
        return fmean(self.returns)

    @property
    def std(self) -> float:
        """The standard deviation of the returns; 0 of a single one."""
        return stdev(self.returns) if len(self.returns) > 1 else 0.0

    @property
    def stderr(self) -> float:
        """The standard error of the mean."""
        return self.std / math.sqrt(len(self.returns))

    def __str__(self) -> str:
        return f"mean return {self.mean:.2f} ± {self.stderr:.2f} of {len(self.returns)} episodes"


class Policy:
    """A trained policy. `predict` gives actions as the environment's `step` takes them.

    A recurrent policy remembers what it has seen since `reset`.
    """

    def __init__(self, trained: TrainedPolicy, origin: str, seed: int = 0) -> None:
        """Wrap the policy of the checkpoint at `origin`, a folder or a URI."""
        self.trained, self.checkpoint = trained, origin
        self._context: ActContext | None = None
        self.reset(seed)

    @property
    def algorithm(self) -> str:
        """The algorithm that trained it, as `train` takes it."""
        return self.trained.run

    @property
    def env(self) -> str:
        """The name of its environment."""
        return self.trained.source.name

    def __repr__(self) -> str:
        return f"<{self.algorithm} policy in {self.env}, {self.trained.timesteps:,} steps, {self.checkpoint}>"

    def reset(self, seed: int | None = None) -> None:
        """Forget what was seen, as an episode begins; what is drawn from then on follows from `seed`, where given."""
        if seed is not None:
            self.seed, self._context = seed, None
        if self._context is not None:
            state = self.trained.algorithm.initial_state(self.trained.nets, self._context.num_envs)
            self._context.state = state

    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return the action for one observation, as `env.step` takes it: the best, or one that explores.

        For a batch of observations [B, ...], as vectors of environments give them, a batch of actions. Raises
        ValueError where `obs` has another shape than the environment's observations.
        """
        batch, is_single = self._batch(obs)
        actions = self.trained.act_all(batch, self._context_of(len(batch)), deterministic)
        distribution = self.trained.action_distribution
        return distribution.to_single_env(actions[0]) if is_single else distribution.to_env(actions)

    def _batch(self, obs: Any) -> tuple[Any, bool]:
        """Return observations [B, *shape], and whether it is a single one."""
        structure, shape = self.trained.spaces.structure, self.trained.spaces.observations.shape or ()
        array = np.asarray(obs if structure is None or isinstance(obs, np.ndarray) else flatten(structure, obs))
        if array.shape == shape:
            return array[None], True
        if array.shape[1:] == shape and array.ndim:
            return array, False
        raise ValueError(
            f"an observation of {self.env} has shape {shape}, and several (B, {str(shape)[1:]}: this is {array.shape}"
        )

    def _context_of(self, num_envs: int) -> ActContext:
        if self._context is None or self._context.num_envs != num_envs:
            self._context = self.trained.context(self.seed, num_envs)
        return self._context

    def evaluate(self, episodes: int = 20, seed: int = 0, deterministic: bool = True) -> Episodes:
        """Run whole episodes, many at a time, and return their returns and lengths.

        Where they begin follows from `seed`, in another way than in training.
        """
        report: EpisodeReport = self.trained.evaluate(episodes, seed, deterministic)
        return Episodes(report.returns, report.lengths)

    def video(self, path: str | os.PathLike[str], episodes: int = 1, seed: int = 0, deterministic: bool = True) -> Path:
        """Write a video of episodes, one after the other, to `path`, an .mp4 file, and return it.

        The first episode begins with `seed`, each next one with the next. Raises RunError where the environment draws
        no pictures.
        """
        target, frames = Path(path).expanduser(), list[Any]()
        if target.suffix != ".mp4":
            raise ValueError(f"a video is an .mp4 file, and {target} is none")
        env = rollout.environment(self.trained.source, video=True)
        try:
            for number in range(episodes):
                rollout.run_episode(self.trained, env, seed + number, deterministic, frames)
        finally:
            close(env.close, self.env)
        target.parent.mkdir(parents=True, exist_ok=True)
        rollout.write_video(target, frames, self.trained.source)
        return target


def load(
    run: Result | str | os.PathLike[str],
    which: str = "best",
    *,
    env: str | given_envs.MakeEnv | None = None,
    env_config: dict[str, Any] | None = None,
    endpoint: str | None = None,
    region: str | None = None,
) -> Policy:
    """Load the policy of a run, a checkpoint or a search: what `train` has returned, a folder or an s3:// URI.

    `which` of a run's checkpoints is taken: "best", by the run's own scoreAttribute, or "latest". `env` is another
    environment to act in, with the same spaces. `endpoint` and `region` say how S3 is reached. Raises RunError where
    there is no checkpoint, or none that is whole.
    """
    if which not in WHICH:
        raise ValueError(f"which is {' or '.join(WHICH)}, not {which}")
    uri = str(run.folder) if isinstance(run, Result) else os.fspath(run)
    remote = uri.startswith("s3://")
    if not remote and (endpoint or region):
        raise ValueError("endpoint and region mean something only with an s3:// URI")
    request = Request(
        uri,
        Storage(uri=uri, endpoint=endpoint, region=region) if remote else None,
        which,
        env=env if env is None or isinstance(env, str) else given_envs.name_of(env),
        env_config=env_config or {},
    )
    try:
        with tempfile.TemporaryDirectory(prefix="rltrainer-") as scratch:
            return Policy(*rollout.load(request, Path(scratch) / "checkpoint"))
    except StorageError as error:
        raise RunError(error.reason, str(error), error.permanent) from error
