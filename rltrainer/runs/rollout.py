"""Episodes of a trained policy: their returns, and trajectories and a video on request."""

import copy
import logging
import math
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import imageio.v2 as imageio
import numpy as np
from gymnasium import Env

from rltrainer.api.experiment import Storage
from rltrainer.api.status import LISTED_RETURNS, RolloutResults
from rltrainer.core.types import EpisodeReport
from rltrainer.envs.env_worker import EnvWorker
from rltrainer.envs.failures import close
from rltrainer.envs.observations import check_finite
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.foreign import Failure, caught
from rltrainer.reporting.status import ROLLOUT, Target
from rltrainer.runs import policy as trained
from rltrainer.runs.lock import output_folder
from rltrainer.runs.policy import TrainedPolicy
from rltrainer.storage import claim, locate
from rltrainer.storage.claim import OwnedStore
from rltrainer.storage.open import open_store
from rltrainer.storage.store import FolderStore, Store, retry

log = logging.getLogger(__name__)

FPS = 30
"""Frames per second of the video of an environment that names none."""
VIDEO = "episode_000000.mp4"


@dataclass(frozen=True)
class Request:
    """Settings: what to run, and what to keep of it."""

    checkpoint: str
    """A checkpoint, a run with checkpoints, or a search: a folder or an s3:// URI."""
    storage: Storage | None = None
    """How S3 is reached, where a URI names it."""
    which: str = "best"
    episodes: int = 10
    steps: int | None = None
    deterministic: bool = True
    seed: int = 0
    out: str | None = None
    """Folder or URI for trajectories."""
    video: str | None = None
    """Folder or URI for a video."""
    render: bool = False
    """Show the episodes in a window."""
    run: str | None = None
    """The algorithm that it must be a policy of; None: any."""
    env: str | None = None
    """Another environment than the policy was trained in."""
    env_config: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, over those that the policy was trained with."""
    config: dict[str, Any] = field(default_factory=dict)
    """Options that say how actions explore, over the checkpoint's."""


@dataclass
class Episode:
    """One episode, from its first observation to its last."""

    seed: int
    obs: list[Any] = field(default_factory=list)
    """T + 1 observations."""
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    @property
    def total(self) -> float:
        """The return: the sum of the rewards, not discounted."""
        return math.fsum(self.rewards)

    def save(self, path: Path) -> None:
        """Write the episode as .npz, to be read without pickles."""
        np.savez_compressed(
            path,
            allow_pickle=False,
            obs=np.stack(self.obs),
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards),
            terminated=np.array(self.terminated),
            truncated=np.array(self.truncated),
            seed=np.array(self.seed),
        )


def load(request: Request, target: Path) -> tuple[TrainedPolicy, str]:
    """Fetch the checkpoint of `request` to `target`; return its policy, as requested, and where it was.

    Raises RunError, permanent, if there is none or the request does not fit it, OptionError, and StorageError.
    """
    origin = locate.fetch(request.checkpoint, target, request.storage, request.which)
    policy = trained.load(target, request.env)
    if request.run not in (None, policy.run):
        raise RunError("InvalidOption", f"{origin} is a policy of {policy.run}, not of {request.run}", permanent=True)
    policy = policy.moved(request.env, request.env_config)
    return policy.exploring(request.config, request.deterministic), origin


def evaluate(
    checkpoint: str, episodes: int = 100, seed: int = 0, deterministic: bool = True, which: str = "best"
) -> EpisodeReport:
    """Run `episodes` whole episodes, many at a time, with the policy of a checkpoint; return returns and lengths.

    `checkpoint` is its folder or that of its run, or an s3:// URI of either; `which` chooses among a run's, "best" or
    "latest". `seed` fixes where episodes begin and what is drawn. Raises RunError and StorageError.
    """
    with tempfile.TemporaryDirectory(prefix="rltrainer-") as folder:
        policy, _ = load(Request(checkpoint, which=which), Path(folder) / "checkpoint")
    return policy.evaluate(episodes, seed, deterministic)


def episodes(policy: TrainedPolicy, request: Request, frames: list[Any] | None = None) -> Iterator[Episode]:
    """Run one episode after the other; the first one's frames are appended to `frames`, if there is that."""
    steps, name = 0, policy.source.name
    env = environment(policy.source, request.render, frames is not None)
    for number in range(request.episodes):
        if request.steps is not None and steps >= request.steps:
            break
        episode = run_episode(policy, env, request.seed + number, request.deterministic, frames)
        steps += len(episode.rewards)
        if frames is not None:
            close(env.close, name)
            env, frames = EnvWorker(policy.source.single()), None
        yield episode
    close(env.close, name)


def environment(source: EnvSource, render: bool = False, video: bool = False) -> Env[Any, Any]:
    """Make one environment: with a window, with pictures, or with neither. Raises RunError, permanent."""
    if not render:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures are drawn into memory, and no display is needed
        return EnvWorker(source.single("rgb_array" if video else None))
    env = EnvWorker(source.single("human"))
    if env.render_mode != "human":
        close(env.close, source.name)
        raise RunError("EnvironmentFailed", f"environment {source.name} has no render_mode human: --no-render", True)
    return env


