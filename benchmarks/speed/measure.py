"""How each kind of row is measured: one round of it, as figures by name."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial, singledispatch
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from benchmarks.learning.table import TUNED
from benchmarks.speed.peers import python
from benchmarks.speed.processes import end, megabytes
from benchmarks.speed.race import QUIET, rates, started
from benchmarks.speed.table import APART, LIMIT, Memory, Published, Scaling, Threshold, Throughput, work
from rltrainer.api.documents import Experiment
from rltrainer.api.options import parse_options

Figures = dict[str, list[float]]
"""A contender's figures, one of each round."""
SLEEPING = "benchmarks.speed.sleeping:Sleeping"
WATCHED_SECONDS, WATCHES = 6.0, 12


@singledispatch
def measured(row: Any, rounds: int, seconds: float) -> Figures:
    """Measure `rounds` rounds, in each of which every contender works for one window of `seconds`."""
    raise TypeError(f"there is no such row: {row}")


@measured.register
def _(row: Throughput, rounds: int, seconds: float) -> Figures:
    contenders = ("ours", *row.peers, LIMIT, *({APART} & row.bars.keys()))
    return rates(contenders, work(row.run, row.env, row.config, row.warmup, row.threads), rounds, seconds)


@measured.register
def _(row: Memory, rounds: int, seconds: float) -> Figures:
    document = work(row.run, row.env, row.config)
    return {name: [peak_megabytes(name, document) for _ in range(rounds)] for name in ("ours", *row.peers)}


def peak_megabytes(name: str, document: dict[str, Any]) -> float:
    """Measure the peak memory of a contender while it trains, in megabytes."""
    with started(name, document) as contender:
        contender.answer()
        contender.begin(WATCHED_SECONDS)
        peak = 0.0
        for _ in range(WATCHES):
            sleep(WATCHED_SECONDS / WATCHES)
            peak = max(peak, megabytes(contender.process))
        contender.answer()
    return peak


@measured.register
def _(row: Scaling, rounds: int, seconds: float) -> Figures:
    few = {
        name: work(
            row.run, SLEEPING, {**row.config, "num_workers": count, "num_cpus_per_worker": 0.1}, warmup=10_000 * count
        )
        for name, count in (("1 worker", 1), (f"{row.many} workers", row.many))
    }
    return versions(few, rounds, 2 * seconds)


@measured.register
def _(row: Published, rounds: int, seconds: float) -> Figures:
    both = {
        name: work(row.run, row.env, {**row.config, "cuda_graphs": graphs}, row.warmup)
        for name, graphs in (("ours", True), ("kernel by kernel", False))
    }
    return versions(both, rounds, seconds)


def versions(works: Mapping[str, dict[str, Any]], rounds: int, seconds: float) -> Figures:
    """Measure our steps per second at each of several `works`, by name, each started anew in every round."""
    figures: Figures = {name: [] for name in works}
    for _ in range(rounds):
        for name, document in works.items():
            figures[name] += rates(("ours",), document, 1, seconds)["ours"]
    return figures


@measured.register
def _(row: Threshold, rounds: int, seconds: float) -> Figures:
    figures: Figures = {"ours": [], row.peer: []}
    for seed in range(rounds):
        figures["ours"].append(timed(row, partial(our_command, row, seed)))
        figures[row.peer].append(timed(row, partial(peer_command, row, seed)))
    return figures


def our_command(row: Threshold, seed: int, folder: str) -> list[str]:
    """`rltrainer train` of the row's document, with its threshold for the only condition."""
    experiment = Experiment.from_yaml(TUNED / f"{row.document}.yaml").model_dump(by_alias=True, exclude_unset=True)
    spec = experiment["spec"]
    spec["config"] = {**spec["config"], "seed": seed}
    spec["checkpoint"] = {"atEnd": False}
    if spec.pop("evaluation", None) and row.evaluated:
        spec["evaluation"] = {
            "interval": max(1, round(row.evaluated / iteration(row.run, spec["config"]))),
            "episodes": 10,
        }
    spec["stop"] = {("evaluation/" if row.evaluated else "") + "episode_reward_mean": row.reward}
    path = Path(folder) / "document.json"
    path.write_text(json.dumps(experiment))
    rltrainer = Path(sys.executable).parent / "rltrainer"
    return [str(rltrainer), "train", "-f", str(path), "--local-dir", folder]


def iteration(run: str, config: dict[str, Any]) -> int:
    """The least environment steps of an iteration: no fragment is cut."""
    options = parse_options(run, config)
    fragments = options.num_envs_per_worker * options.rollout_fragment_length * max(1, options.num_workers)
    return max(options.timesteps_per_iteration, fragments)


def peer_command(row: Threshold, seed: int, folder: str) -> list[str]:
    """The peer's script, which runs until the threshold."""
    options = dict(row.options)
    if row.peer == "rllib":
        options = work(row.run, row.env, row.options)["options"]
    document = {"run": row.run, "env": row.env, "options": options, "seed": seed}
    goal = {"reward": row.reward, "evaluated": row.evaluated}
    return [python(row.peer), "-m", f"benchmarks.speed.{row.peer}", json.dumps({**document, **goal})]


def timed(row: Threshold, command: Callable[[str], list[str]]) -> float:
    """Measure the seconds of a process from start to end; infinity where it did not reach the threshold in time.

    Raises RuntimeError where it failed.
    """
    environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+") as output:
        arguments, start = command(folder), perf_counter()
        process = subprocess.Popen(
            arguments, stdout=output, stderr=output, text=True, start_new_session=True, env=environment
        )
        try:
            code, seconds = process.wait(row.cap), perf_counter() - start
        except subprocess.TimeoutExpired:
            return float("inf")
        finally:
            end(process)
        if code:
            output.seek(0)
            text = output.read()
            if "Traceback" in text or (code < 0 and -code != signal.SIGTERM):
                raise RuntimeError(f"{arguments[:4]} ended with {code}:\n{text[-3000:]}")
            return float("inf")
        return seconds
