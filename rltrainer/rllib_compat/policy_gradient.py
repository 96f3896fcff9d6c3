"""Rules of RLlib's options for the policy-gradient algorithms: PG, A2C, A3C, PPO, IMPALA, APPO."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON, activation
from rltrainer.rllib_compat.rules import (
    AlgorithmRules,
    Computed,
    OptionValues,
    Rule,
    ceil_div,
    constant,
    ignore,
    ignore_all,
    keep,
    reject,
    rename,
    schedule,
)

BATCH_OPTIONS = (
    "train_batch_size",
    "rollout_fragment_length",
    "num_workers",
    "num_envs_per_worker",
    "model.use_lstm",
    "model.max_seq_len",
)


def rollout_shape(v: OptionValues) -> tuple[int, int]:
    """Return (rollout_fragment_length, num_envs_per_worker), whose product over all workers is train_batch_size.

    Where num_envs_per_worker is not set, it is such that fragments keep their length.
    """
    if v.over and not v.has("train_batch_size"):  # a command line that leaves the round as it is
        return int(v["rollout_fragment_length"]), v.num_envs
    batch_size, length = int(v["train_batch_size"]), int(v["rollout_fragment_length"])
    if v.num_envs_is_set:
        return ceil_div(batch_size, v.num_workers * v.num_envs), v.num_envs
    if v["model.use_lstm"]:
        length = min(length, int(v["model.max_seq_len"]))
    share = ceil_div(batch_size, v.num_workers)
    num_envs = max(1, share // length)
    return ceil_div(share, num_envs), num_envs


def usual_fragment(v: OptionValues) -> int:
    """Return the fragment that "auto" means: RLlib splits the round as it likes, and so do we, into its old default."""
    return int(v.defaults["rollout_fragment_length"])


def num_envs_if_unset(v: OptionValues) -> int | None:
    """Return num_envs_per_worker of `rollout_shape`, None where it is set."""
    return None if v.num_envs_is_set else rollout_shape(v)[1]


def clip_of_summed_loss(v: OptionValues) -> float:
    """Return the clip norm for a mean loss, from that for a loss summed over the batch."""
    return float(v["grad_clip"] or 0.0) / int(v["train_batch_size"])


def clip_of_fragment_loss(v: OptionValues) -> float:
    """Return the clip norm for a mean loss, from that for a loss summed over one worker's fragment."""
    return float(v["grad_clip"] or 0.0) / (int(v["rollout_fragment_length"]) * v.num_envs)


def clip_norm(v: OptionValues) -> float:
    """Return the clip norm, 0 for none."""
    return float(v["grad_clip"] or 0.0)


def all_layers(v: OptionValues) -> Any:
    """Return the widths of all hidden layers."""
    return [*v["model.fcnet_hiddens"], *(v["model.post_fcnet_hiddens"] or [])]


def gae_lambda(v: OptionValues) -> float | None:
    """Return GAE's lambda: 1, which is the whole return, without GAE."""
    return v["lambda"] if v["use_gae"] in (None, True) else 1.0


def finite_limit(limit: Any) -> float | None:
    """Return a limit, None for infinity."""
    return None if limit is None or limit == float("inf") else float(limit)


def single_epoch(value: Any) -> Any:
    """Return num_sgd_iter. Raises ValueError for more than one pass."""
    if value != 1:
        raise ValueError("IMPALA learns from a batch once: run APPO for several passes")
    return value


def own_exploration(kind: Any) -> Any:
    """Return the exploration's type. Raises ValueError for any but the policy's own."""
    if str(kind).rpartition(".")[2] != "StochasticSampling":
        raise ValueError(f"there is no {kind}: the policy itself explores")
    return kind


