"""Options checked against the vocabulary, with errors for whoever wrote them."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from rltrainer.api.options.base import Options
from rltrainer.api.options.registry import OPTIONS, VOCABULARY

Keys = tuple[str | int, ...]
"""The keys that lead to a field of a document."""


class OptionError(ValueError):
    """Options that cannot be: a message for whoever wrote each, and the keys that lead to it in a document."""

    def __init__(self, message: str, field: Keys = (), others: Sequence[tuple[str, Keys]] = ()) -> None:
        super().__init__("; ".join([message, *(other for other, _ in others)]))
        self.problems = [(message, field), *others]

    @property
    def field(self) -> Keys:
        """The keys that lead to the first."""
        return self.problems[0][1]


def option_names(options: type[Options]) -> dict[str, str]:
    """Map the names in a document to those of the fields."""
    return {field.alias or name: name for name, field in options.model_fields.items()}


def for_algorithm(run: str) -> type[Options]:
    """Return the options of algorithm `run`; an algorithm of one's own (`module:NAME`) may have any of the vocabulary.

    Raises OptionError for an unknown algorithm.
    """
    if ":" in run:
        return VOCABULARY
    if run not in OPTIONS:
        raise OptionError(
            f'unknown algorithm "{run}".{_absent(run)} Known: {", ".join(sorted(OPTIONS))}, or package.module:NAME',
            ("spec", "run"),
        )
    return OPTIONS[run]


def parse_options(run: str, config: dict[str, Any], where: str = "spec.config") -> Options:
    """Check `config`, options of algorithm `run`.

    Raises OptionError that names the option, where it stands, and the nearest name or the algorithm it belongs to.
    """
    options = for_algorithm(run)
    known, keys = option_names(options), tuple(where.split("."))
    problems: list[tuple[str, Keys]] = [
        (_unknown(run, name, known, where), (*keys, name)) for name in config if name not in known
    ]
    try:
        parsed = options.model_validate({name: value for name, value in config.items() if name in known})
    except ValidationError as error:
        problems += [(describe(each, where, options), (*keys, *each["loc"])) for each in error.errors()]
        raise _all_of(problems) from None
    if problems:
        raise _all_of(problems)
    return parsed


def _all_of(problems: list[tuple[str, Keys]]) -> OptionError:
    message, field = problems[0]
    return OptionError(message, field, problems[1:])


def complaint(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Tell all problems that pydantic has with a `model` at `where`, in one line."""
    return "; ".join(describe(problem, where, model) for problem in error.errors())


def describe(problem: Any, where: str, model: type[BaseModel]) -> str:
    """Tell a problem of pydantic's in one line that begins with the field; of a field that `model` has not, the nearest
    name that it has."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    path = path.removeprefix(".") if where.endswith(" ") else path
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        return f"{where}{path}: there is no such field.{_nearest(str(name), _fields(model, parents))}"
    value = "" if isinstance(problem["input"], dict | list) else f", got {problem['input']!r}"
    return f"{where}{path}: {problem['msg'].removeprefix('Value error, ')}{value}"


def _fields(model: Any, path: Sequence[str | int]) -> list[str]:
    """Return the names of the fields that a document may have at `path` of `model`, as far as they are known."""
    for key in path:
        if isinstance(key, str):
            fields = model.model_fields.items() if model else ()
            annotations = (field.annotation for name, field in fields if key in (name, field.alias))
            model = next((inner for each in annotations for inner in _models(each)), None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _unknown(run: str, name: str, known: dict[str, str], where: str) -> str:
    """Tell that an algorithm has no such option: what it is called here, whose it is, or the nearest name."""
    start = f'{run} has no option "{name}" (in {where}).'
    owners = sorted(other for other, options in OPTIONS.items() if name in option_names(options))
    synonym = next((each for each in SYNONYMS.get(name, ()) if each in known), None)
    if owners:
        return f"{start} It belongs to {', '.join(owners)}" + (f'; {run} has "{synonym}"' if synonym else "")
    near = f' Did you mean "{synonym}"?' if synonym else _nearest(name, known)
    return f"{start}{near} rltrainer describe {run} lists them all"


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "lambda_": ("lambda",),
    "gae_lambda": ("lambda",),
    "clip_param": ("clip",),
    "clip_range": ("clip",),
    "num_sgd_iter": ("epochs",),
    "n_epochs": ("epochs",),
    "sgd_minibatch_size": ("minibatch_size",),
    "batch_size": ("minibatch_size",),
    "n_steps": ("rollout_fragment_length",),
    "train_freq": ("rollout_fragment_length",),
    "n_envs": ("num_envs_per_worker",),
    "num_envs": ("num_envs_per_worker",),
    "ent_coef": ("entropy_coeff", "initial_alpha"),
    "vf_coef": ("vf_coeff",),
    "max_grad_norm": ("grad_clip",),
    "policy_kwargs": ("hiddens",),
    "net_arch": ("hiddens",),
    "activation_fn": ("activation",),
    "device": ("num_gpus",),
    "target_update_interval": ("target_update_freq",),
    "gradient_steps": ("updates_per_step",),
    "exploration_fraction": ("epsilon_schedule",),
    "exploration_initial_eps": ("epsilon_schedule",),
    "exploration_final_eps": ("epsilon_schedule",),
    "action_noise": ("exploration_noise",),
    "normalize": ("normalize_observations",),
}
"""What our options are called in Stable-Baselines3, in rl-zoo3's files and elsewhere; the first that an algorithm has
counts."""
_OFFLINE = "it learns from recorded data, and everything here from an environment: SAC or PPO do that"
ABSENT: Mapping[str, str] = {
    **dict.fromkeys(("TRPO", "PPO2", "MASKABLEPPO", "RECURRENTPPO", "GRPO"), "the nearest is PPO"),
    **dict.fromkeys(("TQC", "CROSSQ", "REDQ", "DROQ", "MPO", "D4PG"), "the nearest is SAC"),
    **dict.fromkeys(("DDQN", "DOUBLEDQN", "DUELINGDQN", "SIMPLEQ"), "the nearest is DQN, which is double and dueling"),
    **dict.fromkeys(("REINFORCE", "VPG"), "the nearest is PG"),
    **dict.fromkeys(("ACER", "ACKTR"), "the nearest is A2C"),
    **dict.fromkeys(("MARWIL", "BC", "CQL", "IQL", "GAIL"), _OFFLINE),
    **dict.fromkeys(
        ("DREAMER", "DREAMERV3", "MUZERO", "MBPO"), "nothing here learns a model: the nearest is SAC or PPO"
    ),
    **dict.fromkeys(("ES", "ARS", "CMAES"), "there are no evolution strategies: the nearest is PPO with num_workers"),
    "APEX": "it is ApexDQN or ApexDDPG",
    "C51": "the nearest is Rainbow, or QRDQN",
    "HER": "no replay here relabels goals: the nearest is SAC, with a reward that leads to the goal",
    "IQN": "the nearest is QRDQN",
    "R2D2": "the nearest is PPO, IMPALA or APPO with recurrent",
}
"""What to use instead of algorithms that are not here, by their names in capitals without signs."""


def _absent(run: str) -> str:
    instead = ABSENT.get(re.sub(r"[^A-Z0-9]", "", run.upper()))
    return f" It is not here; {instead}." if instead else _nearest(run, OPTIONS)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    exact = [k for k in known if near and k.lower() == near[0]]
    return f' Did you mean "{exact[0]}"?' if exact else ""
