"""What is measured: the rows of the benchmark, and the ratios that each is to show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rltrainer.api.options import parse_options

WARMUP = 1500
"""Environment steps before the first window, where a row needs no more."""


def work(run: str, env: str, config: Mapping[str, Any], warmup: int = WARMUP, threads: int = 1) -> dict[str, Any]:
    """What a contender is started with."""
    options = parse_options(run, dict(config)).model_dump(by_alias=True, mode="json")
    document = {"run": run, "env": env, "config": dict(config), "options": options}
    return {**document, "warmup": warmup, "threads": threads}


@dataclass(frozen=True)
class Throughput:
    """Environment steps a second, learning included, of several contenders with the same options."""

    name: str
    run: str
    env: str
    config: Mapping[str, Any]
    """Our names for the options; the peers' files translate them."""
    peers: tuple[str, ...]
    bars: Mapping[str, float]
    """How many times faster than a peer, and at what share of the limit."""
    warmup: int = WARMUP
    """Environment steps before the first window: until updates have begun, and workers are there."""
    threads: int = 1
    """Threads of PyTorch for the peers: those that they are fastest with, of 1 and 2. Ours chooses for itself."""


@dataclass(frozen=True)
class Threshold:
    """Seconds of a whole process, from the command until the policy's mean return reaches `reward`: that of the last
    100 episodes of training or, with `evaluated`, of 10 evaluation episodes every so many steps."""

    name: str
    run: str
    env: str
    reward: float
    document: str
    """Ours, in examples/tuned."""
    peer: str
    options: Mapping[str, Any]
    """The peer's best ones: SB3's as rl-zoo3 gives them, RLlib's by our names."""
    evaluated: int = 0
    bar: float = 3.0
    cap: float = 150.0
    """Seconds after which a contender is stopped."""


@dataclass(frozen=True)
class Scaling:
    """Steps a second with `many` workers against one, where a step of the environment sleeps for a millisecond.

    A worker has the default number of environments, 8, and steps them one by one."""

    name: str
    run: str
    config: Mapping[str, Any]
    many: int = 16
    bar: float = 14.0


@dataclass(frozen=True)
class Memory:
    """Megabytes that a run's processes hold, memory that they share counted once."""

    name: str
    run: str
    env: str
    config: Mapping[str, Any]
    peers: tuple[str, ...]
    most: float | None = None
    """Megabytes that it is to stay under."""
    share: Mapping[str, float] = field(default_factory=dict)
    """And the share of a peer's."""


@dataclass(frozen=True)
class Published:
    """Environment steps a second on a GPU, beside what another library says of itself."""

    name: str
    run: str
    env: str
    config: Mapping[str, Any]
    rate: float
    """What was published, in environment steps a second on one H100."""
    warmup: int = WARMUP


Row = Throughput | Threshold | Scaling | Memory | Published