POLICY_GRADIENT: dict[str, Rule] = {
    **COMMON,
    "exploration_config.type": Rule("ignore", convert=own_exploration, no_effect=("StochasticSampling",)),
    "max_sample_requests_in_flight_per_worker": ignore("workers and the learner take turns"),
}
NETWORK: dict[str, Rule] = {
    "model.fcnet_activation": rename("activation", convert=activation),
    "model.vf_share_layers": rename("vf_share_layers"),
    "use_critic": reject("A2C and PPO have a critic; PG is the algorithm without one", True),
    "model.use_lstm": rename("recurrent", convert=lambda use_lstm: "lstm" if use_lstm else None),
}
RATES = (constant("lr"), schedule("lr"), constant("entropy_coeff"), schedule("entropy_coeff"))
HIDDENS = Computed("hiddens", ("model.fcnet_hiddens", "model.post_fcnet_hiddens"), all_layers)
LAMBDA = Computed("lambda", ("lambda", "use_gae"), gae_lambda, "without GAE returns are whole, which is lambda 1")
ROLLOUT_SHAPE = (
    Computed(
        "rollout_fragment_length",
        BATCH_OPTIONS,
        lambda v: rollout_shape(v)[0],
        "a round is train_batch_size steps, over all environments of all workers",
        deciding=("train_batch_size", "rollout_fragment_length"),
    ),
    Computed(
        "num_envs_per_worker",
        BATCH_OPTIONS[:3] + BATCH_OPTIONS[4:],
        num_envs_if_unset,
        "so many that a fragment keeps its length; set num_envs_per_worker for another number",
        deciding=("train_batch_size", "rollout_fragment_length"),
    ),
)
SUMMED_LOSS_CLIP = Computed(
    "grad_clip", ("grad_clip",), clip_of_summed_loss, "a loss is a mean here, and a sum over train_batch_size there"
)
LSTM_DEFAULTS = {"model.max_seq_len": 20}
DEFAULTS = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "model.fcnet_hiddens": [256, 256],
    "model.fcnet_activation": "tanh",
}
RECURRENT_SIZE = Computed(
    "recurrent_size",
    ("model.use_lstm", "model.lstm_cell_size"),
    lambda v: v["model.lstm_cell_size"] or (256 if v["model.use_lstm"] else None),
    deciding=("model.lstm_cell_size",),
)

PG = AlgorithmRules(
    "PG",
    rules={
        **POLICY_GRADIENT,
        "model.lstm_cell_size": ignore("it belongs to model.use_lstm"),
        "model.fcnet_activation": rename("activation", convert=activation),
        "model.vf_share_layers": ignore("PG has no critic"),
        "model.use_lstm": reject("PG has no memory; A2C, PPO, IMPALA and APPO have", False),
        "use_gae": ignore("PG has no critic"),
    },
    computed=(constant("lr"), schedule("lr"), HIDDENS, *ROLLOUT_SHAPE),
    defaults={**DEFAULTS, **LSTM_DEFAULTS, "lr": 4e-4, "train_batch_size": 200, "rollout_fragment_length": 200},
    fragment=usual_fragment,
)

ACTOR_CRITIC = {**POLICY_GRADIENT, **NETWORK, "vf_loss_coeff": rename("vf_coeff")}
A2C_DEFAULTS = {
    **DEFAULTS,
    **LSTM_DEFAULTS,
    "lr": 1e-4,
    "lambda": 1.0,
    "train_batch_size": 200,
    "rollout_fragment_length": 20,
    "grad_clip": 40.0,
    "vf_loss_coeff": 0.5,
    "entropy_coeff": 0.01,
    "model.vf_share_layers": True,
}
A2C = AlgorithmRules(
    "A2C",
    rules={
        **ACTOR_CRITIC,
        "microbatch_size": ignore("a gradient is that of the whole batch, which is what microbatches add up to"),
    },
    computed=(
        *RATES,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        *ROLLOUT_SHAPE,
        SUMMED_LOSS_CLIP,
    ),
    defaults=A2C_DEFAULTS,
    fragment=usual_fragment,
)
A3C = AlgorithmRules(
    "A3C",
    rules={
        **ACTOR_CRITIC,
        "rollout_fragment_length": keep(),
        "train_batch_size": ignore("A3C follows the gradient of each fragment"),
    },
    computed=(
        *RATES,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        Computed(
            "grad_clip", ("grad_clip",), clip_of_fragment_loss, "a loss is a mean here, and a sum over a fragment there"
        ),
    ),
    defaults={
        **{name: value for name, value in A2C_DEFAULTS.items() if name != "train_batch_size"},
        "rollout_fragment_length": 10,
    },
)

