"""Environments: the names that RLlib's files have for them, and today's."""

import re
from typing import Any

from rltrainer.api.options import OptionError

RENAMED = {
    "Pendulum-v0": "Pendulum-v1",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "FrozenLake-v0": "FrozenLake-v1",
    "FrozenLake8x8-v0": "FrozenLake8x8-v1",
    "Taxi-v2": "Taxi-v4",
    "Taxi-v3": "Taxi-v4",
}
"""Environments by their old names: the same tasks with the same rewards."""
MUJOCO = (
    *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum"),
    *("Pusher", "Reacher", "Swimmer", "Walker2d"),
)
GAMES = (
    "AirRaid|Alien|Amidar|Assault|Asterix|Asteroids|Atlantis|BankHeist|BattleZone|BeamRider|Berzerk|Bowling|Boxing|"
    "Breakout|Carnival|Centipede|ChopperCommand|CrazyClimber|Defender|DemonAttack|DoubleDunk|ElevatorAction|Enduro|"
    "FishingDerby|Freeway|Frostbite|Gopher|Gravitar|Hero|IceHockey|Jamesbond|JourneyEscape|Kangaroo|Krull|KungFuMaster|"
    "MontezumaRevenge|MsPacman|NameThisGame|Phoenix|Pitfall|Pong|Pooyan|PrivateEye|Qbert|Riverraid|RoadRunner|Robotank|"
    "Seaquest|Skiing|Solaris|SpaceInvaders|StarGunner|Tennis|TimePilot|Tutankham|UpNDown|Venture|VideoPinball|"
    "WizardOfWor|YarsRevenge|Zaxxon"
)
GAME = re.compile(rf"(?:ALE/)?({GAMES})(-ram)?(NoFrameskip|Deterministic)?-v(\d)")
STICKY_VERSIONS = ("0", "5")
"""Versions of the games whose actions repeat with probability 0.25."""
WRAPPER_OPTIONS = ("frameskip",)
"""Arguments of the game that ALE's vector environment sets as RLlib's wrappers did: every fourth frame is shown."""
DOTTED_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+")


def is_atari(name: str) -> bool:
    """Whether `name` is a game that ALE's vector environment plays."""
    return GAME.fullmatch(name) is not None


def translate_environment(name: str, config: dict[str, Any], where: str) -> tuple[str, dict[str, Any], list[str]]:
    """Translate an environment to (name, keyword arguments, notes). Raises OptionError."""
    if game := GAME.fullmatch(name):
        return translate_atari(game, config, where)
    if name.startswith("ray.rllib."):
        raise OptionError(
            f"{where}.env: {name} comes with RLlib. Put the class into a module of your own, and name it module:Class"
        )
    ours, reason = current_name(name)
    return ours, config, [f"env {name} is {ours} here: {reason}"] if ours != name else []


def current_name(name: str) -> tuple[str, str]:
    """Return an environment's name today, and what the change means."""
    robot, _, version = name.partition("-v")
    if robot in MUJOCO and version in ("1", "2", "3", "4"):
        return f"{robot}-v5", "by MuJoCo's own bindings, and with nearly the same rewards"
    if DOTTED_NAME.fullmatch(name):
        module, _, attribute = name.rpartition(".")
        return f"{module}:{attribute}", "env_config are its keyword arguments"
    return RENAMED.get(name, name), "the rewards are the same"


def translate_atari(game: re.Match[str], config: dict[str, Any], where: str) -> tuple[str, dict[str, Any], list[str]]:
    """Translate an Atari game with RLlib's wrappers. Raises OptionError for one that shows the console's memory."""
    title, ram, frame_skip, version = game.groups()
    ours = f"ALE/{title}-v5"
    if ram:
        raise OptionError(
            f"{where}.env: {game[0]} shows the console's memory, and games are played from pictures: {ours}"
        )
    repeat_probability = 0.25 if frame_skip is None and version in STICKY_VERSIONS else 0.0
    arguments = {name: value for name, value in config.items() if name not in WRAPPER_OPTIONS}
    renamed = "" if game[0] == ours else f" is {ours} here"
    note = (
        f"env {game[0]}{renamed}, as RLlib wraps it: a life is an episode, and rewards are clipped to +-1; so is "
        "episode_reward_mean, which RLlib takes of whole games"
    )
    return ours, {"repeat_action_probability": repeat_probability, "episodic_life": True, **arguments}, [note]
