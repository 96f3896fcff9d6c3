# Generated from rltrainer/api/options by `make generate`: what mypy and editors know of rltrainer.
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, Unpack, overload

from rltrainer.api.base import DocumentError as DocumentError
from rltrainer.api.documents import Experiment as Experiment
from rltrainer.api.options import OptionError as OptionError
from rltrainer.errors import RunError as RunError
from rltrainer.library.policies import Episodes as Episodes
from rltrainer.library.policies import Policy as Policy
from rltrainer.library.policies import load as load
from rltrainer.library.results import results as results
from rltrainer.runs.train import Result as Result

__version__: str
PUBLIC: dict[str, str]

_Stop = TypedDict(
    "_Stop",
    {
        "episode_reward_mean": float | None,
        "evaluation/episode_reward_mean": float | None,
        "timesteps_total": int | None,
        "training_iteration": int | None,
        "episodes_total": int | None,
        "time_total_s": float | None,
    },
    total=False,
)

class _Checkpoint(TypedDict, total=False):
    frequency: int
    at_end: bool
    keep: int
    score_attribute: Literal[
        "episode_reward_mean",
        "min-episode_reward_mean",
        "episode_len_mean",
        "min-episode_len_mean",
        "training_iteration",
        "evaluation/episode_reward_mean",
        "min-evaluation/episode_reward_mean",
    ]

class _Evaluation(TypedDict, total=False):
    interval: int
    episodes: int
    deterministic: bool

class _CredentialsKeys(TypedDict, total=False):
    access_key_id: str
    secret_access_key: str
    session_token: str

class _Storage(TypedDict, total=False):
    uri: Required[str]
    endpoint: str | None
    region: str | None
    credentials_secret: str | None
    credentials_keys: _CredentialsKeys

class _Run(TypedDict, total=False):
    env_config: dict[str, Any] | None
    stop: _Stop | None
    checkpoint: _Checkpoint | None
    evaluation: _Evaluation | None
    storage: _Storage | None
    name: str | None
    local_dir: str | Path
    restore: str | Path | Result | None
    resume: bool
    overwrite: bool
    max_failures: int
    export_formats: Sequence[Literal["model", "checkpoint", "onnx"]]

class _Options(_Run, total=False):
    lr: float
    lr_schedule: Sequence[Sequence[float]] | None
    gamma: float
    grad_clip: float
    seed: int | None
    adam_eps: float
    num_workers: int
    num_cpus_per_worker: float
    num_learners: int
    num_gpus: int
    precision: Literal["float32", "bfloat16"]
    num_envs_per_worker: int
    vector_env: Literal["auto", "sync", "subprocess"]
    rollout_fragment_length: int
    timesteps_per_iteration: int
    hiddens: Sequence[int]
    activation: Literal["tanh", "relu", "elu", "silu", "linear"]
    cnn: Literal["nature", "resnet"]
    normalize_observations: bool
    custom: dict[str, Any]

class _A2C(_Options, total=False):
    normalize_rewards: bool
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    lambda_: float
    vf_coeff: float
    vf_share_layers: bool
    recurrent: Literal["lstm", "gru"] | None
    recurrent_size: int

class _A3C(_Options, total=False):
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    lambda_: float
    vf_coeff: float
    vf_share_layers: bool
    recurrent: Literal["lstm", "gru"] | None
    recurrent_size: int

class _APPO(_Options, total=False):
    cuda_graphs: bool
    normalize_rewards: bool
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    lambda_: float
    vf_coeff: float
    vf_share_layers: bool
    recurrent: Literal["lstm", "gru"] | None
    recurrent_size: int
    requests_in_flight: int
    tau: float
    target_update_freq: int
    train_batch_size: int
    vtrace_clip_rho: float
    vtrace_clip_c: float
    normalize_advantages: bool
    clip: float
    epochs: int
    minibatch_size: int
    kl_coeff: float
    kl_target: float

