"""Reinforcement learning on Ray, PyTorch and Gymnasium, driven by one RLExperiment document.

    import rltrainer as rl

    run = rl.train("PPO", "CartPole-v1", lr=3e-4, stop={"timesteps_total": 100_000})
    policy = rl.load(run)
    policy.predict(obs), policy.evaluate(episodes=20), policy.video("x.mp4"), run.results

What each name is imported from is loaded when it is first used: PyTorch takes seconds. `__init__.pyi` has their types,
and of `train` the options of each algorithm.
"""

from importlib import import_module

__version__ = "0.1.0"

PUBLIC = {
    "DocumentError": "rltrainer.api.base",
    "Episodes": "rltrainer.library.policies",
    "Experiment": "rltrainer.api.documents",
    "OptionError": "rltrainer.api.options",
    "Policy": "rltrainer.library.policies",
    "Result": "rltrainer.runs.train",
    "RunError": "rltrainer.errors",
    "load": "rltrainer.library.policies",
    "results": "rltrainer.library.results",
    "train": "rltrainer.library.training",
}
"""The module that each public name comes from."""

__all__ = [*PUBLIC]  # noqa: PLE0604 - names all of them


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*PUBLIC, "__version__", "__doc__", "__all__"])
