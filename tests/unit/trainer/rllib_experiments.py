"""RLlib experiments of one algorithm, translated."""

from typing import Any

from rltrainer.api.documents import Experiment
from rltrainer.rllib_compat import translate_experiments


def spec_of(run: str, config: dict[str, Any], env: str = "CartPole-v0", **fields: Any) -> dict[str, Any]:
    """The spec of an experiment; our own models accept it."""
    (translated,) = translate_experiments({"it": {"run": run, "env": env, "config": config, **fields}}, "it.yaml")
    Experiment.parse(translated.document, where="it.yaml")
    spec: dict[str, Any] = translated.document["spec"]
    return spec


def config_of(run: str, config: dict[str, Any], env: str = "CartPole-v0") -> dict[str, Any]:
    """The options of an experiment."""
    options: dict[str, Any] = spec_of(run, config, env)["config"]
    return options


def notes_of(run: str, config: dict[str, Any], env: str = "CartPole-v0", **fields: Any) -> list[str]:
    """The notes on an experiment."""
    (translated,) = translate_experiments({"it": {"run": run, "env": env, "config": config, **fields}}, "it.yaml")
    return translated.notes