LIMIT = "limit"
APART = "apart"
"""As many runs of ours at once as there are workers, without Ray: what the added processes could give."""
CLASSIC = {"sb3": 2.5, "rllib": 3.0, LIMIT: 0.85}
REPLAYED = {"sb3": 1.2, "rllib": 2.5, LIMIT: 0.85}
BESIDE_RAY = {"rllib": 3.0, APART: 0.9}
PIXELS = {"sb3": 1.3, "rllib": 1.6, LIMIT: 0.85}
ALONE: dict[str, Any] = {"num_envs_per_worker": 1, "rollout_fragment_length": 1, "batch_size": 256, "lr": 1e-3}
CONTINUOUS: dict[str, Any] = {**ALONE, "hiddens": [256, 256], "learning_starts": 500}
PONG: dict[str, Any] = {"num_envs_per_worker": 8, "hiddens": [], "activation": "relu"}
TWO_WORKERS: dict[str, Any] = {"num_workers": 2, "num_envs_per_worker": 8, "rollout_fragment_length": 50}
ZOO_PPO: dict[str, Any] = {
    "rollout_fragment_length": 32,
    "minibatch_size": 256,
    "epochs": 20,
    "gamma": 0.98,
    "lambda": 0.8,
    "lr": 1e-3,
}
"""rl-zoo3's options of PPO on CartPole, as those of DQN below, without their schedules."""
ZOO_DQN: dict[str, Any] = {
    "num_envs_per_worker": 1,
    "rollout_fragment_length": 256,
    "updates_per_step": 0.5,
    "batch_size": 64,
    "hiddens": [256, 256],
    "lr": 2.3e-3,
    "target_update_freq": 128,
    "double_q": False,
    "epsilon_schedule": [[0, 1.0], [1, 0.04]],
}
DQN_PONG: dict[str, Any] = {
    **PONG,
    "batch_size": 32,
    "rollout_fragment_length": 4,
    "buffer_size": 20_000,
    "double_q": False,
    "epsilon_schedule": [[0, 1.0], [1, 0.05]],
}
PPO_PONG: dict[str, Any] = {**PONG, "rollout_fragment_length": 128, "epochs": 4, "minibatch_size": 256, "lr": 2.5e-4}


def replayed(run: str, peers: tuple[str, ...]) -> list[Throughput]:
    """An algorithm of continuous actions on both of its environments."""
    bars = {name: bar for name, bar in REPLAYED.items() if name in (*peers, LIMIT)}
    return [
        Throughput(f"{run.lower()}-{name.lower()}", run, f"{name}-{version}", CONTINUOUS, peers, bars, warmup=800)
        for name, version in (("Pendulum", "v1"), ("HalfCheetah", "v5"))
    ]


