"""A policy taken out of a checkpoint: as an ONNX graph, as its weights alone, or as the checkpoint itself."""

import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gymnasium import Space, spaces
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rltrainer import __version__
from rltrainer.algorithms import dqn, on_policy, sac
from rltrainer.core.algorithm import ActContext
from rltrainer.core.types import State
from rltrainer.envs.layout import Part, layout
from rltrainer.errors import RunError
from rltrainer.networks.encoders import OneHot
from rltrainer.networks.noisy import NoisyLinear
from rltrainer.ops.action_spaces import action_distribution
from rltrainer.ops.distributions import (
    Bernoullis,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    Product,
    SquashedGaussian,
)
from rltrainer.runs import policy
from rltrainer.runs.policy import TrainedPolicy
from rltrainer.sampling.worker import observation_dtype
from rltrainer.storage import checkpoint
from rltrainer.storage.files import write_json

ONNX, MODEL = "policy.onnx", "model"
"""What the export is called in the folder that it goes to."""
MODEL_FORMAT = 1

Tensors = dict[str, Tensor]
"""Tensors by name."""


def export(folder: Path, form: str, out: Path) -> Path:
    """Write the policy of the checkpoint in `folder` as `form`, one of FORMATS, below `out`; return what was written.

    Raises RunError where the checkpoint is broken, the form is not known or a package is missing.
    """
    if form not in FORMATS:
        raise RunError("InvalidOption", f'there is no export format "{form}": use {", ".join(FORMATS)}', permanent=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FORMATS[form](folder, out)
    except OSError as error:
        raise RunError("ExportFailed", f"{out}: {error.strerror or error}") from error


def load_model(folder: Path) -> TrainedPolicy:
    """Read the policy that was exported to `folder` as `model`."""
    description = json.loads((folder / "model.json").read_text())
    exported, _ = policy.build(description, description["timesteps_total"])
    exported.nets.load_state_dict(load_file(folder / "model.safetensors"))
    return exported


def _checkpoint(folder: Path, out: Path) -> Path:
    """Copy the whole checkpoint, which training can go on from."""
    try:
        manifest = checkpoint.verify(folder)
    except checkpoint.CorruptCheckpointError as error:
        raise RunError("CheckpointNotFound", str(error), permanent=True) from error
    building = out / f".{manifest.name}.part"
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(folder, building)
    checkpoint.install(building, out / manifest.name)
    return out / manifest.name


def _model(folder: Path, out: Path) -> Path:
    """Write the weights of the part that acts, and in JSON what `load_model` builds its network from."""
    trained, target = policy.load(folder), out / MODEL
    weights = {name: tensor.contiguous() for name, tensor in trained.nets.state_dict().items()}
    network = type(trained.nets)
    description = {
        "format": MODEL_FORMAT,
        "rltrainer": __version__,
        "read_with": f"{load_model.__module__}.{load_model.__name__}",
        "run": trained.run,
        "env": trained.source.name,
        "env_config": trained.source.config,
        "config": trained.options.model_dump(by_alias=True, mode="json"),
        "timesteps_total": trained.timesteps,
        "observation_space": str(trained.observed),
        "action_space": str(trained.spaces.actions),
        "network": f"{network.__module__}.{network.__qualname__}",
        "weights": {name: list(tensor.shape) for name, tensor in weights.items()},
    }
    target.mkdir(exist_ok=True)
    save_file(weights, part := target / "model.safetensors.part")
    part.rename(target / "model.safetensors")
    write_json(target / "model.json", description)
    return target


def _onnx(folder: Path, out: Path) -> Path:
    """Write the best actions, and what the policy puts out for them, as the graph of `ActingGraph`."""
    import onnx  # noqa: F401, PLC0415 - an extra: that it is not there is told before the graph is made
    import onnxscript  # noqa: F401, PLC0415 - PyTorch's exporter needs it

    acting = ActingGraph(policy.load(folder)).eval()
    inputs = acting.example(batch=2)
    batched = tuple({0: "batch"} for _ in inputs)
    with torch.no_grad():
        outputs = list(acting.named(*inputs.values()))
    with _silent():
        try:
            program = torch.onnx.export(
                acting,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=(batched,),
                input_names=list(inputs),
                output_names=outputs,
                verbose=False,
            )
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise RunError("ExportFailed", f"{acting.policy.run} cannot be made a graph: {reason}", True) from error
        assert program is not None  # noqa: S101 - for the type checker
        for node in program.model.graph:
            node.metadata_props.clear()  # where in our code it came from, with paths of this machine
        program.model.metadata_props.update(acting.about())
        program.save(part := out / f"{ONNX}.part")
        part.rename(out / ONNX)
    return out / ONNX


FORMATS: Mapping[str, Callable[[Path, Path], Path]] = {"onnx": _onnx, "model": _model, "checkpoint": _checkpoint}


class ActingGraph(nn.Module):
    """A policy's best actions as a graph of arrays.

    Inputs: `obs` [B, *shape] as the environment gives it, of a Dict or Tuple each part as `obs.<its path>`; of a
    recurrent policy also its state, zeros where an episode begins, each array as `<name>_in`.
    Outputs: `action` as the environment takes it, of a Tuple each part as `action_<its position>`; what the policy puts
    out for all actions, as `logits`, `mean` and `log_std`, or `q`; and the new state as `<name>_out`.
    """

    def __init__(self, trained: TrainedPolicy) -> None:
        super().__init__()
        self.policy, self.nets = trained, trained.nets
        self.state = list(trained.algorithm.initial_state(trained.nets, 1))
        structure = trained.spaces.structure
        self.parts = [] if structure is None else layout(structure)
        self.encoders = nn.ModuleList(_flat(part.space) for part in self.parts)
        for layer in self.modules():
            if isinstance(layer, NoisyLinear):
                layer.noise_enabled = False

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, in the order of their names."""
        return tuple(self.named(*inputs).values())

    def named(self, *inputs: Tensor) -> Tensors:
        """Compute the outputs by name."""
        count = len(inputs) - len(self.state)
        state = dict(zip(self.state, inputs[count:], strict=True))
        action, outputs, state = decide(self.policy, self._observation(inputs[:count]), state)
        squashed = self.policy.action_distribution.make is SquashedGaussian
        actions = dict(as_taken(self.policy.spaces.actions, action, squashed))
        return {**actions, **outputs, **{f"{name}_out": value for name, value in state.items()}}

    def _observation(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if not self.parts:
            return inputs[0]
        return torch.cat([encoder(part) for encoder, part in zip(self.encoders, inputs, strict=True)], -1)

    def example(self, batch: int) -> Tensors:
        """Make inputs by name, all zeros."""
        whole = [Part((), self.policy.spaces.observations, slice(None))]
        observations = {
            ".".join(("obs", *part.path)): torch.as_tensor(_first_point(part.space))
            .expand(batch, *_shape(part.space))
            .clone()
            for part in self.parts or whole
        }
        state = self.policy.algorithm.initial_state(self.nets, batch)
        return {**observations, **{f"{name}_in": value for name, value in state.items()}}

    def about(self) -> dict[str, str]:
        """Say what it is a policy of."""
        trained = self.policy
        return {
            "rltrainer": __version__,
            "run": trained.run,
            "env": trained.source.name,
            "env_config": json.dumps(trained.source.config),
            "timesteps_total": str(trained.timesteps),
        }


def decide(trained: TrainedPolicy, obs: Tensor, state: State) -> tuple[Tensor, Tensors, State]:
    """Return the best actions, what the policy puts out for all actions, and the state after them."""
    algorithm, nets = trained.algorithm, trained.nets
    if algorithm.greedy_action is on_policy.mode:
        dist, state = nets.step(obs, state)  # type: ignore[operator]
        return dist.mode(), parameters(dist), state
    if algorithm.greedy_action is sac.greedy_action:
        dist = nets.act(obs)  # type: ignore[operator]
        return dist.mode(), parameters(dist), state
    if algorithm.greedy_action is dqn.greedy:
        q = nets(obs)
        return nets.argmax(q, obs), {"q": q}, state  # type: ignore[operator]
    context = ActContext(trained.options, torch.Generator(), obs.shape[0], timesteps=trained.timesteps, state=state)
    return algorithm.greedy_action(nets, obs, context), {}, context.state


def parameters(dist: Any) -> Tensors:
    """Return what a distribution was made from, by name."""
    match dist:
        case Categorical() | Bernoullis():
            return {"logits": dist.logits}
        case MultiCategorical():
            return {"logits": torch.cat([part.logits for part in dist.parts], -1)}
        case DiagonalGaussian() | SquashedGaussian():
            return {"mean": dist.mean, "log_std": dist.log_std}
        case Product():
            return {f"{name}_{i}": value for i, p in enumerate(dist.parts) for name, value in parameters(p).items()}
    return {}


def as_taken(space: Space[Any], action: Tensor, squashed: bool, name: str = "action") -> Iterator[tuple[str, Tensor]]:
    """Convert actions [B, ...] to what the environment takes, by name: `ActionDistribution.to_env` as a graph."""
    match space:
        case spaces.Discrete() | spaces.MultiDiscrete():
            yield name, action.long() + torch.as_tensor(space.start)
        case spaces.MultiBinary():
            yield name, action.reshape(-1, *space.shape).to(torch.int8)
        case spaces.Box():
            low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
            scaled = action.reshape(-1, *space.shape)
            if squashed:  # in double precision, as half has no room for the sum of its bounds
                least, greatest = low.double(), high.double()
                scaled = (greatest + least) / 2 + (greatest - least) / 2 * scaled.double()
                scaled = scaled.clamp(least, greatest).to(low.dtype)
            yield name, scaled.clamp(low, high)
        case spaces.Tuple():
            distributions = [action_distribution(part) for part in space.spaces]
            columns = torch.split(action, [math.prod(each.shape) for each in distributions], -1)
            for i, (part, column) in enumerate(zip(space.spaces, columns, strict=True)):
                yield from as_taken(part, column.reshape(-1, *distributions[i].shape), squashed, f"{name}_{i}")


def _flat(space: Space[Any]) -> nn.Module:
    """Make the module that flattens a part of an observation as Gymnasium's `flatten` does."""
    match space:
        case spaces.Discrete():
            return OneHot([int(space.n)], [int(space.start)], scalar=True)
        case spaces.MultiDiscrete():
            one_hot = OneHot(space.nvec.flatten().tolist(), space.start.flatten().tolist(), scalar=False)
            return nn.Sequential(nn.Flatten(), one_hot)
    return _Floats()


class _Floats(nn.Module):
    """Arrays [B, ...] as vectors [B, n]."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but the batch."""
        return x.float().flatten(1) if x.dim() > 1 else x.float().unsqueeze(-1)


def _shape(space: Space[Any]) -> tuple[int, ...]:
    return space.shape or ()


def _first_point(space: Space[Any]) -> Any:
    """Return a point of the space in the type that observations are stored in."""
    start = getattr(space, "start", 0)
    return start + torch.zeros(_shape(space)).numpy().astype(observation_dtype(space))


@contextmanager
def _silent() -> Iterator[None]:
    """Silence what PyTorch's exporter logs and warns of."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
