"""Checkpoints and runs as training leaves them, made without training."""

import json
from pathlib import Path
from typing import Any

import torch

from rltrainer.backend.base import make_learner
from rltrainer.networks.parameters import module_state
from rltrainer.ops.normalization import ObservationNormalizer
from rltrainer.storage import checkpoint
from tests.unit.trainer.helpers import small, worker_config


def written(
    root: Path, run: str, env: str = "CartPole-v1", iteration: int = 3, metrics: Any = None, **config: Any
) -> Path:
    """A checkpoint whose weights and statistics are far from those that training begins with."""
    options = small(run, **config)
    plan = worker_config(env, run, **options)
    nets = make_learner(plan).context.nets
    rng = torch.Generator().manual_seed(iteration)
    with torch.no_grad():
        for parameter in nets.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.2)
        for module in nets.modules():
            if isinstance(module, ObservationNormalizer):
                module.update(3 + 2 * torch.randn(50, *(plan.spaces.observations.shape or ()), generator=rng))
    identity = {"run": run, "env": env, "env_config": {}, "config": options, "seed": 7}
    tree = {"policy": module_state(nets), "run": {"spec": identity}}
    return checkpoint.write(root, tree, iteration, 100 * iteration, metrics or {})


def written_run(folder: Path, attribute: str = "episode_reward_mean", env: str = "CartPole-v1", **kept: Any) -> Path:
    """A run of PPO that ranks its checkpoints 2, 4 and 6 by `attribute`; `kept` has the metrics of each."""
    for iteration in (2, 4, 6):
        metrics = {name.replace("__", "/"): values[iteration // 2 - 1] for name, values in kept.items()}
        written(folder / "checkpoints", "PPO", env, iteration, metrics)
    (folder / "params.json").write_text(json.dumps({"run": "PPO", "checkpoint": {"scoreAttribute": attribute}}))
    return folder
