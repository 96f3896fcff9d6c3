"""Environments by the names that they had in the time of the classic RLlib."""

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
"""Environments of today that are the same task with the same rewards."""
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
STICKY = ("0", "5")
"""Versions of the games whose actions repeat with probability 0.25."""
IN_WRAPPERS = ("frameskip",)
"""What ALE's vector environment does as RLlib's wrappers did: it shows every fourth frame."""
PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+")


def is_atari(name: str) -> bool:
    """Whether `name` is a game that ALE's vector environment plays."""
    return GAME.fullmatch(name) is not None


def environment(name: str, config: dict[str, Any], where: str) -> tuple[str, dict[str, Any], list[str]]:
    """The name and the keyword arguments here of an environment, and what to say of it. Raises OptionError."""
    if game := GAME.fullmatch(name):
        return atari(game, config, where)
    if name.startswith("ray.rllib."):
        raise OptionError(
            f"{where}.env: {name} comes with RLlib. Put the class into a module of your own, and name it module:Class"
        )
    ours, why = today(name)
    return ours, config, [f"env {name} is {ours} here: {why}"] if ours != name else []


def today(name: str) -> tuple[str, str]:
    """What an environment is called today, and what that means."""
    robot, _, version = name.partition("-v")
    if robot in MUJOCO and version in ("1", "2", "3", "4"):
        return f"{robot}-v5", "by MuJoCo's own bindings, and with nearly the same rewards"
    if PLAIN.fullmatch(name):
        module, _, attribute = name.rpartition(".")
        return f"{module}:{attribute}", "env_config are its keyword arguments"
    return RENAMED.get(name, name), "the rewards are the same"


def atari(game: re.Match[str], config: dict[str, Any], where: str) -> tuple[str, dict[str, Any], list[str]]:
    """An Atari game, with what RLlib wraps around it. Raises OptionError for one that shows its memory."""
    title, memory, kind, version = game.groups()
    ours = f"ALE/{title}-v5"
    if memory:
        raise OptionError(
            f"{where}.env: {game[0]} shows the console's memory, and games are played from pictures: {ours}"
        )
    sticky = 0.25 if kind is None and version in STICKY else 0.0
    given = {name: value for name, value in config.items() if name not in IN_WRAPPERS}
    called = "" if game[0] == ours else f" is {ours} here"
    note = (
        f"env {game[0]}{called}, as RLlib wraps it: a life is an episode, and rewards are clipped to +-1; so is "
        "episode_reward_mean, which RLlib takes of whole games"
    )
    return ours, {"repeat_action_probability": sticky, "episodic_life": True, **given}, [note]
