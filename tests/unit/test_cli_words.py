"""Commands that only tell something, what a wrong document is told, completion, and the pages made from the parsers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hack.generate import command_reference
from rltrainer.api.options import OPTIONS, option_names
from rltrainer.cli import parser
from rltrainer.cli.completion import SCRIPTS, commands_of
from tests.unit.command import Command

ROOT = Path(__file__).parents[2]
DOCUMENT = """\
apiVersion: rltrainer.io/v1alpha1
kind: RLExperiment
metadata:
  name: cartpole
spec:
  run: PPO
  env: CartPole-v1
  config:
    gamma: 0.9
    hiddens: [64, 64]
  stop:
    timesteps_total: 1000
"""


@pytest.fixture
def rltrainer(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "cartpole.yaml"
    path.write_text(DOCUMENT)
    return path


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("gamma: 0.9", "gamma: 0.9\n    lrr: 3", '10: PPO has no option "lrr" (in spec.config). Did you mean "lr"?'),
        ("gamma: 0.9", "gamma: 9", "9: spec.config.gamma: Input should be less than or equal to 1, got 9"),
        ("[64, 64]", "[64, 0]", "10: spec.config.hiddens[1]: Input should be greater than or equal to 1, got 0"),
        ("[64, 64]", "[\n      64,\n      0]", "12: spec.config.hiddens[1]"),
        ("PPO", "PPX", '6: spec: unknown algorithm "PPX". Did you mean "PPO"?'),
        (
            "timesteps_total",
            "timestep_total",
            '12: spec.stop.timestep_total: there is no such field. Did you mean "timesteps_total"?',
        ),
        ("stop:", "stopp:", '11: spec.stopp: there is no such field. Did you mean "stop"?'),
        ("  env: CartPole-v1\n", "", "5: spec.env: Field required"),
        ("name: cartpole", "name: Cart_Pole", "4: metadata.name: String should match"),
        ("kind: RLExperiment", "kind: RLExperimen", "2: kind RLExperimen is none of RLExperiment, RLRollout"),
        ("v1alpha1", "v2", "1: apiVersion: Input should be 'rltrainer.io/v1alpha1'"),
        ("env: CartPole-v1", "env: CartPole-v1\n  run: PG", "8: run is given twice"),
        ("gamma: 0.9", "gamma: [0.9", "10:12: not YAML: while parsing a flow sequence, expected ',' or ']', but got"),
        ("gamma: 0.9", "\tgamma: 0.9", "9:5: not YAML: while scanning for the next token, found character '\\t'"),
        ("gamma: 0.9", "num_learners: 3", "8: spec.config: num_learners 3 does not divide num_workers 0"),
    ],
)
def test_a_mistake_in_a_document_is_told_with_its_line(
    rltrainer: Command, document: Path, before: str, after: str, said: str
) -> None:
    assert before in DOCUMENT
    document.write_text(DOCUMENT.replace(before, after))
    err = rltrainer("validate", "-f", document, code=2)
    assert err.startswith(f"error: {document}:{said}"), err


def test_every_mistake_of_the_schema_is_told(rltrainer: Command, document: Path) -> None:
    document.write_text(DOCUMENT.replace("timesteps_total: 1000", "a: 1\n    b: 2"))
    err = rltrainer("validate", "-f", document, code=2)
    assert [line.partition(" there is no such")[0] for line in err.splitlines()] == [
        f"error: {document}:12: spec.stop.a:",
        f"{document}:13: spec.stop.b:",
    ]


def test_files_that_hold_no_document(rltrainer: Command, tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in rltrainer("validate", "-f", tmp_path / "binary.yaml", code=2)
    (tmp_path / "empty.yaml").write_text("---\n---\n")
    assert "holds no document" in rltrainer("validate", "-f", tmp_path / "empty.yaml", code=2)
    assert "No such file" in rltrainer("validate", "-f", tmp_path / "none.yaml", code=2)


def test_several_documents_are_checked_and_what_they_run_is_said(rltrainer: Command, document: Path) -> None:
    broken = document.with_name("broken.yaml")
    broken.write_text(DOCUMENT.replace("PPO", "PPX"))
    rollout, search = ROOT / "examples" / "cartpole-rollout.yaml", document.with_name("search.yaml")
    tune = {
        "numSamples": 3,
        "space": {"lr": {"grid_search": [0.1, 0.2]}, "lambda": {"uniform": [0.9, 1]}},
        "scheduler": {"name": "AsyncHyperBand"},
    }
    search.write_text(DOCUMENT + f"  tune: {json.dumps(tune)}\n  evaluation: {{interval: 5}}\n")
    assert rltrainer("validate", "-f", document, broken, code=2).startswith(f"error: {broken}:6: ")
    lines = rltrainer("validate", "-f", document, "-f", rollout, search).splitlines()
    assert f"{document} is valid: PPO on CartPole-v1" in lines
    assert "  options      gamma 0.9, hiddens [64, 64]" in lines
    assert "  stops at     timesteps_total >= 1,000" in lines
    assert "  samples in   this process, 8 environments" in lines
    assert f"{rollout} is valid: a rollout of RLExperiment cartpole-ppo, best" in lines
    assert "  episodes     20, the best actions, seed 0" in lines
    assert "  evaluates    10 episodes every 5 iterations" in lines
    assert "  trials       6, by max episode_reward_mean" in lines
    assert "  search       Random; scheduler AsyncHyperBand" in lines
    assert "    lr                 grid_search [0.1, 0.2]" in lines


def test_rllibs_files_are_valid_too(rltrainer: Command, tmp_path: Path) -> None:
    path = tmp_path / "classic.yaml"
    path.write_text("cartpole-a2c:\n  env: CartPole-v1\n  run: A2C\n  stop: {timesteps_total: 1000}\n")
    out = rltrainer("validate", "-f", path)
    assert f"{path} is valid: A2C on CartPole-v1" in out


@pytest.mark.parametrize("run", sorted(OPTIONS))
def test_describe_tells_every_option_once(rltrainer: Command, run: str) -> None:
    out = rltrainer("describe", run)
    told = re.findall(r"^  (\w+)  (.*), default (.+)\n      (.+)$", out, re.MULTILINE)
    assert sorted(name for name, *_ in told) == sorted(option_names(OPTIONS[run]))
    assert "null" not in out
    assert "any" not in {kind for _, kind, *_ in told}


def test_describe_tells_types_bounds_and_defaults(rltrainer: Command) -> None:
    told = rltrainer("describe", "PPO")
    assert "  clip  number > 0, default 0.2\n" in told
    assert "  lambda  number >= 0 <= 1, default 0.95\n" in told
    assert "  recurrent  one of lstm, gru, default unset\n" in told
    assert 'unknown algorithm "PPX". Did you mean "PPO"?' in rltrainer("describe", "PPX", code=2)


def test_describe_shows_what_a_run_in_an_environment_would_use(rltrainer: Command) -> None:
    said = rltrainer("describe", "PPO", "--env", "ALE/Pong-v5")
    assert "Defaults in ALE/Pong-v5: a task with images" in said
    assert "epochs  integer >= 1 <= 1000, default 4 for this task (default 10 otherwise)" in said
    assert "default 0.00025 for this task" in said
    assert "default 0.0003\n" in rltrainer("describe", "PPO", "--env", "CartPole-v1")
    assert "default 10; with images, of 36 pixels or more a side: 4" in rltrainer("describe", "PPO")


def test_describe_puts_the_algorithms_own_options_first(rltrainer: Command) -> None:
    out = rltrainer("describe", "PPO")
    headings = re.findall(r"^(?! )(.+)$", out, re.MULTILINE)
    assert headings[1] == "Its own options."
    assert headings[-1].startswith("What every algorithm understands.")
    assert out.index("  clip_schedule  ") < out.index("  lambda  number") < out.index("  gamma  number")


def test_list_tells_every_algorithm(rltrainer: Command) -> None:
    assert [line.split()[0] for line in rltrainer("list").splitlines()] == sorted(OPTIONS)


# ---- completion


@pytest.fixture(scope="module")
def script() -> str:
    program = [sys.executable, "-m", "rltrainer.cli", "completion", "bash"]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def completed(script: str, *words: str, folder: Path = ROOT) -> list[str]:
    """What bash offers after `words`, of which the last is begun."""
    ask = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _rltrainer; "
    ask += 'printf "%s\\n" "${COMPREPLY[@]}"'
    program = ["bash", "--norc", "-c", f"{script}\n{ask}"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr
    return sorted(filter(None, done.stdout.splitlines()))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("rltrainer", "ro"), ["rollout"]),
        (("rltrainer", "train", "--run", "Ra"), ["Rainbow"]),
        (("rltrainer", "rollout", "--which", ""), ["best", "latest"]),
        (("rltrainer", "rollout", "x", "--no-r"), ["--no-render"]),
        (("rltrainer", "describe", "Para"), ["ParametricDQN"]),
        (("rltrainer", "completion", ""), ["bash", "fish", "zsh"]),
        (("rltrainer", "plot", "--x", "time"), ["time_total_s", "timesteps_total"]),
        (("rltrainer", "rollout", "--episodes", ""), []),
        (("rltrainer", "rollout", "--render", "--ep"), ["--episodes"]),
        (("rltrainer", "validate", "-f", "a"), ["a file.yaml"]),
        (("rltrainer", "rollout", "a"), ["a file.yaml"]),
    ],
)
def test_bash_completes(script: str, tmp_path: Path, words: tuple[str, ...], offered: list[str]) -> None:
    (tmp_path / "a file.yaml").touch()
    assert completed(script, *words, folder=tmp_path) == offered


def test_bash_offers_every_command(script: str) -> None:
    assert set(completed(script, "rltrainer", "")) == {*commands_of(parser()), "--help", "--version"}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_script_knows_every_option(rltrainer: Command, shell: str) -> None:
    text = rltrainer("completion", shell)
    for name, sub in commands_of(parser()).items():
        assert name in text
        for action in sub._actions:
            for option in action.option_strings:
                spoken = (
                    option if shell != "fish" else f" -{'l' if option.startswith('--') else 's'} {option.strip('-')}"
                )
                assert spoken in text, option


def test_fishs_strings_end(rltrainer: Command) -> None:
    for line in rltrainer("completion", "fish").splitlines():
        assert len(re.findall(r"(?<!\\)'", line)) % 2 == 0, line


# ---- the page


def test_the_page_tells_every_argument() -> None:
    page = command_reference()
    for name, sub in commands_of(parser()).items():
        part = page.partition(f"## rltrainer {name}\n")[2].partition("\n## rltrainer ")[0]
        assert part, name
        for action in sub._actions:
            for option in action.option_strings:
                assert re.search(rf"`{option}[ `]", part) or option in ("-h", "--help"), (name, option)
            assert action.help, (name, action.dest)
    assert "%(" not in page
