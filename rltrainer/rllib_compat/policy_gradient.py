"""The classic RLlib's options of the algorithms that follow the policy gradient."""

from typing import Any

from rltrainer.rllib_compat.common import COMMON, activation
from rltrainer.rllib_compat.rows import (
    Classic,
    Joint,
    Row,
    Values,
    all_dropped,
    constant,
    dropped,
    kept,
    per,
    refused,
    schedule,
)

ROUND = (
    "train_batch_size",
    "rollout_fragment_length",
    "num_workers",
    "num_envs_per_worker",
    "model.use_lstm",
    "model.max_seq_len",
)


def round_of(v: Values) -> tuple[int, int]:
    """Steps of each environment in a round, and environments of a worker: as many steps in all as train_batch_size.

    Where nobody has said how many environments there are, so many that fragments keep their length.
    """
    batch, length = int(v["train_batch_size"]), int(v["rollout_fragment_length"])
    if v.fixed_environments:
        return per(batch, v.workers * v.environments), v.environments
    if v["model.use_lstm"]:
        length = min(length, int(v["model.max_seq_len"]))
    share = per(batch, v.workers)
    environments = max(1, share // length)
    return per(share, environments), environments


def environments_unless_given(v: Values) -> int | None:
    """Environments of a worker, where nobody has said how many."""
    return None if v.fixed_environments else round_of(v)[1]


def clipped_sum(v: Values) -> float:
    """The largest norm of the gradient of a mean, from that of a sum over the batch."""
    return float(v["grad_clip"] or 0.0) / int(v["train_batch_size"])


def clipped_fragment(v: Values) -> float:
    """The largest norm of the gradient of a mean, from that of a sum over one worker's fragment."""
    return float(v["grad_clip"] or 0.0) / (int(v["rollout_fragment_length"]) * v.environments)


def clipped(v: Values) -> float:
    """The largest norm of a gradient; none is 0."""
    return float(v["grad_clip"] or 0.0)


def all_hiddens(v: Values) -> Any:
    """Widths of all hidden layers."""
    return [*v["model.fcnet_hiddens"], *(v["model.post_fcnet_hiddens"] or [])]


def trace(v: Values) -> float | None:
    """GAE's lambda; without GAE returns are whole."""
    return v["lambda"] if v["use_gae"] in (None, True) else 1.0


def finite(limit: Any) -> float | None:
    """A limit, None where there is none."""
    return None if limit is None or limit == float("inf") else float(limit)


def once(value: Any) -> Any:
    """The number of passes over a batch. Raises ValueError for more than one."""
    if value != 1:
        raise ValueError("IMPALA learns from a batch once: run APPO for several passes")
    return value


NETWORK: dict[str, Row] = {
    "model.fcnet_activation": kept("activation", value=activation),
    "model.vf_share_layers": kept("vf_share_layers"),
    "use_critic": refused("A2C and PPO have a critic; PG is the algorithm without one", True),
    "model.use_lstm": kept("recurrent", value=lambda used: "lstm" if used else None),
}
FIXED_RATE = (constant("lr"), schedule("lr"), constant("entropy_coeff"), schedule("entropy_coeff"))
HIDDENS = Joint("hiddens", ("model.fcnet_hiddens", "model.post_fcnet_hiddens"), all_hiddens)
LAMBDA = Joint("lambda", ("lambda", "use_gae"), trace, "without GAE returns are whole, which is lambda 1")
IN_ROUNDS = (
    Joint(
        "rollout_fragment_length",
        ROUND,
        lambda v: round_of(v)[0],
        "a round is train_batch_size steps, over all environments of all workers",
    ),
    Joint(
        "num_envs_per_worker",
        ROUND[:3] + ROUND[4:],
        environments_unless_given,
        "so many that a fragment keeps its length; set num_envs_per_worker for another number",
    ),
)
LSTM = {"model.max_seq_len": 20}
SHARED = {
    "gamma": 0.99,
    "num_envs_per_worker": 1,
    "model.fcnet_hiddens": [256, 256],
    "model.fcnet_activation": "tanh",
}
RECURRENT_SIZE = Joint(
    "recurrent_size",
    ("model.use_lstm", "model.lstm_cell_size"),
    lambda v: v["model.lstm_cell_size"] or (256 if v["model.use_lstm"] else None),
)

PG = Classic(
    "PG",
    rows={
        **COMMON,
        "model.fcnet_activation": kept("activation", value=activation),
        "model.vf_share_layers": dropped("PG has no critic"),
        "model.use_lstm": refused("PG has no memory; A2C, PPO, IMPALA and APPO have", False),
        "use_gae": dropped("PG has no critic"),
    },
    joints=(constant("lr"), schedule("lr"), HIDDENS, *IN_ROUNDS),
    defaults={**SHARED, **LSTM, "lr": 4e-4, "train_batch_size": 200, "rollout_fragment_length": 200},
)

ACTOR_CRITIC = {**COMMON, **NETWORK, "vf_loss_coeff": kept("vf_coeff")}
A2C_DEFAULTS = {
    **SHARED,
    **LSTM,
    "lr": 1e-4,
    "lambda": 1.0,
    "train_batch_size": 200,
    "rollout_fragment_length": 20,
    "grad_clip": 40.0,
    "vf_loss_coeff": 0.5,
    "entropy_coeff": 0.01,
    "model.vf_share_layers": True,
}
A2C = Classic(
    "A2C",
    rows={
        **ACTOR_CRITIC,
        "microbatch_size": dropped("a gradient is that of the whole batch, which is what microbatches add up to"),
    },
    joints=(
        *FIXED_RATE,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        *IN_ROUNDS,
        Joint("grad_clip", ("grad_clip",), clipped_sum, "a loss is a mean here, and a sum over train_batch_size there"),
    ),
    defaults=A2C_DEFAULTS,
)
A3C = Classic(
    "A3C",
    rows={
        **ACTOR_CRITIC,
        "rollout_fragment_length": kept(),
        "train_batch_size": dropped("A3C follows the gradient of each fragment"),
    },
    joints=(
        *FIXED_RATE,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        Joint("grad_clip", ("grad_clip",), clipped_fragment, "a loss is a mean here, and a sum over a fragment there"),
    ),
    defaults={
        **{name: value for name, value in A2C_DEFAULTS.items() if name != "train_batch_size"},
        "rollout_fragment_length": 10,
    },
)

SURROGATE: dict[str, Row] = {
    "clip_param": kept("clip"),
    "num_sgd_iter": kept("epochs"),
    "kl_target": kept(),
}
PPO = Classic(
    "PPO",
    rows={
        **ACTOR_CRITIC,
        **SURROGATE,
        "kl_coeff": kept(),
        "vf_loss_coeff": kept("vf_coeff", "the value loss is half the squared error here", lambda c: 2 * c),
        "vf_clip_param": kept("vf_clip", "the largest change of a value in one update", finite),
        "sgd_minibatch_size": kept("minibatch_size"),
        "use_kl_loss": dropped("kl_coeff: 0 is none", True),
    },
    joints=(
        *FIXED_RATE,
        HIDDENS,
        LAMBDA,
        RECURRENT_SIZE,
        *IN_ROUNDS,
        Joint("grad_clip", ("grad_clip",), clipped),
    ),
    defaults={
        **SHARED,
        **LSTM,
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
)

QUEUE: dict[str, Row] = {
    "rollout_fragment_length": kept(),
    "train_batch_size": kept(),
    "max_sample_requests_in_flight_per_worker": kept("requests_in_flight"),
    "vtrace_clip_rho_threshold": kept("vtrace_clip_rho"),
    "vtrace_clip_pg_rho_threshold": dropped("vtrace_clip_rho clips both ratios", 1.0),
    "vtrace": dropped("advantages are V-trace's, which of fresh samples are GAE's", True),
    "replay_proportion": refused("fragments are not replayed", 0, 0.0),
    "opt_type": dropped("the optimiser is Adam", "adam"),
    "vtrace_drop_last_ts": dropped("no step is dropped"),
    **all_dropped("a batch is learnt from when it comes", "minibatch_buffer_size", "replay_buffer_num_slots"),
    **all_dropped("requests_in_flight says how much may wait", "learner_queue_size", "learner_queue_timeout"),
    **all_dropped("weights are sent once for all workers", "broadcast_interval", "num_aggregation_workers"),
    **all_dropped("they belong to RMSprop, and the optimiser is Adam", "decay", "momentum", "epsilon"),
}
QUEUE_DEFAULTS = {
    **SHARED,
    "lr": 5e-4,
    "train_batch_size": 500,
    "rollout_fragment_length": 50,
    "grad_clip": 40.0,
    "vf_loss_coeff": 0.5,
    "entropy_coeff": 0.01,
    "model.vf_share_layers": True,
}
IMPALA = Classic(
    "IMPALA",
    rows={**ACTOR_CRITIC, **QUEUE, "num_sgd_iter": Row("dropped", value=once, harmless=(1,))},
    joints=(
        *FIXED_RATE,
        HIDDENS,
        RECURRENT_SIZE,
        Joint("grad_clip", ("grad_clip",), clipped_sum, "a loss is a mean here, and a sum over train_batch_size there"),
    ),
    defaults=QUEUE_DEFAULTS,
)
APPO = Classic(
    "APPO",
    rows={
        **ACTOR_CRITIC,
        **QUEUE,
        **SURROGATE,
        "use_critic": refused("APPO has a critic", True),
        "target_update_frequency": kept("target_update_freq"),
    },
    joints=(
        *FIXED_RATE,
        HIDDENS,
        RECURRENT_SIZE,
        Joint(
            "lambda",
            ("lambda", "use_gae", "vtrace"),
            lambda v: trace(v) if v["vtrace"] is False else None,
        ),
        Joint(
            "kl_coeff",
            ("kl_coeff", "use_kl_loss"),
            lambda v: v["kl_coeff"] if v["use_kl_loss"] else 0.0,
            "only with use_kl_loss",
        ),
        Joint(
            "minibatch_size",
            ("sgd_minibatch_size", "train_batch_size"),
            lambda v: v["sgd_minibatch_size"] or v["train_batch_size"],
        ),
        Joint("grad_clip", ("grad_clip",), clipped),
    ),
    defaults={
        **QUEUE_DEFAULTS,
        "clip_param": 0.4,
        "kl_coeff": 1.0,
        "use_kl_loss": False,
        "num_sgd_iter": 1,
        "lambda": 1.0,
    },
)
