"""The CustomResourceDefinitions, generated from the pydantic models of this folder.

The API server accepts only structural schemas: no $ref, one type a field, `nullable` instead of a null type, and
exclusive bounds as booleans. `structural` turns what pydantic writes into that.
"""

from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel

from rltrainer.api.base import EVALUATED, GROUP, INT64_MAX, MAX_NAME, OPEN, PLURAL, VERSION
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OPTIONS, TASKS, option_names
from rltrainer.api.rollout import RolloutSpec
from rltrainer.api.status import ExperimentStatus, RolloutStatus

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
)

_NAME_RULE = {
    "rule": f"size(self.metadata.name) <= {MAX_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "message": "metadata.name must begin with a letter, hold only lower-case letters, digits and -, end with a letter "
    f"or digit, and have at most {MAX_NAME} characters, so that the names made from it fit KubeRay's limits",
}


def _fixed(field: str, expression: str) -> dict[str, str]:
    """Return the rule that `expression` (over `self`) stays as it is once a checkpoint exists."""
    before = expression.replace("self.", "oldSelf.")
    return {
        "rule": "!has(oldSelf.status) || !has(oldSelf.status.training) || !has(oldSelf.status.training.checkpoint)"
        f" || ({expression}) == ({before})",
        "message": f"{field} cannot change once the experiment has a checkpoint: write a new experiment, "
        "with restoreFrom.experiment to go on from this one",
    }


def _evaluated(field: str, expression: str) -> dict[str, str]:
    """Return the rule that an experiment for which `expression` holds is evaluated."""
    return {
        "rule": f"has(self.spec.evaluation) || !({expression})",
        "message": f"{field} of an evaluation needs spec.evaluation, which is not set: evaluation: {{}} is enough",
    }


_EXPERIMENT_RULES = [
    _NAME_RULE,
    _fixed("spec.run", "self.spec.run"),
    _fixed("spec.env", "self.spec.env"),
    _fixed("spec.storage.uri", "has(self.spec.storage) ? self.spec.storage.uri : ''"),
    _fixed("whether spec.tune is set", "has(self.spec.tune)"),
    _evaluated(
        "spec.stop.evaluation/episode_reward_mean",
        "has(self.spec.stop) && has(self.spec.stop.evaluation__slash__episode_reward_mean)",
    ),
    _evaluated("spec.checkpoint.scoreAttribute", f"self.spec.checkpoint.scoreAttribute.endsWith('{EVALUATED}')"),
    _evaluated("spec.tune.metric", f"has(self.spec.tune) && self.spec.tune.metric == '{EVALUATED}'"),
    {
        "rule": f"!has(self.spec.evaluation) || !self.spec.checkpoint.scoreAttribute.endsWith('{EVALUATED}')"
        " || self.spec.checkpoint.frequency % self.spec.evaluation.interval == 0",
        "message": "spec.checkpoint.frequency must be a multiple of spec.evaluation.interval where "
        f"spec.checkpoint.scoreAttribute ranks checkpoints by {EVALUATED}",
    },
]


def _column(name: str, path: str, kind: str = "string", wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})


_EXPERIMENT_COLUMNS = [
    _column("ALGORITHM", ".spec.run"),
    _column("ENV", ".spec.env"),
    _column("PHASE", ".status.phase"),
    _column("ITERATION", ".status.training.iteration", "integer"),
    _column("TIMESTEPS", ".status.training.timestepsTotal", "integer"),
    _column("PERCENT", ".status.training.progressPercentage", "integer"),
    _column("REWARD", ".status.training.reward"),
    _column("ATTEMPT", ".status.attempt", "integer"),
    _column("AGE", ".metadata.creationTimestamp", "date"),
    _column("BEST", ".status.training.bestReward", "number", wide=True),
    _column("EVALUATION", ".status.training.evaluation.episodeRewardMean", "number", wide=True),
    _column("SECONDS LEFT", ".status.training.estimatedRemainingSeconds", "integer", wide=True),
    _column("TRIALS", ".status.training.trials.done", wide=True),
    _column("BEST TRIAL", ".status.best.trial", wide=True),
    _column("CHECKPOINT", ".status.training.checkpoint.uri", wide=True),
    _column("CLUSTER", ".status.cluster", wide=True),
    _column("MESSAGE", ".status.message", wide=True),
]

