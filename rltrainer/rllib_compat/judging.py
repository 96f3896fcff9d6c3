"""When a classic experiment stops, and how its policy is judged."""

import difflib
from typing import Any

from rltrainer.api.base import EVALUATED, REWARD_WINDOW, DocumentError
from rltrainer.api.options import OptionError
from rltrainer.rllib_compat.config import Outcome

Settings = dict[str, Any]

REWARD = "episode_reward_mean"
METRICS = {
    name: ours
    for ours, names in {
        REWARD: (
            *(REWARD, "sampler_results/episode_reward_mean", "env_runners/episode_reward_mean"),
            *("episode_return_mean", "env_runners/episode_return_mean"),
        ),
        "timesteps_total": (
            *("timesteps_total", "agent_timesteps_total", "num_env_steps_sampled", "num_env_steps_sampled_lifetime"),
            *("num_agent_steps_sampled", "env_runners/num_env_steps_sampled_lifetime", "info/num_steps_sampled"),
            *("info/num_env_steps_sampled", "counters/num_env_steps_sampled"),
        ),
        "training_iteration": ("training_iteration",),
        "time_total_s": ("time_total_s",),
        "episodes_total": ("episodes_total", "env_runners/num_episodes_lifetime"),
        EVALUATED: (
            *(EVALUATED, "evaluation/sampler_results/episode_reward_mean"),
            "evaluation/env_runners/episode_return_mean",
        ),
        "episode_len_mean": ("episode_len_mean", "env_runners/episode_len_mean"),
    }.items()
    for name in names
}
"""What runs are stopped and checkpoints ranked by, under the names that it has had."""
STOPS = frozenset(METRICS.values()) - {"episode_len_mean"}
GREEDY_EPISODES = 20
"""Episodes of an evaluation that stands for RLlib's means over the workers that hardly explore."""


def stops(given: Settings, where: str) -> Settings:
    """When to stop. Raises DocumentError for a condition that there is not."""
    found: Settings = {}
    for name, value in given.items():
        if METRICS.get(name) not in STOPS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f' Did you mean "{near[0]}"?' if near and near[0] != name else ""
            raise DocumentError(f'{where}.stop: no condition "{name}".{hint} Known: {", ".join(sorted(STOPS))}')
        found[METRICS[name]] = value
    return found


def evaluation(outcome: Outcome, stop: Settings, notes: list[str], where: str) -> Settings | None:
    """How the policy is judged apart from training, and in `stop` by what. Raises OptionError."""
    given = outcome.apart
    asked = asked_evaluation(given, where)
    window = given.get("metrics_smoothing_episodes", REWARD_WINDOW)
    if REWARD not in stop or not (outcome.judged_greedily or window < REWARD_WINDOW):
        return asked
    if outcome.judged_greedily:
        asked = asked or {"interval": 1, "episodes": GREEDY_EPISODES, "deterministic": True}
        why = "RLlib's mean is of the workers that hardly explore"
    else:
        asked = asked or {"interval": 1, "episodes": window, "deterministic": False}
        why = f"RLlib's mean is of {window} episodes, and that of training here of {REWARD_WINDOW}"
    stop[EVALUATED] = stop.pop(REWARD)
    notes.append(f"stop.{REWARD} is stop.{EVALUATED} here, of {asked['episodes']} episodes: {why}")
    return asked


def asked_evaluation(given: Settings, where: str) -> Settings | None:
    """The evaluation that a config asks for. Raises OptionError for one that there is not."""
    if not given.get("evaluation_interval"):
        return None
    if given.get("evaluation_duration_unit", "episodes") != "episodes":
        raise OptionError(f"{where}.evaluation_duration_unit: an evaluation is of whole episodes")
    config = dict(given.get("evaluation_config") or {})
    explores = config.pop("explore", False)
    for name in set(config) - {"num_workers", "num_env_runners", "num_envs_per_worker", "in_evaluation", "render_env"}:
        raise OptionError(f"{where}.evaluation_config.{name}: evaluations run with the options of training")
    return {
        "interval": given["evaluation_interval"],
        "episodes": given.get("evaluation_num_episodes", 10),
        "deterministic": not explores,
    }
