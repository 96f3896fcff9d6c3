"""RLlib's metrics: the conditions that stop an experiment, and its evaluation."""

import difflib
from typing import Any

from rltrainer.api.base import EVALUATED, REWARD_WINDOW, DocumentError
from rltrainer.api.options import OptionError
from rltrainer.rllib_compat.options import TranslatedConfig
from rltrainer.rllib_compat.rules import Content

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
"""Our metric by each name that versions of RLlib have given it."""
STOP_METRICS = frozenset(METRICS.values()) - {"episode_len_mean"}
GREEDY_EPISODES = 20
"""Episodes of an evaluation that stands for RLlib's mean over the workers that hardly explore."""


def translate_stop(stop: Content, where: str) -> Content:
    """Translate stop conditions. Raises DocumentError for an unknown metric."""
    translated: Content = {}
    for name, value in stop.items():
        if METRICS.get(name) not in STOP_METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f' Did you mean "{near[0]}"?' if near and near[0] != name else ""
            raise DocumentError(f'{where}.stop: no condition "{name}".{hint} Known: {", ".join(sorted(STOP_METRICS))}')
        translated[METRICS[name]] = value
    return translated


def translate_evaluation(result: TranslatedConfig, stop: Content, notes: list[str], where: str) -> Content | None:
    """Return spec.evaluation, None without one. Raises OptionError.

    A stop reward that RLlib takes of other episodes than the last 100 of training becomes one of an evaluation: this
    changes `stop` and adds to `notes`.
    """
    evaluation = requested_evaluation(result.moved, where)
    window = result.moved.get("metrics_smoothing_episodes", REWARD_WINDOW)
    if REWARD not in stop or not (result.reward_is_greedy or window < REWARD_WINDOW):
        return evaluation
    if result.reward_is_greedy:
        evaluation = evaluation or {"interval": 1, "episodes": GREEDY_EPISODES, "deterministic": True}
        reason = "RLlib's mean is of the workers that hardly explore"
    else:
        evaluation = evaluation or {"interval": 1, "episodes": window, "deterministic": False}
        reason = f"RLlib's mean is of {window} episodes, and that of training here of {REWARD_WINDOW}"
    stop[EVALUATED] = stop.pop(REWARD)
    notes.append(f"stop.{REWARD} is stop.{EVALUATED} here, of {evaluation['episodes']} episodes: {reason}")
    return evaluation


def requested_evaluation(options: Content, where: str) -> Content | None:
    """Return the evaluation that a config asks for, None without one. Raises OptionError for an unsupported one."""
    if not options.get("evaluation_interval"):
        return None
    if options.get("evaluation_duration_unit", "episodes") != "episodes":
        raise OptionError(f"{where}.evaluation_duration_unit: an evaluation is of whole episodes")
    config: dict[str, Any] = dict(options.get("evaluation_config") or {})
    explore = config.pop("explore", False)
    for name in set(config) - {"num_workers", "num_env_runners", "num_envs_per_worker", "in_evaluation", "render_env"}:
        raise OptionError(f"{where}.evaluation_config.{name}: evaluations run with the options of training")
    return {
        "interval": options["evaluation_interval"],
        "episodes": options.get("evaluation_num_episodes", 10),
        "deterministic": not explore,
    }
