"""The vocabulary of options: one name, one type, one meaning; and what a person is told who errs."""

import subprocess
import sys
from typing import Any

import pytest

from rltrainer.api.options import OPTIONS, OptionError, Options, option_names, parse_options
from rltrainer.api.options.groups import ReplayBuffer, TargetNetwork


def test_an_option_means_the_same_in_every_algorithm() -> None:
    seen: dict[str, tuple[Any, Any, Any]] = {}
    for options in OPTIONS.values():
        for name, field in options.model_fields.items():
            meaning = (field.annotation, repr(field.metadata), field.description)
            assert seen.setdefault(name, meaning) == meaning, f"{options.__name__}.{name}"


def test_options_are_put_together_and_not_inherited() -> None:
    """Algorithm -> field groups -> what all have: one level, and no algorithm stands on another."""
    for run, options in OPTIONS.items():
        for group in options.__bases__:
            assert group.__module__.endswith("options.groups"), run
            assert group.__bases__ == (Options,), run


def test_every_default_is_a_value_of_its_option() -> None:
    for options in OPTIONS.values():
        defaults = options().model_dump(by_alias=True)
        assert options.model_validate(defaults).model_dump(by_alias=True) == defaults


def test_a_default_changes_nothing_but_the_value() -> None:
    class Mine(ReplayBuffer, TargetNetwork, defaults={"tau": 0.5}):
        pass

    class Yours(Mine, defaults={"n_step": 2}):
        pass

    field = Yours.model_fields["tau"]
    assert (field.default, field.description) == (0.5, TargetNetwork.model_fields["tau"].description)
    assert (Yours().tau, Yours().n_step, Mine().n_step, TargetNetwork().tau) == (0.5, 2, 1, 1.0)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Yours(tau=2.0)
    with pytest.raises(TypeError, match="Wrong has no clip to give a default to"):

        class Wrong(ReplayBuffer, defaults={"clip": 0.1}):
            pass


def test_options_answer_for_themselves() -> None:
    shards = {run: options(num_workers=4).shards for run, options in OPTIONS.items()}
    assert {run for run, count in shards.items() if count} == {"ApexDQN", "ApexDDPG"}
    apex = parse_options("ApexDQN", {"replay_shards": 8, "num_workers": 3})
    assert (apex.shards, parse_options("ApexDQN", {"replay_shards": 8}).shards) == (3, 1)
    for run in OPTIONS:
        for option, answer in (("cuda_graphs", "records_steps"), ("normalize_rewards", "scales_rewards")):
            has_it = option in option_names(OPTIONS[run])
            for value in (True, False) if has_it else ():
                assert getattr(parse_options(run, {option: value}), answer) == value
            assert has_it or not getattr(parse_options(run, {}), answer)
    sac = parse_options("SAC", {"lr": 0.1, "critic_lr": 0.2})
    assert (sac.own_lr("critic"), sac.own_lr("alpha"), sac.own_lr("policy"), sac.own_lr("")) == (0.2, None, None, None)


def test_every_option_is_described() -> None:
    for options in OPTIONS.values():
        assert all(field.description for field in options.model_fields.values())


