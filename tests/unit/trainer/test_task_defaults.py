"""Defaults that depend on the task: where they hold, where they do not, and what a run that goes on makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces as gym
from torch import nn

from benchmarks.learning.table import TASKS as REFERENCE_TASKS
from rltrainer import rllib_compat
from rltrainer.api.options import (
    OPTIONS,
    TASKS,
    Task,
    for_algorithm,
    options_for_task,
    options_going_on,
    options_of_checkpoint,
    task_defaults,
)
from rltrainer.api.options.base import Options
from rltrainer.api.options.off_policy import SACOptions
from rltrainer.core.optimizer import adam
from rltrainer.core.types import Spaces
from rltrainer.rllib_compat.algorithms import ALGORITHMS
from rltrainer.runs import policy, train
from rltrainer.runs.build import tasks_of
from rltrainer.runs.folder import MARK
from rltrainer.storage import checkpoint
from tests.unit.trainer.helpers import experiment, quick

EVERY_TASK: tuple[Task, ...] = tuple(TASKS)
IMAGE, TORQUE, BUTTON = gym.Box(0, 255, (84, 84, 4), np.uint8), gym.Box(-1, 1, (3,)), gym.Discrete(4)


@pytest.mark.parametrize(
    ("observations", "actions", "tasks"),
    [
        (gym.Box(-1, 1, (4,)), BUTTON, ()),
        (gym.Box(-1, 1, (3,)), TORQUE, ("continuous",)),
        (gym.Box(-1, 1, (7,)), TORQUE, ("continuous",)),
        (gym.Box(-1, 1, (8,)), TORQUE, ("continuous", "control")),
        (gym.Box(-1, 1, (17,)), BUTTON, ()),
        (gym.Discrete(16), BUTTON, ()),
        (IMAGE, BUTTON, ("images",)),
        (IMAGE, TORQUE, ("images", "continuous")),
        (gym.Box(0, 1, (10, 10, 4)), BUTTON, ()),  # MinAtar's, too small for Atari's network
    ],
)
def test_a_kind_of_task_follows_from_the_spaces(observations: Any, actions: Any, tasks: tuple[str, ...]) -> None:
    assert tasks_of(Spaces(observations, actions)) == tasks


def test_an_image_among_other_observations_counts() -> None:
    structure = gym.Dict({"eye": IMAGE, "speed": gym.Box(-1, 1, (9,))})
    assert tasks_of(Spaces(gym.flatten_space(structure), BUTTON, structure)) == ("images",)


@pytest.mark.parametrize("run", sorted(OPTIONS))
def test_what_a_document_sets_is_no_default(run: str) -> None:
    options = OPTIONS[run]
    plain = options().model_dump(by_alias=True)
    assert options_for_task(options, plain, EVERY_TASK).model_dump(by_alias=True) == plain


@pytest.mark.parametrize("run", sorted(OPTIONS))
def test_every_default_of_a_task_is_a_value_of_its_option(run: str) -> None:
    where = ("num_workers", "num_learners", "num_gpus", "num_cpus_per_worker")  # the operator plans without spaces
    for task in TASKS:
        values = task_defaults(OPTIONS[run], (), (task,))
        assert not values.keys() & {*where}
        assert dict(options_for_task(OPTIONS[run], {}, (task,))).items() >= values.items()


def test_a_schedule_by_default_does_not_replace_an_option_that_is_set() -> None:
    images: tuple[Task, ...] = ("images",)
    rainbow = OPTIONS["Rainbow"]
    assert options_for_task(rainbow, {}, images).model_dump()["priority_beta_schedule"][-1][1] == 1.0
    assert options_for_task(rainbow, {"priority_beta": 0.5}, images).model_dump()["priority_beta_schedule"] is None


def test_the_values_of_atari_and_of_mujoco() -> None:
    def used(run: str, *tasks: Task) -> dict[str, Any]:
        return options_for_task(OPTIONS[run], {}, tasks).model_dump(by_alias=True)

    ppo, dqn, rainbow = (used(run, "images") for run in ("PPO", "DQN", "Rainbow"))
    assert (ppo["epochs"], ppo["entropy_coeff"], ppo["lr"]) == (4, 0.01, 2.5e-4)
    assert (dqn["lr"], dqn["adam_eps"], dqn["learning_starts"]) == (1e-4, 1.5e-4, 20_000)
    assert min(step for step, epsilon in dqn["epsilon_schedule"] if epsilon <= 0.1) >= 250_000
    assert (rainbow["lr"], rainbow["adam_eps"]) == (6.25e-5, 1.5e-4)
    for run in ("SAC", "TD3", "DDPG"):
        control = used(run, "continuous", "control")
        assert (control["lr"], control["buffer_size"], control["learning_starts"]) == (3e-4, 1_000_000, 10_000)
    for run in ("PPO", "PG", "A2C", "IMPALA", "APPO"):
        assert used(run, "continuous")["normalize_observations"] is used(run, "continuous")["normalize_rewards"] is True
        assert used(run)["normalize_observations"] is used(run)["normalize_rewards"] is False


def test_an_unknown_name_has_no_default() -> None:
    with pytest.raises(TypeError, match="Wrong has no clip to give a default to"):

        class Wrong(Options, by_task={"images": {"clip": 0.1}}):
            """Gives a default to what it has not."""


CONTROL: tuple[Task, ...] = ("continuous", "control")
TASKS_IN: dict[str, tuple[Task, ...]] = {
    "Pendulum-v1": ("continuous",),
    **dict.fromkeys(("LunarLanderContinuous-v3", "HalfCheetah-v5", "Hopper-v5"), CONTROL),
}
"""The kinds of task of the reference environments that have any: none shows images of Atari's size."""


