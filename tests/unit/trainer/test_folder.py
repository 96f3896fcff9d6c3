"""One run, one folder: who works in it, what goes on in it, and under which document."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rltrainer.api.documents import Experiment
from rltrainer.errors import NotStartedError
from rltrainer.runs.folder import RunFolder, Start, working_folder
from rltrainer.runs.interrupt import Interrupt
from rltrainer.runs.lock import locked, output_folder
from rltrainer.runs.params import HISTORY, differences, read_params, write_params
from tests.unit.trainer.helpers import experiment

HOLD = """
import sys
from pathlib import Path
from rltrainer.runs.lock import locked
with locked(Path(sys.argv[1]), Path(sys.argv[2]), "go away"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that works in the run `test`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".test.lock"), str(tmp_path / "test")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def work(
    root: Path, document: Experiment, done: bool = False, iteration: int = 0, **start: bool
) -> tuple[RunFolder, Experiment]:
    """Work in the folder of a run that ends before or after it has reached its stop condition."""
    with working_folder(document, root, Interrupt(), Start(**start)) as (folder, named):
        spec, options = named.spec, named.spec.options()
        write_params(folder.path, spec, named.metadata.name, options, options.seed or 99, iteration)
        if done:
            folder.mark("training_iteration >= 1")
    return folder, named


def with_options(name: str = "test", **config: Any) -> Experiment:
    return experiment(name, config=config)


@pytest.mark.parametrize("start", [{}, {"overwrite": True}, {"resume": True}, {"numbered": True}])
def test_a_second_process_is_refused_by_the_name_of_the_first(
    start: dict[str, bool], holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    with pytest.raises(
        NotStartedError, match=rf"test is in use by process {holder.pid} on .*, since .*: wait .* --experiment-name"
    ) as refused:
        work(tmp_path, with_options(), **start)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 1
    assert not (tmp_path / "test").exists()


def test_a_killed_process_leaves_no_lock(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".test.lock").exists()
    work(tmp_path, with_options())
    assert {path.name for path in tmp_path.iterdir()} == {"test"}, "of a lock that was given back nothing is left"


def test_a_second_run_of_this_process_is_refused_too(tmp_path: Path) -> None:
    with (
        working_folder(with_options(), tmp_path, Interrupt(), Start()),
        pytest.raises(NotStartedError, match=f"process {os.getpid()} on"),
    ):
        work(tmp_path, with_options())
    work(tmp_path, with_options())


def test_a_folder_of_outputs_is_held_and_left_clean(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with output_folder(out, "--out"), pytest.raises(NotStartedError, match=r"out is in use .*give another --out"):
        output_folder(out, "--out").__enter__()
    assert list(out.iterdir()) == []


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno
    import fcntl

    def none(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "lock", tmp_path / "run", "go away"):
        pass
    assert "run is on a file system without locks" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config": {"lr": 0.5, "seed": 1}}, "lr: 0.001, now 0.5"),
        ({"config": {"lr": 0.001, "seed": 2}}, "seed: 1, now 2"),
        ({"config": {"lr": 0.001, "seed": 1, "gamma": 0.5}}, "gamma: 0.99, now 0.5"),
        ({"config": {"seed": 1}}, "lr: 0.001, now 0.0003"),
        ({"env": "Acrobot-v1"}, 'env: "CartPole-v1", now "Acrobot-v1"'),
        ({"run": "PG"}, 'run: "PPO", now "PG"'),
        ({"envConfig": {"render_mode": "rgb_array"}}, 'envConfig.render_mode: unset, now "rgb_array"'),
        ({"tune": {"space": {"lr": {"choice": [0.1, 0.2]}}}}, "tune.space: unset, now"),
    ],
)
def test_an_interrupted_run_goes_on_under_its_own_document_alone(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"config": {"lr": 0.001, "seed": 1}}
    folder, _ = work(tmp_path, experiment(**own))
    before = (folder.path / "params.json").read_text()
    with pytest.raises(NotStartedError) as refused:
        work(tmp_path, experiment(**{**own, **changed}))
    assert said in str(refused.value)
    assert all(way in str(refused.value) for way in ("--resume", "--overwrite", "--experiment-name"))
    assert refused.value.exit_code == 2
    assert (folder.path / "params.json").read_text() == before
    assert work(tmp_path, experiment(**own))[0] == folder
    assert work(tmp_path, experiment(**{**own, **changed}), resume=True)[0] == folder


