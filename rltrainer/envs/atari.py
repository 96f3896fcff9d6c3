"""Atari games as the field trains on them: Mnih et al. 2015, doi 10.1038/nature14236, methods; Machado et al. 2018,
arXiv 1709.06009, section 5.

`ALE/Pong-v5` and the like are trained on by ALE's own vector environment, whose keyword arguments are the options of
an `env_config`. Its defaults: 4 frames a step, of which the last two are pooled; 84 x 84 grey pixels, 4 frames of them
stacked; up to 30 no-ops and the fire button at the start; actions repeat with probability 0.25 (with
`repeat_action_probability: 0` results compare with those of before 2018); a lost life does not end an episode
(`episodic_life: true` does that); rewards are learnt from as if clipped to +-1 (`reward_clipping: false` leaves them as
they are), while returns add up the game's own. Rollouts and evaluations play whole games.
"""

import inspect
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

ENTRY_POINT = "ale_py.env:AtariEnv"
LEARNING = ("reward_clipping", "episodic_life", "life_loss_info", "num_threads", "thread_affinity_offset")
"""Options of the vector that shape what is learnt from or how fast, and not what is played."""
SCORED = {"reward_clipping": False, "episodic_life": False}
"""Options of the vector with which it plays whole games for their own score."""
FIXED = {"batch_size": 0, "maxpool": True, "continuous": False}
"""Options of the vector that have no other value here."""


def is_atari(spec: EnvSpec) -> bool:
    """Whether it is a game that ALE has a vector environment for."""
    return spec.entry_point == ENTRY_POINT and spec.vector_entry_point is not None


def check(config: dict[str, Any]) -> None:
    """Raises ValueError for an option of ALE's vector environment that has no counterpart in a single one."""
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} must be {value}, not {config[name]}")


def single(spec: EnvSpec, config: dict[str, Any], render_mode: str | None = None) -> Env[Any, Any]:
    """One game that shows, pixel for pixel, what ALE's vector environment of the same options shows.

    It plays whole games for their own score: the options that shape learning do not count.
    """
    from ale_py.vector_env import AtariVectorEnv  # noqa: PLC0415 - an extra

    own = inspect.signature(AtariVectorEnv).parameters
    given = {**spec.kwargs, **{name: value for name, value in config.items() if name not in LEARNING}}
    chosen = {name: given.pop(name, parameter.default) for name, parameter in own.items() if name in SHOWN}
    game = gymnasium.make(spec, **{**given, "frameskip": 1}, render_mode=render_mode)
    game = Preprocessed(
        game,
        fire=chosen["use_fire_reset"],
        noop_max=chosen["noop_max"],
        frame_skip=chosen["frameskip"],
        screen_size=(chosen["img_width"], chosen["img_height"]),
        grayscale_obs=chosen["grayscale"],
    )
    return FrameStackObservation(game, chosen["stack_num"], padding_type="zero")


SHOWN = ("frameskip", "stack_num", "img_height", "img_width", "grayscale", "noop_max", "use_fire_reset")
"""Options of the vector that a wrapper has to follow."""


class Preprocessed(AtariPreprocessing):
    """Gymnasium's preprocessing, and the fire button, which some games wait for, pressed once at the start."""

    def __init__(self, env: Env[Any, Any], fire: bool, **given: Any) -> None:
        super().__init__(env, **given)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self.fire = meanings.index("FIRE") if fire and "FIRE" in meanings else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a game."""
        obs, info = super().reset(seed=seed, options=options)
        if self.fire is None:
            return obs, info
        self.env.step(self.fire)
        screen = self.ale.getScreenGrayscale if self.grayscale_obs else self.ale.getScreenRGB
        screen(self.obs_buffer[0])
        return self._get_obs(), info  # type: ignore[no-untyped-call]