class _ApexDDPG(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    critic_lr: float | None
    critic_hiddens: Sequence[int] | None
    twin_q: bool
    exploration_noise: Literal["gaussian", "ornstein-uhlenbeck"]
    exploration_sigma: float
    exploration_theta: float
    policy_delay: int
    target_noise: float
    target_noise_clip: float
    requests_in_flight: int
    replay_shards: int

class _ApexDQN(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    num_atoms: int
    v_min: float
    v_max: float
    noisy: bool
    noisy_sigma: float
    double_q: bool
    dueling: bool
    requests_in_flight: int
    replay_shards: int
    epsilon_base: float
    epsilon_alpha: float

class _DDPG(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    critic_lr: float | None
    critic_hiddens: Sequence[int] | None
    twin_q: bool
    exploration_noise: Literal["gaussian", "ornstein-uhlenbeck"]
    exploration_sigma: float
    exploration_theta: float
    policy_delay: int
    target_noise: float
    target_noise_clip: float

class _DQN(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    num_atoms: int
    v_min: float
    v_max: float
    noisy: bool
    noisy_sigma: float
    double_q: bool
    dueling: bool
    epsilon_schedule: Sequence[Sequence[float]]

class _IMPALA(_Options, total=False):
    normalize_rewards: bool
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    lambda_: float
    vf_coeff: float
    vf_share_layers: bool
    recurrent: Literal["lstm", "gru"] | None
    recurrent_size: int
    requests_in_flight: int
    train_batch_size: int
    vtrace_clip_rho: float
    vtrace_clip_c: float

class _PG(_Options, total=False):
    normalize_rewards: bool
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    normalize_advantages: bool

class _PPO(_Options, total=False):
    cuda_graphs: bool
    normalize_rewards: bool
    entropy_coeff: float
    entropy_coeff_schedule: Sequence[Sequence[float]] | None
    lambda_: float
    vf_coeff: float
    vf_share_layers: bool
    recurrent: Literal["lstm", "gru"] | None
    recurrent_size: int
    normalize_advantages: bool
    clip: float
    epochs: int
    minibatch_size: int
    kl_coeff: float
    kl_target: float
    clip_schedule: Sequence[Sequence[float]] | None
    vf_clip: float | None
    kl_stop: float | None

class _ParametricDQN(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    num_atoms: int
    v_min: float
    v_max: float
    noisy: bool
    noisy_sigma: float
    double_q: bool
    dueling: bool
    epsilon_schedule: Sequence[Sequence[float]]

class _QRDQN(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    noisy: bool
    noisy_sigma: float
    double_q: bool
    dueling: bool
    epsilon_schedule: Sequence[Sequence[float]]
    num_quantiles: int

class _Rainbow(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    num_atoms: int
    v_min: float
    v_max: float
    noisy: bool
    noisy_sigma: float
    double_q: bool
    dueling: bool
    epsilon_schedule: Sequence[Sequence[float]]

class _SAC(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    critic_lr: float | None
    critic_hiddens: Sequence[int] | None
    twin_q: bool
    alpha: float | None
    initial_alpha: float
    alpha_lr: float | None
    target_entropy: float | None
    target_entropy_ratio: float

class _TD3(_Options, total=False):
    cuda_graphs: bool
    tau: float
    target_update_freq: int
    buffer_size: int
    learning_starts: int
    batch_size: int
    updates_per_step: float
    n_step: int
    prioritized: bool
    priority_alpha: float
    priority_beta: float
    priority_beta_schedule: Sequence[Sequence[float]] | None
    priority_epsilon: float
    critic_lr: float | None
    critic_hiddens: Sequence[int] | None
    twin_q: bool
    exploration_noise: Literal["gaussian", "ornstein-uhlenbeck"]
    exploration_sigma: float
    exploration_theta: float
    policy_delay: int
    target_noise: float
    target_noise_clip: float

@overload
def train(algorithm: Literal["A2C"], env: str | Callable[..., Any], **options: Unpack[_A2C]) -> Result: ...
@overload
def train(algorithm: Literal["A3C"], env: str | Callable[..., Any], **options: Unpack[_A3C]) -> Result: ...
@overload
def train(algorithm: Literal["APPO"], env: str | Callable[..., Any], **options: Unpack[_APPO]) -> Result: ...
@overload
def train(algorithm: Literal["ApexDDPG"], env: str | Callable[..., Any], **options: Unpack[_ApexDDPG]) -> Result: ...
@overload
def train(algorithm: Literal["ApexDQN"], env: str | Callable[..., Any], **options: Unpack[_ApexDQN]) -> Result: ...
@overload
def train(algorithm: Literal["DDPG"], env: str | Callable[..., Any], **options: Unpack[_DDPG]) -> Result: ...
@overload
def train(algorithm: Literal["DQN"], env: str | Callable[..., Any], **options: Unpack[_DQN]) -> Result: ...
@overload
def train(algorithm: Literal["IMPALA"], env: str | Callable[..., Any], **options: Unpack[_IMPALA]) -> Result: ...
@overload
def train(algorithm: Literal["PG"], env: str | Callable[..., Any], **options: Unpack[_PG]) -> Result: ...
@overload
def train(algorithm: Literal["PPO"], env: str | Callable[..., Any], **options: Unpack[_PPO]) -> Result: ...
@overload
def train(
    algorithm: Literal["ParametricDQN"], env: str | Callable[..., Any], **options: Unpack[_ParametricDQN]
) -> Result: ...
@overload
def train(algorithm: Literal["QRDQN"], env: str | Callable[..., Any], **options: Unpack[_QRDQN]) -> Result: ...
@overload
def train(algorithm: Literal["Rainbow"], env: str | Callable[..., Any], **options: Unpack[_Rainbow]) -> Result: ...
@overload
def train(algorithm: Literal["SAC"], env: str | Callable[..., Any], **options: Unpack[_SAC]) -> Result: ...
@overload
def train(algorithm: Literal["TD3"], env: str | Callable[..., Any], **options: Unpack[_TD3]) -> Result: ...
@overload
def train(algorithm: str, env: str | Callable[..., Any], **options: Unpack[_Options]) -> Result: ...
@overload
def train(algorithm: Experiment, env: str | Callable[..., Any] | None = None, **options: Unpack[_Run]) -> Result: ...
