"""Mistakes of newcomers: each is answered with what is wrong, where it was written, and what to do instead.

Those that need a run, a server or a cluster stand in the tests of these.
"""

import io
from pathlib import Path

import pytest
import yaml

from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment
from rltrainer.api.options import OPTIONS, OptionError, option_names, parse_options
from rltrainer.api.options.parsing import ABSENT, SYNONYMS
from rltrainer.cli import parser
from rltrainer.cli.common import UsageError
from rltrainer.cli.document import Job, jobs
from tests.unit.command import Command

PPO = ("--run", "PPO", "--env", "CartPole-v1")
DOCUMENT = """\
apiVersion: rltrainer.io/v1alpha1
kind: RLExperiment
metadata: {name: mine}
spec:
  run: PPO
  env: CartPole-v1
  stop: {timesteps_total: 1000}
"""
ROLLOUT = """\
apiVersion: rltrainer.io/v1alpha1
kind: RLRollout
metadata: {name: mine}
spec: {checkpoint: s3://bucket/runs/a, episodes: 3}
"""


@pytest.fixture
def rltrainer(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


def read(*arguments: str) -> list[Job]:
    return jobs(parser().parse_args(["train", *arguments]))


# ---- Written on the command line: what is wrong, where, what to do

ON_THE_COMMAND_LINE = [
    # an algorithm
    (("--run", "PP0", "--env", "CartPole-v1"), 'unknown algorithm "PP0"', 'Did you mean "PPO"?'),
    (("--run", "ppo", "--env", "CartPole-v1"), 'unknown algorithm "ppo"', 'Did you mean "PPO"?'),
    (("--run", "TRPO", "--env", "CartPole-v1"), 'unknown algorithm "TRPO"', "It is not here; the nearest is PPO."),
    (("--run", "TQC", "--env", "Pendulum-v1"), 'unknown algorithm "TQC"', "It is not here; the nearest is SAC."),
    (("--run", "HER", "--env", "Pendulum-v1"), 'unknown algorithm "HER"', "the nearest is SAC, with a reward"),
    (("--run", "MARWIL", "--env", "CartPole-v1"), 'unknown algorithm "MARWIL"', "it learns from recorded data"),
    (("--run", "Recurrent-PPO", "--env", "CartPole-v1"), 'algorithm "Recurrent-PPO"', "the nearest is PPO."),
    # options: by other names, of other algorithms, of other types
    (
        (*PPO, "--config", '{"learning_rate": 1}'),
        'PPO has no option "learning_rate" (in --config)',
        'Did you mean "lr"',
    ),
    ((*PPO, "--config", '{"n_steps": 5}'), 'no option "n_steps"', 'Did you mean "rollout_fragment_length"?'),
    ((*PPO, "--config", '{"gae_lambda": 0.9}'), 'no option "gae_lambda"', 'Did you mean "lambda"?'),
    ((*PPO, "--config", '{"clip_range": 0.2}'), 'no option "clip_range"', 'Did you mean "clip"?'),
    ((*PPO, "--config", '{"ent_coef": 0.1}'), 'no option "ent_coef"', 'Did you mean "entropy_coeff"?'),
    ((*PPO, "--config", '{"n_envs": 4}'), 'no option "n_envs"', 'Did you mean "num_envs_per_worker"?'),
    ((*PPO, "--config", '{"policy_kwargs": 4}'), 'no option "policy_kwargs"', 'Did you mean "hiddens"?'),
    ((*PPO, "--config", '{"device": "cuda"}'), 'no option "device"', 'Did you mean "num_gpus"?'),
    ((*PPO, "--config", '{"batch_size": 64}'), 'no option "batch_size"', 'PPO has "minibatch_size"'),
    ((*PPO, "--config", '{"buffer_size": 64}'), 'no option "buffer_size"', "It belongs to ApexDDPG, ApexDQN, DDPG"),
    ((*PPO, "--config", '{"gamma": 2}'), "--config: spec.config.gamma", "less than or equal to 1, got 2"),
    ((*PPO, "--config", '{"hiddens": 64}'), "--config: spec.config.hiddens", "should be a valid list, got 64"),
    ((*PPO, "--config", '{"lr": "auto"}'), "--config: spec.config.lr", "should be a valid number"),
    ((*PPO, "--config", '{"activation": "Tanh"}'), "spec.config.activation", "should be 'tanh', 'relu'"),
    ((*PPO, "--config", "{'lr': 0.001}"), "--config is not JSON", "as in '{\"lr\": 0.001}'"),
    ((*PPO, "--config", "lr=0.001"), "--config is not JSON", "as in '{\"lr\": 0.001}'"),
    ((*PPO, "--config", '{"lr": 1, "lr": 2}'), "--config", '"lr" is given twice'),
    # when to stop, and how often
    ((*PPO, "--stop", '{"reward": 100}'), 'no condition "reward"', "Known: episode_reward_mean"),
    ((*PPO, "--stop", '{"timesteps_total": -1}'), "--stop: spec.stop.timesteps_total", "0, got -1"),
    ((*PPO, "--stop", '{"evaluation/episode_reward_mean": 1}'), "needs evaluation", "evaluation: {} is enough"),
    ((*PPO, "--config", '{"num_learners": 3}'), "num_learners 3 does not divide num_workers 0", "each learner takes"),
    # names, places
    ((*PPO, "--experiment-name", "My run"), "--experiment-name: metadata.name", "should match pattern"),
    ((*PPO, "--upload-dir", "here"), "--upload-dir takes an s3:// URI, got here", "--local-dir says where"),
    ((*PPO, "--set", "spec.stop"), "--set takes a field of the document and its value", "spec.evaluation.interval=2"),
    ((*PPO, "--set", "stop.x=3"), "and got stop.x=3", "as in --set spec.evaluation.interval=2"),
    ((*PPO, "--set", "spec.stpo.x=3"), "--set spec.stpo.x: spec.stpo: there is no such field", 'Did you mean "stop"?'),
    (
        (*PPO, "--set", "spec.evaluation.interval=0"),
        "--set spec.evaluation.interval: spec.evaluation.interval",
        "got 0",
    ),
    ((*PPO, "--set", "spec.stop={"), "--set spec.stop: { is not YAML", "while parsing a flow node"),
    (("--run", "PPO"), "give a document with -f FILE", "or both --run and --env"),
]


@pytest.mark.parametrize(("arguments", "what", "to_do"), ON_THE_COMMAND_LINE, ids=lambda value: str(value)[:40])
def test_a_mistake_on_the_command_line(arguments: tuple[str, ...], what: str, to_do: str) -> None:
    with pytest.raises((UsageError, DocumentError, OptionError)) as caught:
        read(*arguments)
    assert what in str(caught.value)
    assert to_do in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- Written in a file

IN_A_FILE = [
    (ROLLOUT, ("train",), "2: it is an RLRollout, which rltrainer rollout -f takes"),
    (DOCUMENT, ("rollout",), "2: it is an RLExperiment, which rltrainer train -f takes"),
    (f"{DOCUMENT}---\n{DOCUMENT}", ("rollout",), "holds 2 documents, and one is taken here: give it a file of its own"),
    (f"{DOCUMENT}---\n{DOCUMENT}", ("train", "--experiment-name", "a"), "--experiment-name names one run, and"),
    (f"{DOCUMENT}---\n{DOCUMENT.replace('PPO', 'PPX')}", ("train",), '13: spec: unknown algorithm "PPX". Did you mean'),
    (DOCUMENT.replace("kind: RLExperiment\n", ""), ("train",), "kind missing: a document begins with"),
    (DOCUMENT.replace("  run", "   run"), ("train",), "6:3: not YAML: while parsing a block mapping"),
    (DOCUMENT.replace("stop:", "stopp:"), ("train",), '7: spec.stopp: there is no such field. Did you mean "stop"?'),
    (DOCUMENT.replace("apiV", "apiv"), ("train",), "apiVersion missing: a document begins with apiVersion: rltr"),
    ("CartPole-v1:\n  n_envs: 8\n  n_timesteps: 1e5\n  policy: MlpPolicy\n", ("train",), "looks like one of rl-zoo3's"),
    ("", ("train",), "holds no document: one begins with apiVersion"),
    ("- 3\n", ("train",), "holds no document: one begins with apiVersion"),
]


@pytest.mark.parametrize(("content", "command", "said"), IN_A_FILE, ids=lambda value: str(value)[:40])
def test_a_mistake_in_a_file(rltrainer: Command, content: str, command: tuple[str, ...], said: str) -> None:
    Path("a.yaml").write_text(content)
    answer = rltrainer(*command, "-f", "a.yaml", code=2)
    assert said in answer
    assert "a.yaml" in answer
    assert answer.count("\n") == 1


# ---- What runs in another environment


@pytest.mark.parametrize(
    ("run", "env", "said"),
    [
        ("PPO", "CartPole", 'environment "CartPole" not found: it has a version: "CartPole-v1"'),
        ("PPO", "CartPol-v1", 'environment "CartPol-v1" not found: Environment `CartPol` doesn\'t exist. Did you mean'),
        ("TD3", "CartPole-v1", "TD3 in CartPole-v1: the action space Discrete(2) is not supported"),
        ("DQN", "Pendulum-v1", "DQN in Pendulum-v1: this algorithm needs a Discrete action space"),
    ],
)
def test_a_mistake_that_is_seen_in_the_environment(rltrainer: Command, run: str, env: str, said: str) -> None:
    answer = rltrainer("train", "--run", run, "--env", env, "--local-dir", "runs", code=2)
    assert said in answer
    assert answer.count("\n") == 1
    if run == "TD3":
        assert "taken by A2C, A3C, APPO, ApexDQN, DQN" in answer
    if run == "DQN":
        assert "taken by A2C, A3C, APPO, ApexDDPG, DDPG" in answer


def test_a_folder_without_a_checkpoint_says_what_it_holds(rltrainer: Command) -> None:
    for name in ("empty", "other/code"):
        Path(name).mkdir(parents=True)
    assert "there is no checkpoint in empty: it is empty" in rltrainer("rollout", "./empty", code=2)
    assert "in other, which holds code: name a run's folder" in rltrainer("rollout", "./other", code=2)
    assert "in none: there is no such folder" in rltrainer("rollout", "./none", code=2)
    Path("sb3.zip").touch()
    assert "sb3.zip is no folder" in rltrainer("rollout", "./sb3.zip", code=2)


# ---- All at once


def test_every_bad_option_is_told_at_once(tmp_path: Path) -> None:
    config = {"lrr": 1, "gamma": 3, "n_steps": 4, "hiddens": [0]}
    with pytest.raises(OptionError) as caught:
        parse_options("PPO", config)
    assert [field[-1] for _, field in caught.value.problems] == ["lrr", "n_steps", "gamma", 0]
    path = tmp_path / "a.yaml"
    content = yaml.safe_load(DOCUMENT)
    content["spec"] |= {"config": config, "stop": {"reward": 1, "timesteps_total": 1}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    lines = path.read_text().splitlines()
    with pytest.raises(DocumentError) as told:
        Experiment.from_yaml(path)
    numbers = [int(line.split(":")[1]) for line in str(told.value).splitlines()]
    written = [lines[number - 1].strip() for number in numbers]
    assert sorted(written) == ["- 0", "gamma: 3", "lrr: 1", "n_steps: 4", "reward: 1"]


def test_names_of_rllibs_hide_no_other_mistake() -> None:
    with pytest.raises(OptionError, match=r'no option "n_stepz".*; PPO has no option "foo"'):
        read(*PPO, "--config", '{"num_sgd_iter": 4, "n_stepz": 3, "foo": 4}')


# ---- What is understood


@pytest.mark.parametrize("text", ["1e5", "1E5", "100_000", "1.0e+5", "100000.0"])
def test_a_whole_number_may_be_written_as_such_people_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(DOCUMENT.replace("1000", text) + "  config: {lr: 1e-3}\n")
    spec = Experiment.from_yaml(path).spec
    assert (spec.stop.timesteps_total, spec.options().lr) == (100_000, 0.001)
    (job,) = read(*PPO, "--set", f"spec.stop.timesteps_total={text}")
    assert job.experiment.spec.stop.timesteps_total == 100_000


def test_several_documents_and_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{DOCUMENT}---\n{DOCUMENT.replace('mine', 'other')}---\n"))
    assert [job.experiment.metadata.name for job in read("-f", "-")] == ["mine", "other"]


def test_fields_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(DOCUMENT + "  envConfig: {a: 1, b: 2}\n  evaluation: {episodes: 3}\n")
    more = ("--env-config", '{"b": 5}', "--eval-interval", "4", "--set", "spec.checkpoint.atEnd=false")
    (job,) = read("-f", str(path), *more, "--set", "spec.config.hiddens=[3, 4]", "--set", "metadata.name=x")
    spec = job.experiment.spec
    assert spec.env_config == {"a": 1, "b": 5}
    assert spec.evaluation is not None
    assert (spec.evaluation.interval, spec.evaluation.episodes) == (4, 3)
    assert (spec.checkpoint.at_end, spec.config["hiddens"], job.experiment.metadata.name) == (False, [3, 4], "x")
    (job,) = read(*PPO, "--eval-episodes", "7", "--set", "spec.evaluation.interval=2")
    assert job.experiment.spec.evaluation is not None
    assert (job.experiment.spec.evaluation.interval, job.experiment.spec.evaluation.episodes) == (2, 7)


# ---- The tables


def test_what_is_recommended_is_there() -> None:
    names = {name for options in OPTIONS.values() for name in option_names(options)}
    assert {ours for each in SYNONYMS.values() for ours in each} <= names
    assert not {name for name in ABSENT if name in {run.upper() for run in OPTIONS}}
