"""Atari games as the field trains on them: Mnih et al. 2015, doi 10.1038/nature14236, methods; Machado et al. 2018,
arXiv 1709.06009, section 5.

`ALE/Pong-v5` and the like are trained on by ALE's own vector environment, whose keyword arguments are the options of
an `env_config`. Its defaults: 4 frames a step, of which the last two are pooled; 84 x 84 gray pixels, 4 frames of them
stacked; up to 30 no-ops and the fire button at the start; actions repeat with probability 0.25 (with
`repeat_action_probability: 0` results compare with those of before 2018); a lost life does not end an episode
(`episodic_life: true` does that); rewards are clipped to +-1 before they are learned from (`reward_clipping: false`
leaves them as they are), while returns add up the game's own. Rollouts and evaluations play whole games.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from rltrainer.envs.gymnasium_envs import GymnasiumKind, spec_of
from rltrainer.envs.kind import EnvConfig, EnvKind

ENTRY_POINT = "ale_py.env:AtariEnv"
LEARNING_OPTIONS = ("reward_clipping", "episodic_life", "life_loss_info", "num_threads", "thread_affinity_offset")
"""Options of the vector that shape what is learned from or how fast, and not what is played."""
PREPROCESSING_OPTIONS = (
    "frameskip", "stack_num", "img_height", "img_width", "grayscale", "noop_max", "use_fire_reset",
)  # fmt: skip
"""Options of the vector that wrappers of a single game follow."""
FIXED_OPTIONS = {"batch_size": 0, "maxpool": True, "continuous": False}
"""Options of the vector that have no counterpart in a single game, and so no other value here."""


def find(name: str) -> EnvKind | None:
    """Return how the game is made; None for a registered environment that ALE has no vector of."""
    spec = spec_of(name)
    return AtariKind(spec) if spec.entry_point == ENTRY_POINT and spec.vector_entry_point is not None else None


@dataclass(frozen=True)
class AtariKind(GymnasiumKind):
    """A game of the Arcade Learning Environment."""

    @property
    def evaluation_config(self) -> EnvConfig:
        """Options with which whole games are played for their own score."""
        return {"reward_clipping": False, "episodic_life": False}

    def clips_rewards(self, config: EnvConfig) -> bool:
        """Return whether rewards are to be clipped: unless the config says no."""
        return bool(config.get("reward_clipping", True))

    def vector(self, num_envs: int, config: EnvConfig) -> VectorEnv[Any, Any, Any] | None:
        """Make ALE's own vector, whose rewards are not clipped yet: whoever learns from them clips them."""
        check_fixed_options(config)
        return super().vector(num_envs, {**config, "reward_clipping": False})

    def single(self, config: EnvConfig) -> Env[Any, Any]:
        """Make one game that shows, pixel for pixel, what ALE's vector of the same options shows.

        It plays whole games for their own score: the options that shape learning do not count.
        """
        from ale_py.vector_env import AtariVectorEnv  # noqa: PLC0415 - an extra

        check_fixed_options(config)
        defaults = inspect.signature(AtariVectorEnv).parameters
        options = {**self.spec.kwargs, **{name: config[name] for name in config if name not in LEARNING_OPTIONS}}
        view = {name: options.pop(name, defaults[name].default) for name in PREPROCESSING_OPTIONS}
        return preprocessed(gymnasium.make(self.spec, **{**options, "frameskip": 1}), view)


def check_fixed_options(config: EnvConfig) -> None:
    """Raise ValueError for an option of ALE's vector environment that a single game could not follow."""
    for name, value in FIXED_OPTIONS.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} must be {value}, not {config[name]}")


def preprocessed(game: Env[Any, Any], view: Mapping[str, Any]) -> Env[Any, Any]:
    """Wrap a game that gives every frame, so that it shows what PREPROCESSING_OPTIONS of these values say."""
    game = FirePreprocessing(
        game,
        fire=view["use_fire_reset"],
        noop_max=view["noop_max"],
        frame_skip=view["frameskip"],
        screen_size=(view["img_width"], view["img_height"]),
        grayscale_obs=view["grayscale"],
    )
    return FrameStackObservation(game, view["stack_num"], padding_type="zero")


class FirePreprocessing(AtariPreprocessing):
    """Gymnasium's preprocessing, and the fire button, which some games wait for, pressed once at the start."""

    def __init__(self, env: Env[Any, Any], fire: bool, **options: Any) -> None:
        super().__init__(env, **options)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self.fire = meanings.index("FIRE") if fire and "FIRE" in meanings else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game."""
        obs, info = super().reset(seed=seed, options=options)
        if self.fire is None:
            return obs, info
        self.env.step(self.fire)
        screen = self.ale.getScreenGrayscale if self.grayscale_obs else self.ale.getScreenRGB
        screen(self.obs_buffer[0])
        return self._get_obs(), info  # type: ignore[no-untyped-call]
