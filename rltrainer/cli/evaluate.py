"""`rltrainer evaluate`: how good a trained policy is."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rltrainer.cli.checkpoints import checkpoint_arguments, policy_arguments, policy_request, source_of
from rltrainer.cli.common import natural, positive

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    checkpoint_arguments(sub)
    sub.add_argument("--episodes", type=positive, default=100, metavar="N", help="whole episodes (%(default)s)")
    sub.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of where they begin, and what is drawn (%(default)s)"
    )
    policy_arguments(sub)
    sub.add_argument("--json", action="store_true", help="print an object, with every return and length")


def main(arguments: argparse.Namespace) -> int:
    """Evaluate a policy and print its statistics."""
    from rltrainer.cli.terminal import log_to_terminal  # noqa: PLC0415 - PyTorch comes with it
    from rltrainer.runs.rollout import Request, load  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="rltrainer-") as scratch, log_to_terminal():
        request = Request(**{**policy_request(arguments), **source_of(arguments).request()})
        policy, origin = load(request, Path(scratch) / "checkpoint")
        report = policy.evaluate(arguments.episodes, arguments.seed, request.deterministic)
    results = {
        "checkpoint": origin,
        "run": policy.run,
        "env": policy.source.name,
        "deterministic": request.deterministic,
        "seed": arguments.seed,
        **statistics(report.returns, report.lengths),
    }
    sys.stdout.write((json.dumps(results) if arguments.json else summary(results)) + "\n")
    return 0


def statistics(returns: list[float], lengths: list[int]) -> dict[str, Any]:
    """Compute statistics of episodes, under the names of result.json. The standard error is of the mean."""
    import numpy as np  # noqa: PLC0415 - for --help to be quick

    count = len(returns)
    return {
        "episodes": count,
        "timesteps": sum(lengths),
        "episode_reward_mean": float(np.mean(returns)),
        "episode_reward_stderr": float(np.std(returns, ddof=1) / count**0.5) if count > 1 else None,
        "episode_reward_min": min(returns),
        "episode_reward_max": max(returns),
        "episode_reward_quantiles": {f"{q:g}": float(np.quantile(returns, q)) for q in QUANTILES},
        "episode_len_mean": float(np.mean(lengths)),
        "returns": returns,
        "lengths": lengths,
    }


def summary(results: dict[str, Any]) -> str:
    """Format an evaluation for people."""
    error = results["episode_reward_stderr"]
    quantiles = "  ".join(f"{float(q):.0%} {value:.2f}" for q, value in results["episode_reward_quantiles"].items())
    actions = "best" if results["deterministic"] else "drawn"
    return (
        f"{results['checkpoint']}\n"
        f"{results['run']} on {results['env']}, {results['episodes']} episodes, {actions} actions, "
        f"seed {results['seed']}\n"
        f"return     {results['episode_reward_mean']:.2f}" + ("" if error is None else f" ± {error:.2f}") + "\n"
        f"           min {results['episode_reward_min']:.2f}  {quantiles}  max {results['episode_reward_max']:.2f}\n"
        f"length     {results['episode_len_mean']:.1f}"
    )
