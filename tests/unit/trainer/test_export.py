"""Exports: ONNX says what PyTorch says, weights alone make the same policy, and a checkpoint stays whole."""

import builtins
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from torch.onnx._internal.exporter._registration import ONNXRegistry

from rltrainer import algorithms
from rltrainer.algorithms.ppo import PPO
from rltrainer.backend.base import make_learner
from rltrainer.core.algorithm import ActContext, Algorithm
from rltrainer.errors import RunError, expected, install
from rltrainer.networks.parameters import module_state
from rltrainer.ops.distributions import SquashedGaussian
from rltrainer.runs import policy
from rltrainer.runs.export import FORMATS, export, load_model
from rltrainer.runs.policy import TrainedPolicy
from rltrainer.storage import checkpoint
from tests.unit.command import Command
from tests.unit.trainer.checkpoints import written
from tests.unit.trainer.helpers import TASKS, TOYS, small, worker_config

HERE = "tests.unit.trainer.test_export:"


class Spaced(gymnasium.Env[Any, Any]):
    """Only its spaces matter."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


class Shifted(Spaced):
    """Counts from elsewhere than 0, in what it shows and what it takes."""

    observation_space = spaces.Dict(
        {
            "pair": spaces.MultiDiscrete([2, 3], start=[4, -1]),
            "place": spaces.Tuple((spaces.Discrete(3, start=5), spaces.Box(-1, 1, (2, 2), np.float64))),
            "picture": spaces.Box(0, 255, (12, 12, 3), np.uint8),
            "speed": spaces.Box(-1, 1, (), np.float32),
        }
    )
    action_space = spaces.Discrete(3, start=-7)


class Bits(Spaced):
    """Takes four bits in a square, and shows pairs counted from elsewhere than 0."""

    observation_space = spaces.MultiDiscrete([2, 3], start=[1, 2])
    action_space = spaces.MultiBinary((2, 2))


class Several(Spaced):
    """Takes several things at once."""

    observation_space = spaces.Discrete(4, start=2)
    action_space = spaces.Tuple(
        (
            spaces.Box(np.array([[-3, 0]], np.float32), np.array([[-2.5, 9]], np.float32), dtype=np.float32),
            spaces.MultiDiscrete([3, 2], start=[1, 5]),
            spaces.MultiBinary(2),
        )
    )


class Lopsided(Spaced):
    """Has bounds that lie on one side of 0, and one dimension more than usual."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(np.array([[2, -9], [0, 0]]), np.array([[3, -1], [0.5, 4]]), dtype=np.float64)


RECALL = TASKS + "Recall"
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("A2C", "CartPole-v1", {"vf_share_layers": True}),
    ("A2C", RECALL, {"recurrent": "lstm", "normalize_observations": True}),
    ("A3C", RECALL, {"recurrent": "gru"}),
    ("APPO", TASKS + "ReachImage", {}),
    ("ApexDDPG", "Pendulum-v1", {"normalize_observations": True}),
    ("ApexDQN", TASKS + "Masked", {}),
    ("DDPG", HERE + "Lopsided", {"exploration_noise": "ornstein-uhlenbeck"}),
    ("DQN", HERE + "Shifted", {"normalize_observations": True}),
    ("DQN", "CartPole-v1", {"activation": "silu", "num_atoms": 11}),
    ("IMPALA", TOYS + "IdentityImage", {"cnn": "resnet"}),
    ("PG", HERE + "Several", {}),
    ("PPO", HERE + "Bits", {"activation": "elu"}),
    ("PPO", HERE + "Shifted", {}),
    ("PPO", HERE + "Lopsided", {"normalize_observations": True, "hiddens": []}),
    ("PPO", TASKS + "Masked", {"recurrent": "lstm"}),
    ("ParametricDQN", TASKS + "Described", {"dueling": True}),
    ("Rainbow", TASKS + "Described", {}),
    ("QRDQN", TASKS + "Masked", {"dueling": True, "num_quantiles": 5}),
    ("SAC", HERE + "Lopsided", {}),
    ("SAC", TASKS + "Masked", {}),
    ("TD3", "Pendulum-v1", {"activation": "relu"}),
]