def run_episode(
    policy: TrainedPolicy, env: Env[Any, Any], seed: int, deterministic: bool, frames: list[Any] | None
) -> Episode:
    """Run one episode of `env`, which is reset with `seed`. Raises RunError that names environment, step and seed."""
    episode = Episode(seed)
    context = policy.context(seed)
    try:
        obs, _ = env.reset(seed=seed)
        check_finite(obs)
        episode.obs.append(copy.deepcopy(obs))  # environments may hand out one buffer again and again
        while not (episode.terminated or episode.truncated):
            if frames is not None:
                frames.append(picture(env.render()))
            action = policy.act(obs, context, deterministic)
            obs, reward, episode.terminated, episode.truncated, _ = env.step(
                policy.action_distribution.to_single_env(action)
            )
            check_finite(obs)
            check_finite(reward, "a reward")
            episode.obs.append(copy.deepcopy(obs))
            episode.actions.append(action)
            episode.rewards.append(float(reward))
    except BaseException as error:
        place = f"step {len(episode.rewards)}, seed {seed}"
        message = caught(error).sentence(f"environment {policy.source.name}", place)
        raise RunError("EnvironmentFailed", message) from error
    return episode


def picture(frame: Any) -> Any:
    """Return a copy of what an environment has drawn, which may be one buffer again and again, as a video holds it.

    Raises Failure unless it is a picture, [H, W, 3] or [H, W], of bytes.
    """
    if frame is None:
        return None
    pixels = np.array(frame)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise Failure(f"render() returned {pixels.dtype} of shape {pixels.shape}, where a video takes bytes [H, W, 3]")
    return pixels


def write_video(path: Path, frames: list[Any], source: EnvSource) -> None:
    """Write pictures of an environment as a video, at its own speed. Raises RunError where it draws none."""
    if not frames or frames[0] is None:
        raise RunError("EnvironmentFailed", f"environment {source.name} has no render_mode rgb_array", True)
    env = source.single()
    fps = env.metadata.get("render_fps") or FPS
    close(env.close, source.name)
    with imageio.get_writer(path, fps=fps, macro_block_size=2) as writer:
        for frame in frames:
            writer.append_data(np.asarray(frame, np.uint8))  # type: ignore[attr-defined]


@dataclass
class Recorder:
    """Records of the episodes, in stores, and their statistics."""

    request: Request
    origin: str
    stores: dict[str, Store] = field(default_factory=dict)
    """Where things are kept, by the folder or URI of the request."""
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def add(self, episode: Episode, scratch: Path) -> None:
        """Count an episode, and keep its trajectory on request. Raises StorageError."""
        if self.request.out is not None:
            path = scratch / f"episode_{len(self.returns):06d}.npz"
            episode.save(path)
            self._keep(path, self.request.out)
        self.returns.append(episode.total)
        self.lengths.append(len(episode.rewards))

    def add_video(self, frames: list[Any], source: EnvSource, scratch: Path) -> None:
        """Keep a video of `frames`. Raises StorageError, and RunError where there is nothing to be seen."""
        path = scratch / VIDEO
        write_video(path, frames, source)
        self._keep(path, self.request.video or "")

    def _keep(self, path: Path, uri: str) -> None:
        retry(lambda: self.stores[uri].upload(path, path.name))
        path.unlink()

    def results(self, done: bool = False) -> RolloutResults:
        """Return the report as it stands."""
        any_ended = bool(self.returns)
        mean = fmean(self.returns) if any_ended else None
        error = stdev(self.returns) / math.sqrt(len(self.returns)) if len(self.returns) > 1 else None
        return RolloutResults(
            episodes=len(self.returns),
            timesteps=sum(self.lengths),
            reward_mean=mean,
            reward_min=min(self.returns, default=None),
            reward_max=max(self.returns, default=None),
            reward_stderr=error,
            reward=None if mean is None else f"{mean:.1f}" + ("" if error is None else f" ± {error:.1f}"),
            episode_len_mean=fmean(self.lengths) if any_ended else None,
            returns=self.returns[:LISTED_RETURNS],
            checkpoint=self.origin,
            trajectories_uri=self.request.out if any_ended else None,
            video_uri=f"{self.request.video}/{VIDEO}" if self.request.video and any_ended else None,
            done=done,
        )


@contextmanager
def _outputs(request: Request) -> Iterator[dict[str, Store]]:
    """Hold the places that the request writes to for this process; yield the store of each, by its folder or URI."""
    stores: dict[str, Store] = {}
    held: dict[str, Store] = {}
    with ExitStack() as stack:
        for uri, argument in ((request.out, "--out"), (request.video, "--video-dir")):
            if uri is None:
                continue
            store = open_store(uri, request.storage)
            place = os.path.realpath(store.root) if isinstance(store, FolderStore) else store.uri
            if place not in held:  # one place may be named twice
                held[place] = stack.enter_context(_own(store, argument))
            stores[uri] = held[place]
        yield stores


@contextmanager
def _own(store: Store, argument: str) -> Iterator[Store]:
    """Hold one place. In a cluster each rollout has a URI of its own. Raises RunError where another process has it."""
    if isinstance(store, FolderStore):
        with output_folder(store.root, argument):
            yield store
    elif Target.from_environment(*ROLLOUT) is not None:
        yield store
    else:
        taken = claim.claimed(store, secrets.token_hex(8), 0, retry)
        try:
            yield OwnedStore(store, taken)
        finally:
            taken.release()


def run(request: Request) -> Iterator[tuple[Episode | None, RolloutResults]]:
    """Run `request`; yield each episode with the report so far, and at last None with the finished report.

    Raises RunError for what is wrong, and StorageError where storage cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="rltrainer-") as folder, _outputs(request) as stores:
        scratch = Path(folder)
        policy, origin = load(request, scratch / "checkpoint")
        recorder = Recorder(request, origin, stores)
        frames: list[Any] | None = [] if request.video else None
        for episode in episodes(policy, request, frames):
            if frames is not None:
                recorder.add_video(frames, policy.source, scratch)
                frames = None
            recorder.add(episode, scratch)
            yield episode, recorder.results()
        yield None, recorder.results(done=True)
