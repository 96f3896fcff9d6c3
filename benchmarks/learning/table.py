"""The reference tasks: what each algorithm is to reach, within how many steps, and who reached it before.

The experiments themselves are documents, in examples/tuned: each can be trained by itself.
"""

from dataclasses import dataclass
from pathlib import Path

from rltrainer.api.documents import Experiment

TUNED = Path(__file__).parents[2] / "examples" / "tuned"
ZOO = "rl-zoo3"
RLLIB = "RLlib's tuned examples"
MINATAR = "curves to 5M of Young and Tian 2019, arXiv 1903.03176, figure 2; no numbers"
TIANSHOU = "Tianshou's MuJoCo benchmark, -v3, mean of 10 seeds"


@dataclass(frozen=True)
class Task:
    """One row: a document and its bar."""

    name: str
    """Of the document in examples/tuned."""
    bar: float | None
    """Mean return over 100 episodes; None where the published curve is stated instead."""
    steps: int
    """Environment steps within which it is to be reached."""
    reference: str
    """What was published, and where."""
    seeds: int = 5
    quick: bool = False
    """Whether one seed of it is part of `make test`."""

    def experiment(self) -> Experiment:
        """The document."""
        return Experiment.from_yaml(TUNED / f"{self.name}.yaml")


TASKS = (
    Task("cartpole-ppo", 475, 100_000, f"500 at 100k ({ZOO})", quick=True),
    Task("cartpole-dqn", 475, 50_000, f"500 at 50k ({ZOO})"),
    Task("cartpole-rainbow", 475, 50_000, f"500 at 50k with DQN ({ZOO})"),
    Task("cartpole-qr-dqn", 475, 50_000, f"500 at 50k with DQN ({ZOO})"),
    Task("cartpole-parametric-dqn", 475, 50_000, f"500 at 50k with DQN on plain CartPole ({ZOO})"),
    Task("cartpole-a2c", 475, 500_000, f"500 at 500k ({ZOO})", quick=True),
    Task("cartpole-a3c", 475, 500_000, f"150 at 200k on CartPole-v0 ({RLLIB})", quick=True),
    Task("cartpole-pg", 475, 500_000, f"150 at 100k on CartPole-v0 ({RLLIB})", quick=True),
    Task("cartpole-impala", 475, 500_000, f"450 at 2M ({RLLIB})", quick=True),
    Task("cartpole-appo", 475, 500_000, f"450 at 2M ({RLLIB})", quick=True),
    Task("cartpole-apex-dqn", 475, 250_000, f"150 at 250k on CartPole-v0 ({RLLIB})"),
    Task("cartpole-sac", 475, 100_000, "none published for these steps"),
    Task("acrobot-ppo", -100, 500_000, f"-74 at 1M ({ZOO})"),
    Task("acrobot-a2c", -100, 500_000, f"-83 at 500k ({ZOO})"),
    Task("acrobot-impala", -100, 500_000, "none published"),
    Task("acrobot-appo", -100, 500_000, "none published"),
    Task("acrobot-dqn", -100, 100_000, f"-77 at 100k ({ZOO})"),
    Task("acrobot-rainbow", -100, 100_000, f"-77 at 100k with DQN ({ZOO})"),
    Task("pendulum-sac", -160, 20_000, f"-157 at 20k ({ZOO})"),
    Task("pendulum-td3", -160, 20_000, f"-152 at 20k ({ZOO})"),
    Task("pendulum-ddpg", -160, 20_000, f"-152 at 20k ({ZOO})"),
    Task("pendulum-apex-ddpg", -160, 50_000, f"-160 ({RLLIB})"),
    Task("pendulum-ppo", -160, 100_000, f"-172 at 100k ({ZOO})"),
    Task("lunarlander-ppo", 200, 1_000_000, f"242 at 1M ({ZOO})"),
    Task("lunarlander-dqn", 200, 200_000, f"154 at 100k ({ZOO})"),
    Task("lunarlander-sac", 200, 300_000, f"260 at 500k ({ZOO})", seeds=1),
    Task("memory-ppo", 475, 500_000, "none published"),
    Task("memory-ppo-without", None, 500_000, "cannot reach it without a memory"),
    Task("memory-impala", 475, 1_000_000, "none published"),
    Task("minatar-ppo", None, 1_000_000, MINATAR, seeds=3),
    Task("minatar-impala", None, 1_000_000, MINATAR, seeds=3),
    Task("minatar-dqn", None, 1_000_000, MINATAR, seeds=3),
    Task("minatar-rainbow", None, 1_000_000, MINATAR, seeds=3),
    Task("halfcheetah-sac", None, 300_000, f"9059 at 300k, 12139 at 1M ({TIANSHOU})", seeds=1),
    Task("halfcheetah-td3", None, 300_000, f"7546 at 300k, 10201 at 1M ({TIANSHOU})", seeds=1),
    Task("halfcheetah-ppo", None, 1_000_000, f"5784 at 1M ({TIANSHOU})", seeds=1),
    Task("hopper-sac", None, 300_000, f"3388 at 300k, 3542 at 1M ({TIANSHOU})", seeds=1),
    Task("hopper-td3", None, 300_000, f"1583 at 300k, 3472 at 1M ({TIANSHOU})", seeds=1),
    Task("hopper-ppo", None, 1_000_000, f"2609 at 1M ({TIANSHOU})", seeds=1),
)
