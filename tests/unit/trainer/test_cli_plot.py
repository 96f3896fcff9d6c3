"""`rltrainer plot`: which curves, of which numbers, drawn where."""

import importlib
import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest

from rltrainer.cli import parser, plot
from rltrainer.errors import install
from tests.unit.command import Command


@pytest.fixture
def rltrainer(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def rows(folder: Path, means: list[float | None], **more: Any) -> Path:
    """A run's folder with a row for each mean."""
    folder.mkdir(parents=True)
    lines = [
        {
            "training_iteration": i + 1,
            "timesteps_total": 100 * (i + 1),
            "time_total_s": 0.5 * (i + 1),
            "episode_reward_mean": mean,
            "info": {"learner": {"entropy": 1 / (i + 1)}},
            **(more if i % 2 else {}),
        }
        for i, mean in enumerate(means)
    ]
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def curves(*arguments: object) -> list[plot.Curve]:
    """What a command line would draw."""
    given = parser().parse_args(["plot", *map(str, arguments)])
    return [plot.curve_of(name, found, given.x, given.y) for name, found in plot.read_runs(given)]


def test_a_curve_has_the_points_of_the_rows(tmp_path: Path) -> None:
    run = rows(tmp_path / "a", [None, 1.0, float("nan"), 3.0])
    assert curves(run) == [plot.Curve("a", [200, 400], [1, 3])]
    assert curves(run, "--x", "training_iteration") == [plot.Curve("a", [2, 4], [1, 3])]
    assert curves(run, "--x", "time_total_s") == [plot.Curve("a", [1, 2], [1, 3])]
    assert curves(f"{run}/", "--y", "info/learner/entropy")[0].y == [1, 1 / 2, 1 / 3, 1 / 4]
    assert curves(run / "result.json") == curves(run)


def test_numbers_that_only_some_rows_have(tmp_path: Path) -> None:
    run = rows(tmp_path / "a", [1.0, 1.0, 1.0, 1.0], evaluation={"episode_reward_mean": 7.0})
    assert curves(run, "--y", "evaluation/episode_reward_mean") == [plot.Curve("a", [200, 400], [7, 7])]


def test_a_row_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = rows(tmp_path / "a", [1.0, 2.0])
    with (run / "result.json").open("a") as file:
        file.write('{"training_iteration": 3, "timest')
    assert curves(run)[0].y == [1, 2]


def test_several_runs_and_the_trials_of_a_search(tmp_path: Path) -> None:
    one = rows(tmp_path / "one", [1.0])
    for i in range(3):
        rows(tmp_path / "search" / f"search_0000{i}", [float(i)])
    names = [curve.name for curve in curves(one, tmp_path / "search")]
    assert names == ["one", "search/search_00000", "search/search_00001", "search/search_00002"]


def test_the_terminal_shows_every_curve(rltrainer: Command, tmp_path: Path) -> None:
    rising, falling = rows(tmp_path / "rising", [1.0, 2.0, 30.0]), rows(tmp_path / "falling", [20.0, 3.0, 1.0])
    picture = rltrainer("plot", rising, falling)
    for part in ("rising", "falling", "episode_reward_mean", "timesteps_total", "30.0", "1.0"):
        assert part in picture
    assert "\x1b" not in picture, "colors are for terminals"
    assert rltrainer("plot", rising) != rltrainer("plot", falling)
    assert "time_total_s" in rltrainer("plot", rising, "--x", "time_total_s", "--y", "info/learner/entropy")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:matplotlib", "ignore:.*:PendingDeprecationWarning:matplotlib")
def test_a_picture_is_written(rltrainer: Command, tmp_path: Path) -> None:
    one, two = rows(tmp_path / "one", [1.0, 2.0, 4.0]), rows(tmp_path / "two", [3.0, 2.0, 1.0])
    assert rltrainer("plot", one, "--out", tmp_path / "one.png").strip() == str(tmp_path / "one.png")
    rltrainer("plot", one, two, "--out", tmp_path / "both.png")
    single, both = (imageio.imread(tmp_path / name) for name in ("one.png", "both.png"))
    assert single.shape == both.shape == (500, 800, 4)
    assert len({tuple(pixel) for pixel in both.reshape(-1, 4)}) > len({tuple(p) for p in single.reshape(-1, 4)})
    svg = tmp_path / "both.svg"
    rltrainer("plot", one, two, "--out", svg)
    assert svg.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--y", "episode_rewrd_mean"),
            "a has no episode_rewrd_mean. Did you mean episode_reward_mean? It has episode",
        ),
        (("--out", "picture.xyz"), "picture.xyz cannot be written: Format 'xyz' is not supported"),
        (("--out", "/nowhere/x.png"), "/nowhere/x.png cannot be written"),
        (("--x", "steps"), "invalid choice: 'steps'"),
        (("--endpoint", "http://x"), "mean something only with an s3:// URI"),
    ],
)
def test_what_cannot_be_drawn(rltrainer: Command, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in rltrainer("plot", rows(tmp_path / "a", [1.0]), *arguments, code=2)


def test_a_folder_without_runs(rltrainer: Command, tmp_path: Path) -> None:
    assert f"there is no result.json in {tmp_path}: give the folder of a run" in rltrainer("plot", tmp_path, code=2)


@pytest.mark.parametrize(("arguments", "package"), [((), "plotext"), (("--out", "x.png"), "matplotlib")])
def test_a_missing_package_is_named_with_its_extra(
    rltrainer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], package: str
) -> None:
    found = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith(package):
            raise ModuleNotFoundError("no", name=package)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    said = rltrainer("plot", rows(tmp_path / "a", [1.0]), *arguments, code=2)
    assert said == f"error: {package} is not installed: {install('plot')}\n"