THROUGHPUT = (
    Throughput("ppo-cartpole", "PPO", "CartPole-v1", ZOO_PPO, ("sb3", "cleanrl", "rllib"), CLASSIC),
    Throughput(
        "a2c-cartpole",
        "A2C",
        "CartPole-v1",
        {"rollout_fragment_length": 5, "timesteps_per_iteration": 2000},
        ("sb3",),
        {"sb3": 2.5, LIMIT: 0.85},
    ),
    Throughput("dqn-cartpole", "DQN", "CartPole-v1", ZOO_DQN, ("sb3", "cleanrl", "rllib"), REPLAYED),
    *replayed("SAC", ("sb3", "cleanrl", "rllib")),
    *replayed("TD3", ("sb3", "cleanrl")),
    *replayed("DDPG", ("sb3", "cleanrl")),
    Throughput("ppo-pong", "PPO", "ALE/Pong-v5", PPO_PONG, ("sb3", "cleanrl", "rllib"), PIXELS, warmup=1024, threads=2),
    Throughput("dqn-pong", "DQN", "ALE/Pong-v5", DQN_PONG, ("sb3", "cleanrl", "rllib"), PIXELS, warmup=1500, threads=2),
    Throughput("impala-cartpole-2-workers", "IMPALA", "CartPole-v1", TWO_WORKERS, ("rllib",), BESIDE_RAY),
    Throughput("appo-cartpole-2-workers", "APPO", "CartPole-v1", TWO_WORKERS, ("rllib",), BESIDE_RAY),
)
SCALING = tuple(
    Scaling(f"{run.lower()}-16-workers", run, config)
    for run, config in (
        ("IMPALA", {"rollout_fragment_length": 50, "train_batch_size": 2000}),
        ("APPO", {"rollout_fragment_length": 50, "train_batch_size": 2000}),
        ("ApexDQN", {"rollout_fragment_length": 50, "updates_per_step": 0.0015, "n_step": 1}),
    )
)
"""Ape-X learns as often as in Horgan et al. 2018, section 4: 19 batches a second from 12,500 steps."""
MEMORY = (
    Memory("memory-serial", "PPO", "CartPole-v1", ZOO_PPO, ("sb3", "cleanrl", "rllib"), most=600),
    Memory("memory-2-workers", "IMPALA", "CartPole-v1", TWO_WORKERS, ("rllib",), share={"rllib": 0.6}),
)
THRESHOLDS = (
    Threshold(
        "threshold-cartpole-ppo",
        "PPO",
        "CartPole-v1",
        475,
        "cartpole-ppo",
        "sb3",
        {
            "n_envs": 8,
            "kwargs": {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20},
            "linear": {"learning_rate": 1e-3, "clip_range": 0.2},
            "total": 100_000,
        },
    ),
    Threshold(
        "threshold-cartpole-dqn",
        "DQN",
        "CartPole-v1",
        475,
        "cartpole-dqn",
        "sb3",
        {
            "kwargs": {
                "learning_rate": 2.3e-3,
                "batch_size": 64,
                "learning_starts": 1000,
                "target_update_interval": 10,
                "train_freq": 256,
                "gradient_steps": 128,
                "exploration_fraction": 0.16,
                "exploration_final_eps": 0.04,
                "policy_kwargs": {"net_arch": [256, 256]},
            },
            "total": 50_000,
        },
        evaluated=2000,
    ),
    Threshold(
        "threshold-cartpole-impala", "IMPALA", "CartPole-v1", 475, "cartpole-impala", "rllib", TWO_WORKERS, cap=100
    ),
    Threshold(
        "threshold-pendulum-sac",
        "SAC",
        "Pendulum-v1",
        -160,
        "pendulum-sac",
        "sb3",
        {"kwargs": {"learning_rate": 1e-3}, "total": 20_000},
        evaluated=1000,
    ),
    Threshold(
        "threshold-pendulum-td3",
        "TD3",
        "Pendulum-v1",
        -160,
        "pendulum-td3",
        "sb3",
        {"kwargs": {"learning_rate": 1e-3, "gamma": 0.98, "learning_starts": 1000}, "total": 20_000},
        evaluated=1000,
    ),
    Threshold(
        "threshold-acrobot-ppo",
        "PPO",
        "Acrobot-v1",
        -100,
        "acrobot-ppo",
        "sb3",
        {
            "n_envs": 16,
            "normalize": True,
            "kwargs": {"n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4},
            "total": 1_000_000,
        },
    ),
    Threshold(
        "threshold-lunarlander-ppo",
        "PPO",
        "LunarLander-v3",
        200,
        "lunarlander-ppo",
        "sb3",
        {
            "n_envs": 16,
            "kwargs": {
                "n_steps": 1024,
                "batch_size": 64,
                "gae_lambda": 0.98,
                "gamma": 0.999,
                "n_epochs": 4,
                "ent_coef": 0.01,
            },
            "total": 1_000_000,
        },
        cap=600,
        evaluated=20_000,
    ),
)
ON_GPU: dict[str, Any] = {"num_gpus": 1}
PUBLISHED = (
    Published("gpu-ppo-breakout", "PPO", "ALE/Breakout-v5", {**PPO_PONG, **ON_GPU}, 6809, warmup=4096),
    Published(
        "gpu-ppo-halfcheetah",
        "PPO",
        "HalfCheetah-v5",
        {"num_envs_per_worker": 1, "rollout_fragment_length": 2048, "epochs": 10, "minibatch_size": 64, **ON_GPU},
        1774,
        warmup=4096,
    ),
    Published("gpu-sac-halfcheetah", "SAC", "HalfCheetah-v5", {**CONTINUOUS, **ON_GPU}, 725),
    Published("gpu-td3-halfcheetah", "TD3", "HalfCheetah-v5", {**CONTINUOUS, **ON_GPU}, 936),
)
"""LeanRL's figures, of its README (github.com/meta-pytorch/LeanRL)."""
ROWS: tuple[Row, ...] = (*THROUGHPUT, *MEMORY, *SCALING, *THRESHOLDS, *PUBLISHED)