@pytest.fixture(scope="module", autouse=True)
def operators_read_once() -> Iterator[None]:
    """PyTorch's exporter reads some 500 operators from their source files for each graph, a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


CHECKS = [1, 5]
"""Sizes of batches: neither is that of the batch that the graph was found with."""


def test_every_algorithm_has_a_case() -> None:
    assert {run for run, _, _ in CASES} == set(algorithms.ALGORITHMS)


def observed(found: TrainedPolicy, count: int) -> tuple[list[Any], torch.Tensor]:
    """What an environment might show, as it gives it and as the networks are given it."""
    space = found.observed
    space.seed(3)
    seen = [space.sample() for _ in range(count)]
    rows: list[Any] = [flatten(space, each) if found.spaces.structure is not None else each for each in seen]
    stored = np.stack(rows) if np.shape(rows[0]) else np.array(rows)
    return seen, torch.as_tensor(stored.astype(np.float32) if stored.dtype.kind == "f" else stored)


def at(seen: Any, path: str) -> Any:
    """The part of one observation that an input of the graph is named after."""
    for key in path.split(".")[1:]:
        seen = seen[int(key) if isinstance(seen, tuple) else key]
    return seen


def onnx_types(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    known = {"float": np.float32, "uint8": np.uint8, "int8": np.int8, "int64": np.int64, "double": np.float64}
    return {each.name: known[each.type.removeprefix("tensor(").removesuffix(")")] for each in session.get_inputs()}


def parts(action: Any, name: str = "action") -> dict[str, Any]:
    """An action by the names of the graph's outputs."""
    if not isinstance(action, tuple):
        return {name: action}
    return {key: each for i, part in enumerate(action) for key, each in parts(part, f"{name}_{i}").items()}