@pytest.mark.parametrize("task", REFERENCE_TASKS, ids=lambda task: task.name)
def test_the_reference_documents_depend_on_no_task(task: Any) -> None:
    spec = task.experiment().spec
    options = for_algorithm(spec.run)
    said = options.model_validate(spec.config).model_fields_set
    assert task_defaults(options, said, TASKS_IN.get(spec.env, ())) == {}


@pytest.mark.parametrize("run", sorted(ALGORITHMS))
def test_a_document_of_rllibs_has_its_defaults_whatever_the_task(run: str) -> None:
    file = {"x": {"run": run, "env": "CartPole-v1", "config": {}}}
    (translated,) = rllib_compat.translate_experiments(file, "file")
    spec = translated.document["spec"]
    options, config = for_algorithm(spec["run"]), spec["config"]
    assert not [name for name, value in config.items() if value is None]
    assert options_for_task(options, config, EVERY_TASK) == options.model_validate(config)


def test_adam_has_the_epsilon_of_the_options() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1e-3, 1.0])
    optimizer = adam()(parameter, Options(lr=0.1, adam_eps=1e-3))
    optimizer.step()
    # the first step's averages are the gradient and its square: lr g / (|g| + eps)
    assert parameter.tolist() == pytest.approx([-0.1 / 2, -0.1 / 1.001], rel=1e-4)


def trained(folder: Path, iterations: int, config: dict[str, Any], **spec: Any) -> tuple[dict[str, Any], Any]:
    """What params.json and the last checkpoint say of a run of PPO on Pendulum."""
    document = experiment(
        env="Pendulum-v1", config=config, stop={"training_iteration": iterations}, checkpoint={"frequency": 0}, **spec
    )
    result = train.run(document, folder, resume=(folder / "test" / MARK).exists())  # documents differ on purpose
    assert result.checkpoint is not None
    params = json.loads((result.folder / "params.json").read_text())["config"]
    return params, result.checkpoint


def reopen(folder: Path) -> None:
    """Let the run be as if its end had not been reached."""
    mark = folder / "test" / MARK
    mark.write_text(json.dumps({"uid": json.loads(mark.read_text())["uid"]}))


