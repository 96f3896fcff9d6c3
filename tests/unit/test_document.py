"""From the command line of `train` to documents: what is put over what, where a mistake was written, and read once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rltrainer import cli, rllib_compat
from rltrainer.api import experiment
from rltrainer.api.base import DocumentError
from rltrainer.api.documents import Experiment, YamlFile
from rltrainer.api.options import OptionError, parse_options
from rltrainer.cli.document import Job, jobs

PLAIN = ("--run", "PPO", "--env", "CartPole-v1")


def read(*arguments: str | Path) -> Job:
    (job,) = jobs(cli.parser().parse_args(["train", *map(str, arguments)]))
    return job


@pytest.fixture
def file(tmp_path: Path) -> Path:
    document = {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "mine"},
        "spec": {
            "run": "PPO",
            "env": "CartPole-v1",
            "config": {"gamma": 0.9, "lr": 0.1},
            "checkpoint": {"at_end": False, "keep": 1},
            "tune": {"space": {"lr": {"uniform": [0.1, 0.2]}}, "scheduler": {"name": "HyperBand", "max_t": 5}},
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def test_the_command_line_goes_over_the_file_by_either_name_of_a_field(file: Path) -> None:
    spec = read(
        *("-f", file, "--checkpoint-at-end", "--config", '{"lr": {"choice": [0.3]}, "gamma": 0.8}'),
        *("--scheduler-config", '{"max_t": 7}', "--stop", '{"training_iteration": 3}', "--upload-dir", "s3://bucket/a"),
    ).experiment.spec
    assert (spec.checkpoint.at_end, spec.checkpoint.keep) == (True, 1)
    assert (spec.config, spec.stop.training_iteration) == ({"gamma": 0.8, "lr": 0.1}, 3)
    assert spec.tune is not None
    assert (spec.tune.scheduler.name, spec.tune.scheduler.max_t) == ("HyperBand", 7)
    assert (spec.tune.space["lr"].kind, spec.tune.space["lr"].arguments) == ("choice", [0.3])
    assert spec.storage is not None
    assert spec.storage.uri == "s3://bucket/a"


def test_a_plain_document_is_read_once_and_never_translated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"file": 0, "document": 0, "options": 0}
    originals: dict[str, Any] = {"file": YamlFile.read, "document": Experiment.parse, "options": parse_options}

    def counted(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return originals[name](*arguments, **named)

        return call

    def refused(*arguments: Any, **named: Any) -> Any:
        pytest.fail("it is no document of RLlib's")

    monkeypatch.setattr(YamlFile, "read", counted("file"))
    monkeypatch.setattr(Experiment, "parse", counted("document"))
    monkeypatch.setattr(experiment, "parse_options", counted("options"))
    monkeypatch.setattr(rllib_compat, "translate_config", refused)
    monkeypatch.setattr("rltrainer.cli.document.translate_stop", refused)
    job = read("-f", file, "--config", '{"gamma": 0.8}', "--stop", '{"timesteps_total": 5}')
    assert job.experiment.spec.options().gamma == 0.8
    assert job.uses_ray
    assert counts == {"file": 1, "document": 1, "options": 1}


def test_names_of_rllibs_are_understood_where_there_are_any(file: Path) -> None:
    job = read("-f", file, "--config", '{"num_sgd_iter": 4}', "--stop", '{"env_runners/episode_return_mean": 9}')
    assert job.experiment.spec.config["epochs"] == 4
    assert job.experiment.spec.stop.episode_reward_mean == 9
    assert any("num_sgd_iter" in note for note in job.notes)
    assert read("--run", "APEX", "--env", "Pendulum-v0").experiment.spec.run == "ApexDQN"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", '{"gamma": 3}'), "--config: spec.config.gamma: Input should be"),
        (("--config", '{"lr": {"grid_search": [0.1, 3]}}'), "--config: spec.tune.space.lr: Input should be"),
        (("--stop", '{"timesteps_total": -1}'), "--stop: spec.stop.timesteps_total: Input should be"),
        (("--checkpoint-score-attr", "a"), "--checkpoint-score-attr: spec.checkpoint.scoreAttribute: Input should be"),
        (("--experiment-name", "A_b"), "--experiment-name: metadata.name: String should match"),
        (("--config", '{"sgd_minibatch": 3}'), 'PPO has no option "sgd_minibatch" (in --config). Did you mean'),
    ],
)
def test_a_mistake_is_told_with_the_argument_that_made_it(file: Path, arguments: tuple[str, str], message: str) -> None:
    for source in (("-f", file), PLAIN):
        with pytest.raises((DocumentError, OptionError)) as caught:
            read(*source, *arguments)
        assert str(caught.value).startswith(message)


def test_a_mistake_of_the_file_keeps_its_line(file: Path) -> None:
    file.write_text(file.read_text().replace("gamma: 0.9", "gamma: 9"))
    with pytest.raises(DocumentError, match=rf"^{file}:9: spec\.config\.gamma: Input should be"):
        read("-f", file, "--config", '{"lr": 0.2}')
    assert read("-f", file, "--config", '{"gamma": 0.7}').experiment.spec.config["gamma"] == 0.7


def test_a_copy_of_a_spec_reads_its_own_options(file: Path) -> None:
    spec = read("-f", file).experiment.spec
    assert spec.options() is spec.options()
    assert spec.model_copy(update={"config": {"gamma": 0.5}}).options().gamma == 0.5
    assert spec.options().gamma == 0.9
