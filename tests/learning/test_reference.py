"""A fast part of the reference tasks of `make learning`: one seed each, to the same bar, within the same steps."""

import pytest

from benchmarks.learning.__main__ import fingerprint
from benchmarks.learning.one import trained
from benchmarks.learning.report import interquartile_mean
from benchmarks.learning.table import TASKS, TUNED, Task


@pytest.mark.parametrize("task", [task for task in TASKS if task.quick], ids=lambda task: task.name)
def test_the_bar_is_reached_within_the_steps(task: Task) -> None:
    outcome = trained(task, seed=0)
    assert task.bar is not None
    assert outcome["mean"] >= task.bar
    assert outcome["timesteps"] <= 1.1 * task.steps, "the last iteration may lead a little past the end"


def test_every_task_has_its_document_and_every_document_its_task() -> None:
    assert {task.name for task in TASKS} == {path.stem for path in TUNED.glob("*.yaml")}
    for task in TASKS:
        experiment = task.experiment()
        assert experiment.metadata.name == task.name
        assert experiment.spec.stop.timesteps_total == task.steps
        assert experiment.spec.evaluation is not None
        assert len(fingerprint(task)) == 16


def test_the_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert interquartile_mean([100.0, 2.0, 3.0, 1.0]) == 2.5
    assert interquartile_mean([0.0, 1.0, 2.0, 3.0, 100.0]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)
    assert interquartile_mean([7.0]) == 7.0