_ROLLOUT_COLUMNS = [
    _column("EXPERIMENT", ".spec.experiment"),
    _column("PHASE", ".status.phase"),
    _column("EPISODES", ".status.results.episodes", "integer"),
    _column("REWARD", ".status.results.reward"),
    _column("AGE", ".metadata.creationTimestamp", "date"),
    _column("CHECKPOINT", ".status.checkpoint", wide=True),
    _column("MESSAGE", ".status.message", wide=True),
]


def structural(schema: Schema, defs: Schema, defaults: bool = True) -> Schema:
    """Turn `schema`, as pydantic writes it, into a structural schema; `defaults` keeps the default values.

    Raises ValueError for a field that is unset by null and has a default: `kubectl apply` drops every null.
    """
    schema = _resolved(schema, defs)
    if schema.get("x-kubernetes-int-or-string"):
        return {key: schema[key] for key in ("description", "pattern", "default") if key in schema} | _INT_OR_STRING
    result: Schema = {key: schema[key] for key in _KEPT if key in schema}
    result |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "const" in schema:
        result |= {"enum": [schema["const"]]}
    if "type" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        raise ValueError(f"{schema.get('title')}: a value of any type has to say so, by OPEN")
    if schema.get("type") == "integer":
        result["format"] = "int64"
        if result.get("maximum") == INT64_MAX:
            del result["maximum"]  # bounds are float64 in the API server, which cannot hold this one
    _exclusive_bounds(schema, result)
    if defaults and schema.get("default") is not None:
        result["default"] = schema["default"]
    if "items" in schema:
        result["items"] = structural(schema["items"], defs, defaults)
    if schema.get("type") == "object":
        result |= _object(schema, defs, defaults)
    return result


