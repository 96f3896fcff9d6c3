"""Whether two versions of the trainer learn the same numbers, bit for bit: what a change of its shape is held to.

`python -m benchmarks.recording train FOLDER` trains every algorithm for a few iterations from one seed;
`python -m benchmarks.recording compare BEFORE AFTER` holds all that the two folders' checkpoints say against each
other. Only the command line and the files are used, so that either version may be much older than this file:
PYTHONPATH says which one trains. The numbers differ from one kind of processor to another; both folders must come from
one machine.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROUND = {"seed": 3, "num_envs_per_worker": 4, "rollout_fragment_length": 16, "hiddens": [32]}
EPOCHS = {**ROUND, "epochs": 2, "minibatch_size": 32}
REPLAY = {
    "seed": 3,
    "num_envs_per_worker": 2,
    "timesteps_per_iteration": 60,
    "hiddens": [32],
    "buffer_size": 120,
    "learning_starts": 40,
    "batch_size": 16,
    "updates_per_step": 0.5,
}
Q_LEARNING = {**REPLAY, "target_update_freq": 5}
IMPALA = {**ROUND, "train_batch_size": 128, "timesteps_per_iteration": 200}
SURROGATE = {**IMPALA, "epochs": 2, "minibatch_size": 32, "target_update_freq": 3}
EVERYTHING = {"normalize_observations": True, "normalize_rewards": True, "entropy_coeff": 0.01}
CARTPOLE, PENDULUM, PICTURE = "CartPole-v1", "Pendulum-v1", "MinAtar/Breakout-v1"
DESCRIBED = "tests.unit.trainer.toy_tasks:Described"

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pg": ("PG", CARTPOLE, {**ROUND, "entropy_coeff": 0.01}),
    "a2c": ("A2C", CARTPOLE, ROUND),
    "a2c-continuous": ("A2C", PENDULUM, {**ROUND, **EVERYTHING, "vf_share_layers": True}),
    "a3c": ("A3C", CARTPOLE, {**ROUND, "timesteps_per_iteration": 200}),
    "ppo": ("PPO", CARTPOLE, EPOCHS),
    "ppo-continuous": ("PPO", PENDULUM, {**EPOCHS, **EVERYTHING, "kl_coeff": 0.2, "vf_clip": 0.3}),
    "ppo-kl-stop": ("PPO", CARTPOLE, {**EPOCHS, "kl_stop": 1e-4, "normalize_advantages": False}),
    "ppo-lstm": ("PPO", CARTPOLE, {**EPOCHS, "recurrent": "lstm", "recurrent_size": 16}),
    "ppo-picture": ("PPO", PICTURE, EPOCHS),
    "ppo-bfloat16": ("PPO", CARTPOLE, {**EPOCHS, "precision": "bfloat16"}),
    "ppo-workers": ("PPO", CARTPOLE, {**EPOCHS, "num_workers": 2, "normalize_observations": True}),
    "ppo-learners": ("PPO", CARTPOLE, {**EPOCHS, "num_workers": 2, "num_learners": 2}),
    "a2c-workers": ("A2C", PENDULUM, {**ROUND, "num_workers": 2}),
    "impala": ("IMPALA", CARTPOLE, IMPALA),
    "impala-gru": ("IMPALA", CARTPOLE, {**IMPALA, **EVERYTHING, "recurrent": "gru", "recurrent_size": 16}),
    "appo": ("APPO", CARTPOLE, SURROGATE),
    "appo-continuous": ("APPO", PENDULUM, {**SURROGATE, **EVERYTHING, "kl_coeff": 0.2}),
    "dqn": ("DQN", CARTPOLE, Q_LEARNING),
    "dqn-prioritized": ("DQN", CARTPOLE, {**Q_LEARNING, "prioritized": True, "dueling": True, "n_step": 3}),
    "dqn-picture": ("DQN", PICTURE, {**Q_LEARNING, "normalize_observations": True}),
    "dqn-workers": ("DQN", CARTPOLE, {**Q_LEARNING, "num_workers": 2}),
    "rainbow": ("Rainbow", CARTPOLE, {**Q_LEARNING, "num_atoms": 11}),
    "rainbow-single-q": ("Rainbow", CARTPOLE, {**Q_LEARNING, "num_atoms": 11, "double_q": False, "noisy": False}),
    "parametric-dqn": ("ParametricDQN", DESCRIBED, Q_LEARNING),
    "apex-dqn": ("ApexDQN", CARTPOLE, {**Q_LEARNING, "replay_shards": 1}),
    "ddpg": ("DDPG", PENDULUM, REPLAY),
    "ddpg-ou": ("DDPG", PENDULUM, {**REPLAY, "exploration_noise": "ornstein-uhlenbeck", "prioritized": True}),
    "td3": ("TD3", PENDULUM, REPLAY),
    "apex-ddpg": ("ApexDDPG", PENDULUM, REPLAY),
    "sac": ("SAC", PENDULUM, REPLAY),
    "sac-fixed": ("SAC", PENDULUM, {**REPLAY, "alpha": 0.2, "prioritized": True, "n_step": 3}),
    "sac-discrete": ("SAC", CARTPOLE, REPLAY),
    "sac-workers": ("SAC", PENDULUM, {**REPLAY, "num_workers": 2}),
}
"""Algorithm, environment and options by name: each way through the losses, the networks and the replay once."""
ITERATIONS = 3
TIMES = ("_s", "_per_second", "date", "timestamp", "pid", "hostname", "checkpoint")
"""Ends of the names of what tells of time or place."""


def train(folder: Path, names: list[str]) -> None:
    """A run of each case in a folder of its name."""
    from rltrainer.cli import main  # noqa: PLC0415 - the version that PYTHONPATH names

    for name in names:
        run, env, config = CASES[name]
        words = ["train", "--run", run, "--env", env, "--config", json.dumps(config), "--experiment-name", name]
        words += ["--stop", json.dumps({"training_iteration": ITERATIONS}), "--local-dir", str(folder), "--overwrite"]
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            main(words)
        if not list((folder / name).glob("checkpoints/*")):
            sys.exit(f"{name}: no checkpoint was written")


def numbers(run: Path) -> Iterator[tuple[str, Any]]:
    """All that the newest checkpoint of a run holds, by file and name: tensors, and JSON without times."""
    for file in sorted(max((run / "checkpoints").iterdir()).rglob("*")):
        if file.suffix == ".safetensors":
            yield from ((f"{file.name}: {name}", tensor) for name, tensor in load_file(file).items())
        elif file.suffix == ".json" and file.name != "manifest.json":
            yield from leaves(json.loads(file.read_text()), file.name)
    for row in (run / "result.json").read_text().splitlines():
        content = json.loads(row)
        yield from leaves(content, f"result.json {content['training_iteration']}")


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The numbers and words of a JSON value, by the path to each; what tells of time or place is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.endswith(TIMES):
                yield from leaves(inner, f"{path}.{key}")
    else:
        yield path, value


def difference(before: Any, after: Any) -> float:
    """The largest relative difference between two values: 0 where they are the same, bit for bit."""
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.shape == after.shape:
        if torch.equal(before, after):
            return 0.0
        one, other = before.double(), after.double()
        return float(((one - other).abs() / one.abs().max().clamp_min(1e-12)).max())
    if before == after:
        return 0.0
    if isinstance(before, float) and isinstance(after, float):
        return abs(before - after) / max(abs(before), 1e-12)
    return float("inf")


def compare(before: Path, after: Path, names: list[str]) -> int:
    """Says of each case how far the two folders differ; 1 where one differs at all."""
    differs = 0
    for name in names:
        old, new = dict(numbers(before / name)), dict(numbers(after / name))
        missing = sorted(old.keys() ^ new.keys())
        worst = {key: difference(old[key], new[key]) for key in old.keys() & new.keys()}
        off = sorted((key for key in worst if worst[key]), key=lambda key: -worst[key])
        said = f"{len(worst)} values, " + (f"{len(off)} differ, most {worst[off[0]]:.1e} {off[0]}" if off else "equal")
        sys.stdout.write(f"{name}: {said}{', only in one: ' + ', '.join(missing[:5]) if missing else ''}\n")
        differs |= bool(off or missing)
    return int(differs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("command", choices=("train", "compare"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES, metavar="CASE")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments.folders[0], arguments.only)
    else:
        before, after = arguments.folders
        sys.exit(compare(before, after, arguments.only))


if __name__ == "__main__":
    main()