@pytest.mark.parametrize(("run", "env", "config"), CASES, ids=lambda case: str(case).rpartition(":")[2])
def test_the_graph_acts_as_the_policy_does(tmp_path: Path, run: str, env: str, config: dict[str, Any]) -> None:
    folder = written(tmp_path, run, env, **config)
    path = export(folder, "onnx", tmp_path / "out")
    assert path == tmp_path / "out" / "policy.onnx"
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    types, outputs = onnx_types(session), [each.name for each in session.get_outputs()]
    found = policy.load(folder)
    for count in CHECKS:
        seen, rows = observed(found, count)
        memory = found.algorithm.initial_state(found.nets, count)
        rng = torch.Generator().manual_seed(count)
        memory = {name: torch.randn(value.shape, generator=rng) for name, value in memory.items()}
        given = {f"{name}_in": value.numpy() for name, value in memory.items()}
        for name in types.keys() - given.keys():
            given[name] = np.stack([np.asarray(at(each, name), types[name]) for each in seen])
        said = dict(zip(outputs, session.run(None, given), strict=True))
        with torch.inference_mode():
            context = ActContext(found.options, torch.Generator(), count, timesteps=found.timesteps, state=memory)
            best = found.algorithm.greedy_action(found.nets, rows, context)
        expected: dict[str, Any] = {
            **parts(found.action_distribution.to_env(best.numpy())),
            **{f"{name}_out": value.numpy() for name, value in context.state.items()},
            **outputs_of(found, rows, memory),
        }
        assert said.keys() == expected.keys()
        for name, value in expected.items():
            assert said[name].shape == value.shape, name
            np.testing.assert_allclose(said[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        for i in range(count):
            action = tuple(said[each][i] for each in outputs if each.startswith("action"))
            taken = action if isinstance(found.spaces.actions, spaces.Tuple) else action[0]
            assert found.spaces.actions.contains(cast_as(found.spaces.actions, taken)), taken


def cast_as(space: Any, action: Any) -> Any:
    if isinstance(space, spaces.Tuple):
        return tuple(cast_as(part, each) for part, each in zip(space.spaces, action, strict=True))
    return np.asarray(action, space.dtype) if space.shape else int(action)


@torch.inference_mode()
def outputs_of(found: TrainedPolicy, obs: torch.Tensor, memory: dict[str, Any]) -> dict[str, Any]:
    """What the networks themselves put out, found by hand."""
    nets: Any = found.nets
    if found.run in ("DDPG", "TD3", "ApexDDPG"):
        return {}
    if found.algorithm.replays and found.run != "SAC":
        with nets.without_noise():
            return {"q": nets(obs).numpy()}
    if found.run in ("PG", "SAC"):
        raw = nets(obs)
    else:
        features = nets.encoder(obs)
        if nets.memory is not None:
            features, _ = nets.memory.step(features, memory)
        raw = nets.policy_head(nets.policy_head.linear(nets.policy_body(features)), obs)
    if isinstance(found.spaces.actions, spaces.Tuple):  # Several: a Box of 2, choices of 3 and 2, and 2 bits
        mean, logits, bits, log_std = raw.split([2, 5, 2, 2], -1)
        named = {"mean_0": mean, "log_std_0": log_std, "logits_1": logits, "logits_2": bits}
    elif isinstance(found.spaces.actions, spaces.Box):
        mean, log_std = raw.chunk(2, -1)
        named = {"mean": mean, "log_std": log_std.clamp(-20, 2) if found.run == "SAC" else log_std}
    else:
        named = {"logits": raw}
    return {name: value.numpy() for name, value in named.items()}


def test_the_graph_says_what_it_is_and_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    path = export(written(tmp_path, "PPO"), "onnx", tmp_path)
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (about["run"], about["env"], about["timesteps_total"]) == ("PPO", "CartPole-v1", "300")
    assert str(Path.cwd()).encode() not in path.read_bytes()


def contrary(nets: Any, obs: torch.Tensor, context: ActContext) -> torch.Tensor:
    """Acts in its own way: it names the action that the policy likes least, and counts its steps."""
    dist, _ = nets.step(obs, {})
    context.state = {"steps": context.state["steps"] + 1}
    least: torch.Tensor = dist.logits.argmin(-1)
    return least


CONTRARY = Algorithm(
    **{
        **vars(PPO),
        "name": "CONTRARY",
        "greedy_action": contrary,
        "initial_state": lambda nets, width: {"steps": torch.zeros(width, 1)},
    }
)


def test_an_algorithm_of_ones_own_is_exported_by_how_it_acts(tmp_path: Path) -> None:
    plan = worker_config()
    identity = {"run": HERE + "CONTRARY", "env": "CartPole-v1", "env_config": {}, "config": {}, "seed": 0}
    tree = {"policy": module_state(make_learner(plan).context.nets), "run": {"spec": identity}}
    folder = checkpoint.write(tmp_path, tree, 1, 10, {})
    session = onnxruntime.InferenceSession(export(folder, "onnx", tmp_path))
    obs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    action, steps = session.run(None, {"obs": obs, "steps_in": np.full((6, 1), 4, np.float32)})
    nets: Any = policy.load(folder).nets
    assert action.tolist() == nets.step(torch.from_numpy(obs), {})[0].logits.argmin(-1).tolist()
    assert steps.tolist() == [[5.0]] * 6


@pytest.mark.parametrize(
    ("run", "env", "config"),
    [("PPO", RECALL, {"recurrent": "lstm", "normalize_observations": True}), ("SAC", "Pendulum-v1", {})],
)
def test_weights_alone_make_the_same_policy(tmp_path: Path, run: str, env: str, config: dict[str, Any]) -> None:
    folder = written(tmp_path, run, env, **config)
    target = export(folder, "model", tmp_path / "out")
    assert sorted(path.name for path in target.iterdir()) == ["model.json", "model.safetensors"]
    one, other = policy.load(folder), load_model(target)
    assert other.timesteps == 300
    _, rows = observed(one, 4)
    with torch.inference_mode():
        acted = [each.algorithm.greedy_action(each.nets, rows, wide(each)) for each in (one, other)]
    assert torch.equal(*acted)
    told = json.loads((target / "model.json").read_text())
    assert told["weights"].keys() == one.nets.state_dict().keys()
    assert told["config"]["hiddens"] == [16]


def wide(found: TrainedPolicy) -> ActContext:
    return ActContext(found.options, torch.Generator(), 4, state=found.algorithm.initial_state(found.nets, 4))


def test_a_checkpoint_is_exported_whole(tmp_path: Path) -> None:
    folder = written(tmp_path, "PPO")
    target = export(folder, "checkpoint", tmp_path / "out")
    assert target == tmp_path / "out" / "checkpoint_000003"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert export(folder, "checkpoint", tmp_path / "out") == target, "a second time it is replaced"


@pytest.mark.parametrize("form", FORMATS)
def test_a_broken_checkpoint_is_not_exported(tmp_path: Path, form: str) -> None:
    folder = written(tmp_path, "PPO")
    with (folder / "policy.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(RunError, match=r"policy\.safetensors has .* bytes"):
        export(folder, form, tmp_path / "out")


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(RunError, match='no export format "pickle": use onnx, model, checkpoint'):
        export(tmp_path, "pickle", tmp_path)


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError("no", name=name)
        return found(name, *rest)

    folder = written(tmp_path, "PPO")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError) as caught:
        export(folder, "onnx", tmp_path)
    problem = expected(caught.value, tmp_path)
    assert problem is not None
    assert problem.message == f"onnxscript is not installed: {install('export')}"


def test_squashed_actions_reach_their_bounds() -> None:
    """The graph scales actions; a family that does so in another way would need another graph."""
    for run in ("SAC", "DDPG"):
        plan = worker_config(HERE + "Lopsided", run, **small(run))
        assert plan.algorithm.action_distribution(plan.spaces.actions).make is SquashedGaussian


def test_the_command_exports_what_a_run_has_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run" / "checkpoints"
    for iteration, mean in ((2, 9.0), (4, 5.0)):
        written(root, "PPO", iteration=iteration, metrics={"episode_reward_mean": mean})
    rltrainer, out = Command(capsys), tmp_path / "out"
    assert rltrainer("export", tmp_path / "run", "--out", out).strip() == str(out / "policy.onnx")
    about = {entry.key: entry.value for entry in onnx.load(out / "policy.onnx").metadata_props}
    assert about["timesteps_total"] == "200"
    latest = rltrainer("export", tmp_path / "run" / "latest", "--format", "checkpoint", "--out", out)
    assert latest.strip() == str(out / "checkpoint_000004")
    assert rltrainer("export", tmp_path / "run", "--format", "model", "--out", out).strip() == str(out / "model")
    assert load_model(out / "model").timesteps == 200
    assert "invalid choice: 'pickle'" in rltrainer("export", tmp_path, "--format", "pickle", "--out", out, code=2)
    assert "there is no checkpoint in" in rltrainer("export", tmp_path / "nowhere", "--out", out, code=2)