_INT_OR_STRING: Schema = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def _resolved(schema: Schema, defs: Schema) -> Schema:
    """`schema` without $ref and without the null alternative."""
    if "$ref" in schema:
        target = defs[schema["$ref"].rsplit("/", 1)[1]]
        return _resolved(target | {key: value for key, value in schema.items() if key != "$ref"}, defs)
    if "anyOf" not in schema:
        return schema
    if schema.get("default") is not None:
        raise ValueError(f"{schema.get('title')}: give it a value that means unset, `kubectl apply` drops every null")
    (kept,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
    return _resolved(kept, defs) | {key: value for key, value in schema.items() if key != "anyOf"}


def _exclusive_bounds(schema: Schema, result: Schema) -> None:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema:
            result |= {bound: schema[exclusive], exclusive: True}


def _object(schema: Schema, defs: Schema, defaults: bool) -> Schema:
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties") is True:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if isinstance(schema.get("additionalProperties"), dict):
        return {"additionalProperties": structural(schema["additionalProperties"], defs, defaults)}
    required = schema.get("required", [])
    properties = {}
    for name, field in schema["properties"].items():
        properties[name] = structural(field, defs, defaults)
        # An absent object gets the defaults of its fields, unless its absence means something.
        if defaults and name not in required and "default" not in field and _has_defaults(properties[name]):
            properties[name]["default"] = {}
    return {"properties": properties} | ({"required": required} if required else {})


def _has_defaults(schema: Schema) -> bool:
    return any("default" in field for field in schema.get("properties", {}).values())


def model_schema(model: type[BaseModel], defaults: bool = True) -> Schema:
    """Return the structural schema of a model, described by its docstring."""
    raw = model.model_json_schema(by_alias=True)
    return structural(raw, raw.get("$defs", {}), defaults)


def options_schema() -> Schema:
    """Return the union of all algorithms' options. Raises ValueError where two algorithms give one option two types."""
    raw = {run: options.model_json_schema(by_alias=True) for run, options in sorted(OPTIONS.items())}
    properties: Schema = {}
    for name in sorted({name for schema in raw.values() for name in schema["properties"]}):
        fields = {run: s["properties"][name] for run, s in raw.items() if name in s["properties"]}
        properties[name] = _option(name, fields, raw)
    return {"type": "object", "properties": properties}


def _option(name: str, fields: dict[str, Schema], raw: dict[str, Schema]) -> Schema:
    first, *others = [structural(field, raw[run].get("$defs", {}), defaults=False) for run, field in fields.items()]
    if any(other != first for other in others):
        raise ValueError(f'option "{name}" has not the same type, bounds and description in {", ".join(fields)}')
    return first | {"description": _description(name, first["description"], fields)}


def _description(name: str, description: str, fields: dict[str, Schema]) -> str:
    """Return the option's description, with the algorithms that have it and its default, by the kind of task."""
    owners = "" if len(fields) == len(OPTIONS) else f" Of {', '.join(fields)}."
    defaults = {run: field.get("default") for run, field in fields.items()}
    general = "" if set(map(_plain, defaults.values())) == {"unset"} else f" Default: {_by_value(defaults, fields)}."
    return description + owners + general + "".join(_by_task(name, fields))


def _by_task(name: str, fields: dict[str, Schema]) -> Iterator[str]:
    """Yield a sentence for each kind of task that has other defaults of the option `name`."""
    for task, words in TASKS.items():
        values = {run: OPTIONS[run].by_task.get(task, {}) for run in fields}
        names = {run: option_names(OPTIONS[run])[name] for run in fields}
        changed = {run: each[names[run]] for run, each in values.items() if names[run] in each}
        if changed:
            yield f" With {words}: {_by_value(changed, fields)}."


def _by_value(values: dict[str, Any], owners: Collection[str]) -> str:
    """Tell the values of algorithms, each with those that have it, unless all `owners` have the same."""
    runs: dict[str, list[str]] = {}
    for run, value in values.items():
        runs.setdefault(_plain(value), []).append(run)
    is_shared = len(runs) == 1 and len(values) == len(owners)
    return "; ".join(value if is_shared else f"{value} ({', '.join(each)})" for value, each in runs.items())


def _plain(value: Any) -> str:
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _crd(kind: str, short: str, schema: Schema, columns: list[Schema]) -> Schema:
    plural = PLURAL[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["rl"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _keeping_unknown(schema: Schema) -> Schema:
    """Mark each object in a spec so that the API server keeps what is no field of it: it is refused, and not left out
    without a word. See admission.py."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _keeping_unknown(field) for name, field in schema["properties"].items()}
        result |= OPEN
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _keeping_unknown(schema[key])
    return result


def _root(description: str, spec: Schema, status: Schema, rules: list[dict[str, str]]) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _keeping_unknown(spec),
            "status": status,
        },
        "x-kubernetes-validations": rules,
    }


def experiment_crd() -> Schema:
    """Return the CustomResourceDefinition of RLExperiment."""
    spec = model_schema(ExperimentSpec)
    spec["properties"]["config"] = options_schema() | {"description": spec["properties"]["config"]["description"]}
    status = model_schema(ExperimentStatus, defaults=False)
    root = _root(
        "A reinforcement-learning experiment: what to train, on what, until when.", spec, status, _EXPERIMENT_RULES
    )
    return _crd("RLExperiment", "rlx", root, _EXPERIMENT_COLUMNS)


def rollout_crd() -> Schema:
    """Return the CustomResourceDefinition of RLRollout."""
    status = model_schema(RolloutStatus, defaults=False)
    root = _root("A trained policy, run for some episodes.", model_schema(RolloutSpec), status, [_NAME_RULE])
    return _crd("RLRollout", "rlr", root, _ROLLOUT_COLUMNS)


def crds() -> dict[str, Schema]:
    """Return every CustomResourceDefinition, by the name of its file."""
    return {f"{crd['spec']['names']['plural']}.yaml": crd for crd in (experiment_crd(), rollout_crd())}