def test_what_makes_no_other_run_is_no_difference(tmp_path: Path) -> None:
    """A stop condition, what is kept, a seed that was drawn, a default that is given, and the order of things."""
    folder, _ = work(tmp_path, experiment(config={"lr": 0.001, "hiddens": [8]}))
    same = experiment(
        config={"hiddens": [8], "lr": 1e-3, "gamma": 0.99}, stop={"training_iteration": 9}, checkpoint={"keep": 1}
    )
    assert work(tmp_path, same)[0] == folder


def test_params_of_an_earlier_version_are_compared_where_the_document_gives_something(tmp_path: Path) -> None:
    folder, _ = work(tmp_path, with_options(seed=1))
    params = read_params(folder.path) or {}
    params.pop(HISTORY)
    params["config"]["an_option_of_then"] = 1
    params["config"]["gamma"] = 0.9  # another default
    assert differences(params, with_options(seed=1).spec) == []
    assert differences(params, with_options(seed=1, gamma=0.99).spec) == ["gamma: 0.9, now 0.99"]


def test_params_keep_both_documents_by_iteration(tmp_path: Path) -> None:
    def history() -> list[tuple[int, float]]:
        params = json.loads((tmp_path / "test" / "params.json").read_text())
        assert params["config"]["lr"] == params[HISTORY][-1]["config"]["lr"]
        return [(each["iteration"], each["config"]["lr"]) for each in params[HISTORY]]

    work(tmp_path, with_options(lr=0.1, seed=1))
    work(tmp_path, with_options(lr=0.1, seed=1), iteration=20)
    assert history() == [(0, 0.1)]
    work(tmp_path, with_options(lr=0.2, seed=1), iteration=40, resume=True)
    work(tmp_path, with_options(lr=0.2, seed=1), iteration=50)
    assert history() == [(0, 0.1), (40, 0.2)]
    work(tmp_path, with_options(lr=0.3, seed=1), iteration=30, resume=True)
    assert history() == [(0, 0.1), (30, 0.3)], "of the second document nothing is left"


def test_in_a_cluster_the_document_may_change(tmp_path: Path) -> None:
    def attempt(lr: float, uid: str) -> Experiment:
        document = with_options(lr=lr)
        return document.model_copy(update={"metadata": document.metadata.model_copy(update={"uid": uid})})

    folder, _ = work(tmp_path, attempt(0.1, "one"))
    assert work(tmp_path, attempt(0.2, "one"))[0] == folder
    with pytest.raises(NotStartedError, match="no run in"):
        work(tmp_path, attempt(0.2, "two"), resume=True)
    assert work(tmp_path, attempt(0.2, "two"))[0].uid == "two", "the experiment was deleted and made anew"


def test_a_default_name_gets_the_next_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def name(done: bool = False, **config: Any) -> str:
        resume = bool(config.pop("resume", False))
        return work(tmp_path, with_options(**config), done, numbered=True, resume=resume)[1].metadata.name

    assert name(done=True, seed=1) == "test"
    assert name(seed=1) == "test-2"
    assert "test holds a finished run" in capsys.readouterr().err
    assert name(seed=1) == "test-2", "it is unfinished, and goes on"
    assert name(seed=2) == "test-3"
    assert "test-2 holds a run under another document (seed: 1, now 2)" in capsys.readouterr().err
    assert name(seed=1, resume=True) == "test"
    (tmp_path / "test-4").mkdir()
    (tmp_path / "test-4" / "notes").touch()
    assert name(seed=3) == "test-5"
    assert (tmp_path / "test-4" / "notes").exists()
    long = "a" * 40
    assert work(tmp_path, with_options(long, seed=1), done=True, numbered=True)[1].metadata.name == long
    assert work(tmp_path, with_options(long, seed=1), numbered=True)[1].metadata.name == "a" * 38 + "-2"


def test_what_moves_aside_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work(tmp_path, with_options(), done=True)
    work(tmp_path, with_options())
    aside = next(path for path in tmp_path.iterdir() if path.name.startswith("test."))
    assert f"is in {aside.name} now" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "/sys"])
def test_a_folder_that_cannot_be_written_to_is_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotStartedError, match="name another") as refused:
        work(tmp_path / place, with_options())
    assert "\n" not in str(refused.value)
