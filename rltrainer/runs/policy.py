"""A trained policy: the networks of a checkpoint that act, and the environment that they were trained in."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space

from rltrainer import algorithms, rllib_compat
from rltrainer.api.options import OptionError, Options, option_names, options_of_checkpoint, parse_options
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.core.types import EpisodeReport, Spaces
from rltrainer.envs import given_envs
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.networks.parameters import load_policy
from rltrainer.ops.action_spaces import ActionDistribution
from rltrainer.sampling.evaluator import evaluate
from rltrainer.sampling.worker import WorkerConfig, observation_dtype
from rltrainer.seeding import Role, derived_seed
from rltrainer.storage import checkpoint
from rltrainer.storage.checkpoint import CorruptCheckpointError

log = logging.getLogger(__name__)

EXPLORATION_OPTIONS = (
    "epsilon_base",
    "epsilon_schedule",
    "exploration_noise",
    "exploration_sigma",
    "exploration_theta",
    "learning_starts",
)
"""Options that say how actions explore. All others belong to networks that are trained already, or to learning."""


TRAINED: dict[str, type] = {"run": str, "env": str, "env_config": dict, "config": dict}
"""What a checkpoint says of the run that wrote it, as far as acting needs it."""


@dataclass(frozen=True)
class TrainedPolicy:
    """Networks that act, and the environment they act in."""

    run: str
    """The algorithm, as a document names it."""
    algorithm: Algorithm
    options: Options
    nets: torch.nn.Module
    """The part that acts."""
    timesteps: int
    """How long it was trained, in environment steps."""
    spaces: Spaces
    action_distribution: ActionDistribution[Any]
    source: EnvSource

    @property
    def observed(self) -> Space[Any]:
        """The space of observations as the environment gives them."""
        return self.spaces.structure or self.spaces.observations

    def context(self, seed: int, num_envs: int = 1) -> ActContext:
        """Make the context of an episode that begins, or of `num_envs` that are run together."""
        rng = torch.Generator().manual_seed(derived_seed(seed, Role.ACTIONS))
        state = self.algorithm.initial_state(self.nets, num_envs)
        return ActContext(self.options, rng, num_envs, timesteps=self.timesteps, state=state)

    def act(self, obs: Any, context: ActContext, deterministic: bool) -> np.ndarray[Any, Any]:
        """Return the action for one observation, as the network puts it out: the best, or one that explores."""
        actions: np.ndarray[Any, Any] = self.act_all(np.asarray(obs)[None], context, deterministic)[0]
        return actions

    @torch.inference_mode()
    def act_all(self, obs: Any, context: ActContext, deterministic: bool) -> np.ndarray[Any, Any]:
        """Return the actions [B, *shape] for observations [B, *shape], as the network puts them out."""
        batch = torch.as_tensor(np.asarray(obs, observation_dtype(self.spaces.observations)))
        if deterministic:
            return np.asarray(self.algorithm.greedy_action(self.nets, batch, context).numpy())
        return np.asarray(self.algorithm.act(self.nets, batch, context)[0].numpy())

    def evaluate(self, episodes: int, seed: int, deterministic: bool) -> EpisodeReport:
        """Run `episodes` whole episodes, many at a time; return their returns and lengths.

        Where they begin follows from `seed` in another way than in training, so that the states are new ones.
        """
        worker_config = WorkerConfig(self.algorithm, self.source.for_evaluation(), self.spaces, self.options, seed)
        return evaluate(worker_config, self.nets, self.timesteps, episodes, deterministic)

    def moved(self, env: str | None, env_config: dict[str, Any]) -> "TrainedPolicy":
        """Return the same policy in environment `env`, or in its own with `env_config` over its arguments.

        Raises RunError, permanent, where that shows or takes something else.
        """
        own = self.source
        config = own.config if env in (None, own.name) else {}
        source = EnvSource(env or own.name, {**config, **env_config})
        if source == own:
            return self
        spaces = source.spaces()
        moved = replace(self, source=source, spaces=spaces)
        _check_same("observation", source, moved.observed, own, self.observed)
        _check_same("action", source, spaces.actions, own, self.spaces.actions)
        return moved

    def exploring(self, config: dict[str, Any], deterministic: bool) -> "TrainedPolicy":
        """Return the same policy with options, by our names or RLlib's, that say how it explores.

        Raises OptionError for one that cannot matter.
        """
        if not config:
            return self
        options = self.options.model_dump(by_alias=True)
        if ":" in self.run:  # what an algorithm of one's own makes of its options, only it knows
            parse_options(self.run, config, where="--config")
        else:
            config, space, notes = rllib_compat.translate_config(self.run, config, over=options)
            _check_matters(self.run, {**config, **space}, deterministic)
            for note in notes:
                log.info("%s", note)
        return replace(self, options=type(self.options).model_validate({**options, **config}))


def load(folder: Path, env: str | None = None) -> TrainedPolicy:
    """Read the policy of the checkpoint in `folder`. Raises RunError, permanent, if there is none or it is broken.

    `env` stands in for an environment that only the process knew which was handed it.
    """
    try:
        manifest, tree = checkpoint.read_policy(folder)
    except CorruptCheckpointError as error:
        raise RunError("CheckpointNotFound", str(error), permanent=True) from error
    trained = tree["run"].get("spec")
    if not isinstance(trained, dict) or any(not isinstance(trained.get(key), kind) for key, kind in TRAINED.items()):
        message = f"{folder} does not say what was trained: run, env, env_config and config"
        raise RunError("CheckpointNotFound", message, permanent=True)
    if env is not None and not given_envs.is_known(trained["env"]):
        trained = {**trained, "env": env}
    policy, nets = build(trained, manifest.timesteps_total)
    load_policy(nets, tree["policy"])
    return policy


def build(trained: Mapping[str, Any], timesteps: int) -> tuple[TrainedPolicy, torch.nn.Module]:
    """Build the policy of a run whose weights are still to be loaded, and all of its networks.

    `trained` is what its checkpoint says of it: `run`, `env`, `env_config`, `config` and, but for old ones, `options`.
    Raises RunError, permanent, if they cannot be had.
    """
    algorithm = algorithms.load(trained["run"])
    source = EnvSource(trained["env"], trained["env_config"])
    spaces = source.spaces()
    options = options_of_checkpoint(algorithm.options, trained)
    nets = algorithm.nets(spaces, options).requires_grad_(False).eval()
    acting, action_distribution = nets.get_submodule(algorithm.acts), algorithm.action_distribution(spaces.actions)
    policy = TrainedPolicy(trained["run"], algorithm, options, acting, timesteps, spaces, action_distribution, source)
    return policy, nets


def _check_same(what: str, source: EnvSource, space: Space[Any], own: EnvSource, expected: Space[Any]) -> None:
    if space != expected:
        raise RunError(
            "InvalidOption",
            f"the policy was trained in {own.name}, whose {what} space is {expected}; "
            f"that of {source.name} is {space}: they must be the same",
            permanent=True,
        )


def _check_matters(run: str, config: dict[str, Any], deterministic: bool) -> None:
    matters = [name for name in EXPLORATION_OPTIONS if name in option_names(type(parse_options(run, {})))]
    for name in config:
        if name not in matters:
            raise OptionError(
                f"--config {name}: no action depends on it once a policy is trained. "
                + (f"How {run} explores depends on {', '.join(matters)}" if matters else f"{run} takes none here")
            )
        if deterministic:
            raise OptionError(f"--config {name}: the best actions do not explore. Give --stochastic too")