def as_before(path: Path) -> Path:
    """Write a checkpoint again as it was when it held nothing but what its document set, and no normalization."""
    manifest, tree = checkpoint.read(path)
    spec = tree["run"]["spec"]
    del spec["options"]
    spec["config"] = {name: value for name, value in spec["config"].items() if not name.startswith("normalize")}
    checkpoint.delete(path)
    return checkpoint.write(path.parent, tree, manifest.iteration, manifest.timesteps_total, {})


PLAIN = {"normalize_observations": False, "normalize_rewards": False}


def test_a_run_says_what_it_used_and_its_policy_has_it(tmp_path: Path) -> None:
    params, path = trained(tmp_path, 1, quick())
    assert params["normalize_observations"] is params["normalize_rewards"] is True
    spec = checkpoint.read(path)[1]["run"]["spec"]
    assert spec["config"] == quick()
    assert spec["options"]["normalize_observations"] is True
    assert policy.load(path).options.normalize_observations is True


def test_a_run_of_before_goes_on_with_what_it_was_trained_with(tmp_path: Path) -> None:
    _, path = trained(tmp_path, 2, quick(**PLAIN))
    path = as_before(path)
    assert policy.load(path).options.normalize_observations is False
    reopen(tmp_path)
    params, after = trained(tmp_path, 4, quick())
    assert params["normalize_observations"] is params["normalize_rewards"] is False
    tree = checkpoint.read(after)[1]
    assert tree["run"]["progress"]["training_iteration"] == 4
    assert not [name for name in tree["policy"] if "normalizer" in name]
    assert tree["run"]["spec"]["options"]["normalize_observations"] is False


def test_another_run_may_start_from_a_checkpoint_of_before(tmp_path: Path) -> None:
    _, path = trained(tmp_path / "first", 1, quick(**PLAIN))
    document = experiment(env="Pendulum-v1", config=quick(), stop={"training_iteration": 1})
    result = train.run(document, tmp_path / "second", restore_from=str(as_before(path)))
    assert json.loads((result.folder / "params.json").read_text())["config"]["normalize_observations"] is False


def test_a_document_that_asks_for_another_value_gets_it(tmp_path: Path) -> None:
    _, path = trained(tmp_path, 1, quick(**PLAIN))
    as_before(path)
    reopen(tmp_path)
    params, _ = trained(tmp_path, 2, quick(normalize_rewards=True, lr=0.01))
    assert (params["normalize_rewards"], params["lr"], params["normalize_observations"]) == (True, 0.01, False)


def test_a_former_default_is_that_of_checkpoints_that_do_not_say() -> None:
    class Renewed(Options, defaults={"lr": 0.5}, former={"lr": 0.25}):
        """Has another default than it had."""

    before = {"config": {"gamma": 0.9}}
    assert options_of_checkpoint(Renewed, before).lr == 0.25
    assert options_of_checkpoint(Renewed, {"config": {"lr": 0.125}}).lr == 0.125
    assert options_of_checkpoint(Renewed, {"config": {}, "options": {"lr": 0.75}}).lr == 0.75
    assert options_going_on(Renewed(), {}, before).lr == 0.25
    assert options_going_on(Renewed(lr=0.1), {"lr": 0.1}, before).lr == 0.1
    assert options_going_on(Renewed(), {}, {"config": {"lr": 0.125}}).lr == 0.5, "it was set, and is no more"


def test_a_soft_policy_that_was_trained_goes_on_to_the_entropy_that_it_aimed_at() -> None:
    """Of discrete actions; what is begun now aims at a share that a policy can reach where most actions end it all."""
    before = {"config": {"lr": 0.001}}
    assert options_of_checkpoint(SACOptions, before).target_entropy_ratio == 0.98
    assert options_going_on(SACOptions(), {}, before).target_entropy_ratio == 0.98