SURROGATE: dict[str, Rule] = {
    "clip_param": rename("clip"),
    "num_sgd_iter": rename("epochs"),
    "kl_target": keep(),
}
PPO = AlgorithmRules(
    "PPO",
    rules={
        **ACTOR_CRITIC,
        **SURROGATE,
        "kl_coeff": keep(),
        "vf_loss_coeff": rename("vf_coeff", "the value loss is half the squared error here", lambda c: 2 * c),
        "vf_clip_param": rename("vf_clip", "the largest change of a value in one update", finite_limit),
        "sgd_minibatch_size": rename("minibatch_size"),
        "use_kl_loss": ignore("kl_coeff: 0 is none", True),
    },
    computed=(
        *RATES,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        *ROLLOUT_SHAPE,
        Computed("grad_clip", ("grad_clip",), clip_norm),
    ),
    defaults={
        **DEFAULTS,
        **LSTM_DEFAULTS,
        "lr": 5e-5,
        "lambda": 1.0,
        "kl_coeff": 0.2,
        "kl_target": 0.01,
        "clip_param": 0.3,
        "vf_clip_param": 10.0,
        "vf_loss_coeff": 1.0,
        "entropy_coeff": 0.0,
        "grad_clip": None,
        "train_batch_size": 4000,
        "rollout_fragment_length": 200,
        "sgd_minibatch_size": 128,
        "num_sgd_iter": 30,
        "model.vf_share_layers": False,
    },
    fragment=usual_fragment,
)

ASYNC: dict[str, Rule] = {
    "rollout_fragment_length": keep(),
    "train_batch_size": keep(),
    "max_sample_requests_in_flight_per_worker": rename("requests_in_flight"),
    "vtrace_clip_rho_threshold": rename("vtrace_clip_rho"),
    "vtrace_clip_pg_rho_threshold": ignore("vtrace_clip_rho clips both ratios", 1.0),
    "vtrace": ignore("advantages are V-trace's, which of fresh samples are GAE's", True),
    "replay_proportion": reject("fragments are not replayed", 0, 0.0),
    "opt_type": ignore("the optimizer is Adam", "adam"),
    "vtrace_drop_last_ts": ignore("no step is dropped"),
    "after_train_step": reject("there is none: write an algorithm of your own (docs/new-algorithm.md)"),
    "old_policy_lag": ignore("target_update_frequency says how old the target policy is"),
    **ignore_all(
        "Ray says when an answer is there",
        *("timeout_s_sampler_manager", "timeout_s_aggregator_manager", "max_requests_in_flight_per_aggregator_worker"),
    ),
    **ignore_all("a batch is learned from when it comes", "minibatch_buffer_size", "replay_buffer_num_slots"),
    **ignore_all("requests_in_flight says how much may wait", "learner_queue_size", "learner_queue_timeout"),
    **ignore_all("weights are sent once for all workers", "broadcast_interval", "num_aggregation_workers"),
    **ignore_all("they belong to RMSprop, and the optimizer is Adam", "decay", "momentum", "epsilon"),
}
ASYNC_DEFAULTS = {
    **DEFAULTS,
    "lr": 5e-4,
    "train_batch_size": 500,
    "rollout_fragment_length": 50,
    "grad_clip": 40.0,
    "vf_loss_coeff": 0.5,
    "entropy_coeff": 0.01,
    "model.vf_share_layers": True,
}
IMPALA = AlgorithmRules(
    "IMPALA",
    rules={**ACTOR_CRITIC, **ASYNC, "num_sgd_iter": Rule("ignore", convert=single_epoch, no_effect=(1,))},
    computed=(*RATES, HIDDENS, RECURRENT_SIZE, SUMMED_LOSS_CLIP),
    defaults=ASYNC_DEFAULTS,
)
APPO = AlgorithmRules(
    "APPO",
    rules={
        **ACTOR_CRITIC,
        **ASYNC,
        **SURROGATE,
        "use_critic": reject("APPO has a critic", True),
        "target_update_frequency": rename("target_update_freq"),
    },
    computed=(
        *RATES,
        HIDDENS,
        RECURRENT_SIZE,
        Computed(
            "lambda",
            ("lambda", "use_gae", "vtrace"),
            lambda v: gae_lambda(v) if v["vtrace"] is False else None,
        ),
        Computed(
            "kl_coeff",
            ("kl_coeff", "use_kl_loss"),
            lambda v: v["kl_coeff"] if v["use_kl_loss"] else 0.0,
            "only with use_kl_loss",
        ),
        Computed(
            "minibatch_size",
            ("sgd_minibatch_size", "train_batch_size"),
            lambda v: v["sgd_minibatch_size"] or v["train_batch_size"],
        ),
        Computed("grad_clip", ("grad_clip",), clip_norm),
    ),
    defaults={
        **ASYNC_DEFAULTS,
        "clip_param": 0.4,
        "kl_coeff": 1.0,
        "use_kl_loss": False,
        "num_sgd_iter": 1,
        "lambda": 1.0,
    },
)
