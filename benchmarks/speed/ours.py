"""Our contender: a whole run, with everything that it writes, as `rltrainer train` does it.

    python -m benchmarks.speed.ours WORK

The algorithm is found as any of one's own is, by module:NAME; this module has all of them, with a meter.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.speed.meter import Meter, parse_work
from rltrainer import algorithms
from rltrainer.api.documents import Experiment
from rltrainer.core.algorithm import Algorithm
from rltrainer.core.execution import Iteration, Strategy
from rltrainer.runs.train import run


class Ticks(Protocol):
    """What is told of the steps done."""

    def tick(self, steps: int) -> None: ...


METERS: list[Ticks] = []


def __getattr__(name: str) -> Algorithm:
    """The algorithm of that name. The meter ticks when the run asks for its next iteration."""
    if name not in algorithms.ALGORITHMS:
        raise AttributeError(name)
    algorithm = algorithms.load(name)
    return replace(algorithm, strategy=Metered(algorithm.strategy))


@dataclass(frozen=True)
class Metered:
    """A strategy that is counted. It travels to Ray's workers with the algorithm, the meter does not."""

    strategy: Strategy[Any]

    def __call__(self, backend: Any, options: Any, timesteps: int) -> Iterator[Iteration]:
        for iteration in self.strategy(backend, options, timesteps):
            yield iteration
            METERS[0].tick(iteration.timesteps)


def main(work: dict[str, Any]) -> None:
    spec = {"run": f"benchmarks.speed.ours:{work['run']}", "env": work["env"], "config": work["config"]}
    document = {"apiVersion": "rltrainer.io/v1alpha1", "kind": "RLExperiment", "metadata": {"name": "speed"}}
    METERS.append(Meter(work))
    with tempfile.TemporaryDirectory() as folder:
        run(Experiment.parse({**document, "spec": {**spec, "checkpoint": {"atEnd": False}}}), folder)


if __name__ == "__main__":
    from benchmarks.speed import ours  # the module that the document names, which this one, as __main__, is not

    ours.main(parse_work())
