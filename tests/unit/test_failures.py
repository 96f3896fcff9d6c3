"""What a person can mend is told in one line, by the command that met it; where it was raised, with --debug alone."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rltrainer import cli
from rltrainer.cli import inspect
from rltrainer.errors import RunError, expected
from tests.unit.command import Command

RLTRAINER = [sys.executable, "-m", "rltrainer.cli"]


@pytest.fixture
def rltrainer(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def full(name: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


MENDED: list[tuple[BaseException, str, int]] = [
    (
        ModuleNotFoundError("No module named 'torch'", name="torch"),
        'torch is not installed: pip install ".[trainer]"',
        2,
    ),
    (ModuleNotFoundError("No module", name="ray.tune"), 'ray is not installed: pip install ".[trainer]" in a check', 2),
    (ModuleNotFoundError("No module", name="optuna"), 'optuna is not installed: pip install ".[search]"', 2),
    (MemoryError(), "there is not enough memory: an allocation failed. Make buffer_size, num_envs_per_worker", 1),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "there is not enough memory: ", 1),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "there is not enough memory: CUDA", 1),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory: ", 1),
    (full("/data/x"), "/data/x: No space left on device. Make room there", 1),
    (
        PermissionError(errno.EACCES, "Permission denied", "/root/x"),
        "/root/x: Permission denied. Make it a folder th",
        1,
    ),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"), "/proc/x: No such file or directory.", 1),
    (RunError("NoCluster", "no Ray cluster answers", permanent=True), "no Ray cluster answers", 2),
]


@pytest.mark.parametrize(("error", "message", "code"), MENDED, ids=lambda value: str(value)[:30])
def test_a_failure_that_can_be_mended_is_one_line(
    rltrainer: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, message: str, code: int
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(inspect, "for_algorithm", fails)
    said = rltrainer("describe", "PPO", code=code)
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        cli.main(["describe", "PPO", "--debug"])
    shown = rltrainer.capsys.readouterr().err
    assert "Traceback" in shown
    assert "in fails" in shown
    assert shown.splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("a fault"), ModuleNotFoundError("no", name="mine")])
def test_a_fault_of_the_program_is_raised(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(inspect, "for_algorithm", fails)
    assert expected(error, Path.cwd()) is None
    with pytest.raises(type(error)):
        cli.main(["describe", "PPO"])


ROOT = Path(__file__).parents[2]


def test_nobody_reads_what_is_printed() -> None:
    """As of `describe PPO | head`, when head has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    program = [*RLTRAINER, "describe", "PPO"]
    done = subprocess.run(program, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", 141)


@pytest.mark.parametrize("arguments", [("list",), ("describe", "PPO")])
def test_standard_output_is_full(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full_disk:
        program = [*RLTRAINER, *arguments]
        done = subprocess.run(program, cwd=ROOT, stdout=full_disk, stderr=subprocess.PIPE, text=True, check=False)
    assert re.fullmatch("error: standard output.*: No space left on device.*\n", done.stderr), done.stderr
    assert done.returncode == 1
