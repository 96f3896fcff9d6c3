"""The rows: algorithms with nothing but their defaults, on small tasks, for so many environment steps."""

from dataclasses import dataclass

SB3 = ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
"""Our names of the algorithms that Stable-Baselines3 has too, which are its names."""


@dataclass(frozen=True)
class Row:
    """An algorithm on a task."""

    run: str
    env: str
    steps: int
    """Environment steps of training."""

    @property
    def name(self) -> str:
        """The name of its results."""
        return f"{self.run}-{self.env.rpartition(':')[2]}-{self.steps}"

    @property
    def contenders(self) -> tuple[str, ...]:
        """Who is trained: ours, and the same algorithm of Stable-Baselines3 where it has it for these actions."""
        has_it = self.run in SB3 and not (self.run == "SAC" and self.env.startswith("CartPole"))
        return ("ours", "sb3") if has_it else ("ours",)


CARTPOLE, PENDULUM, LANDER = "CartPole-v1", "Pendulum-v1", "LunarLander-v3"
ROWS = (
    Row("PPO", CARTPOLE, 100_000),
    Row("PPO", PENDULUM, 200_000),
    Row("DQN", CARTPOLE, 50_000),
    Row("SAC", PENDULUM, 20_000),
    Row("TD3", PENDULUM, 20_000),
    Row("DDPG", PENDULUM, 20_000),
    Row("A2C", CARTPOLE, 100_000),
    Row("A2C", PENDULUM, 200_000),
    Row("DQN", LANDER, 100_000),
    Row("PPO", LANDER, 300_000),
    Row("A2C", LANDER, 300_000),
    Row("Rainbow", CARTPOLE, 50_000),
    Row("QRDQN", CARTPOLE, 50_000),
    Row("ParametricDQN", "benchmarks.learning.envs:ParametricCartPole", 50_000),
    Row("ApexDQN", CARTPOLE, 100_000),
    Row("ApexDDPG", PENDULUM, 50_000),
    Row("SAC", CARTPOLE, 50_000),
    Row("A3C", CARTPOLE, 100_000),
    Row("PG", CARTPOLE, 100_000),
    Row("IMPALA", CARTPOLE, 100_000),
    Row("APPO", CARTPOLE, 100_000),
)