@pytest.mark.parametrize(
    ("run", "config", "said"),
    [
        ("PPO", {"learning_rate": 1e-3}, 'PPO has no option "learning_rate" (in spec.config). Did you mean "lr"?'),
        ("PPO", {"minibatchsize": 64}, 'Did you mean "minibatch_size"?'),
        ("PPO", {"sgd_minibatch_size": 64}, 'Did you mean "minibatch_size"?'),
        ("A2C", {"clip": 0.1}, 'A2C has no option "clip" (in spec.config). It belongs to APPO, PPO'),
        ("SAC", {"double_q": True}, 'SAC has no option "double_q" (in spec.config). It belongs to ApexDQN, DQN'),
        ("PG", {"recurrent": "lstm"}, 'PG has no option "recurrent" (in spec.config). It belongs to A2C, A3C'),
        ("PPO", {"recurrent": "rnn"}, "spec.config.recurrent: "),
        (
            "A3C",
            {"normalize_rewards": True},
            'A3C has no option "normalize_rewards" (in spec.config). It belongs to A2C',
        ),
        ("A3C", {"num_learners": 2, "num_workers": 2}, "num_learners: the gradients of A3C are its workers'"),
        ("DQN", {"epsilon_schedule": [[5, 1.0], [5, 0.1]]}, "epsilon_schedule: timesteps must ascend"),
        ("DQN", {"v_min": 3, "v_max": 3}, "v_min 3.0 is not less than v_max 3.0"),
        ("DQN", {"buffer_size": 24}, "buffer_size 24 leaves 3 steps for each environment"),
        ("ApexDQN", {"buffer_size": 500, "num_workers": 3, "replay_shards": 2}, "buffer_size 500 leaves 15 steps"),
        ("PPO", {"lr": "fast"}, "spec.config.lr: "),
        ("PPO", {"gamma": 1.5}, "spec.config.gamma: Input should be less than or equal to 1, got 1.5"),
        ("PPO", {"lr": float("nan")}, "spec.config.lr: "),
        ("PPO", {"lr_schedule": [[10, 1e-3], [0, 1e-4]]}, "lr_schedule: timesteps must ascend"),
        ("PPO", {"hiddens": [64, 0]}, "spec.config.hiddens[1]: "),
        ("DQNN", {}, 'unknown algorithm "DQNN". Did you mean "DQN"?'),
    ],
)
def test_a_wrong_option_is_named(run: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_options(run, config)
    assert said in str(caught.value)


def test_the_name_in_a_document_is_the_name_in_python_but_for_keywords() -> None:
    assert option_names(OPTIONS["PPO"])["lambda"] == "lambda_"
    assert parse_options("PPO", {"lambda": 0.9}).model_dump()["lambda_"] == 0.9


def test_custom_options_are_open_and_ones_own_algorithm_has_them() -> None:
    assert parse_options("my.package:MINE", {"custom": {"anything": [1, {"at": "all"}]}}).custom["anything"][0] == 1


def test_reading_a_document_imports_neither_torch_nor_ray() -> None:
    modules = "rltrainer.api.experiment, rltrainer.api.status"
    code = f"import sys, {modules}; print({{'torch', 'ray', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("run", "schedule", "points", "message"),
    [
        ("PPO", "lr_schedule", [[0, 0.1], [100, -0.1]], "greater than 0, got -0.1"),
        ("PPO", "lr_schedule", [[0, 1.5]], "at most 1, got 1.5"),
        ("PPO", "clip_schedule", [[0, 0.0]], "greater than 0, got 0"),
        ("PPO", "clip_schedule", [[0, 0.0], [9, 0.2]], "greater than 0, got 0"),
        ("A2C", "entropy_coeff_schedule", [[0, 0.1], [9, -0.1]], "at least 0, got -0.1"),
        ("DQN", "priority_beta_schedule", [[0, 0.4], [100, 5.0]], "at most 1, got 5"),
        ("DQN", "epsilon_schedule", [[0, 2.0]], "at most 1, got 2"),
        ("Rainbow", "epsilon_schedule", [[0, -1.0]], "at least 0, got -1"),
    ],
)
def test_a_schedule_obeys_the_range_of_what_it_replaces(run: str, schedule: str, points: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"{schedule}: values must be {message}"):
        parse_options(run, {schedule: points})


@pytest.mark.parametrize(
    ("run", "schedule", "last"),
    [("SAC", "lr_schedule", 0.0), ("PPO", "clip_schedule", 0.0), ("DQN", "priority_beta_schedule", 1.0)],
)
def test_a_schedule_may_anneal_to_the_bound(run: str, schedule: str, last: float) -> None:
    points = [[0, 0.4], [100, last]]
    assert getattr(parse_options(run, {schedule: points}), schedule) == points
