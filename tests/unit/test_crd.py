"""The CRDs: structural, complete, and fresh."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from rltrainer.api import crd as crd_module
from rltrainer.api.admission import policies
from rltrainer.api.base import OPEN
from rltrainer.api.crd import crds, experiment_crd, model_schema, options_schema
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import OPTIONS, Options, option_names
from rltrainer.api.status import ExperimentStatus
from rltrainer.api.tune import KINDS

ROOT = Path(__file__).parents[2]
KEPT = "x-kubernetes-preserve-unknown-fields"


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def root(crd: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("name", sorted(crds()))
def test_every_node_is_structural(name: str) -> None:
    for path, node in nodes(root(crds()[name])):
        assert not {"$ref", "oneOf", "allOf", "const", "title"} & node.keys(), path
        if node.get("x-kubernetes-int-or-string") or node == {"x-kubernetes-preserve-unknown-fields": True}:
            continue
        assert isinstance(node["type"], str), path
        assert "anyOf" not in node, path
        assert node.get("additionalProperties") not in (True, False), path
        assert isinstance(node.get("exclusiveMinimum", True), bool), path


@pytest.mark.parametrize("name", sorted(crds()))
def test_every_field_of_spec_and_status_is_described(name: str) -> None:
    for section in ("spec", "status"):
        for path, node in nodes(root(crds()[name])["properties"][section], section):
            assert path.endswith("[]") or node.get("description"), path


@pytest.mark.parametrize("name", sorted(crds()))
def test_it_fits_an_annotation(name: str) -> None:
    """Client-side apply keeps a copy in an annotation, and all annotations together have 256 KiB."""
    assert len(json.dumps(crds()[name])) < 100 * 1024


def test_what_is_no_field_of_a_spec_is_kept_and_refused_by_a_policy() -> None:
    for crd, policy in zip(crds().values(), policies()[::2], strict=True):
        known = {path: node for path, node in nodes(root(crd)["properties"]["spec"], "spec") if "properties" in node}
        assert all(node[KEPT] is True for node in known.values())
        variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
        assert variables.keys() == {path.removesuffix("[]").replace(".", "_") for path in known}
        for path, node in known.items():
            expression = variables[path.removesuffix("[]").replace(".", "_")]
            assert all(f"'{name}'" in expression for name in node["properties"]), path


def test_every_default_is_one_that_the_model_has() -> None:
    spec = root(experiment_crd())["properties"]["spec"]
    minimal = {"run": "PPO", "env": "CartPole-v1"}
    model = ExperimentSpec.model_validate(minimal).model_dump(by_alias=True, mode="json")

    def defaulted(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        """As the API server fills in defaults."""
        result = dict(value)
        for name, field in schema["properties"].items():
            if name not in result and "default" in field:
                result[name] = field["default"]
            if isinstance(result.get(name), dict) and "properties" in field:
                result[name] = defaulted(field, result[name])
        return result

    filled = defaulted(spec, minimal)
    assert filled["checkpoint"] == model["checkpoint"]
    assert filled["cluster"]["head"]["cpu"] == model["cluster"]["head"]["cpu"]
    assert ExperimentSpec.model_validate(filled) == ExperimentSpec.model_validate(minimal)


def test_a_status_has_no_defaults() -> None:
    """Else the API server writes fields that the trainer or the operator has not."""
    assert not [path for path, node in nodes(model_schema(ExperimentStatus, defaults=False)) if "default" in node]


def test_config_is_the_union_of_all_options() -> None:
    names = {name for options in OPTIONS.values() for name in option_names(options)}
    properties = options_schema()["properties"]
    assert set(properties) == names
    assert "Default: 0.0007 (A2C, A3C); 0.0005 (" in properties["lr"]["description"]
    assert "Of APPO, PPO. Default: 0.2." in properties["clip"]["description"]
    assert properties["lr"]["exclusiveMinimum"] is True
    assert properties["custom"]["x-kubernetes-preserve-unknown-fields"] is True


def test_an_option_that_means_two_things_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Options):
        clip: int = Field(3, description="Another thing.")

    monkeypatch.setattr(crd_module, "OPTIONS", OPTIONS | {"ODD": Odd})
    with pytest.raises(ValueError, match='option "clip" has not the same type'):
        options_schema()


def test_a_default_that_only_null_could_unset_is_refused() -> None:
    class Nullable(BaseModel):
        limit: int | None = Field(3, description="A limit.")

    with pytest.raises(ValueError, match="drops every null"):
        model_schema(Nullable)


def test_a_value_of_any_type_has_to_say_so() -> None:
    class Anything(BaseModel):
        values: list[Any] = Field(description="Values.")

    class Said(BaseModel):
        values: list[Any] = Field(description="Values.", json_schema_extra={"items": OPEN})

    with pytest.raises(ValueError, match="by OPEN"):
        model_schema(Anything)
    assert model_schema(Said)["properties"]["values"]["items"] == OPEN


def test_the_space_of_a_search_is_a_bounded_map_of_domains_with_one_field_each() -> None:
    """Bounds are what keeps the cost of its rules within what an API server allows."""
    space = root(experiment_crd())["properties"]["spec"]["properties"]["tune"]["properties"]["space"]
    assert space["maxProperties"] == len({name for options in OPTIONS.values() for name in option_names(options)})
    domain = space["additionalProperties"]
    assert tuple(domain["properties"]) == KINDS
    assert domain["minProperties"] == domain["maxProperties"] == 1
    assert all("maxItems" in field for field in domain["properties"].values())


def columns(crd: dict[str, Any]) -> tuple[list[str], list[str]]:
    listed = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    return [c["name"] for c in listed if "priority" not in c], [c["name"] for c in listed if c.get("priority") == 1]


def test_columns() -> None:
    assert columns(experiment_crd()) == (
        ["ALGORITHM", "ENV", "PHASE", "ITERATION", "TIMESTEPS", "PERCENT", "REWARD", "ATTEMPT", "AGE"],
        ["BEST", "EVALUATION", "SECONDS LEFT", "TRIALS", "BEST TRIAL", "CHECKPOINT", "CLUSTER", "MESSAGE"],
    )
    assert columns(crd_module.rollout_crd()) == (
        ["EXPERIMENT", "PHASE", "EPISODES", "REWARD", "AGE"], ["CHECKPOINT", "MESSAGE"]
    )  # fmt: skip


def test_every_column_leads_to_a_field() -> None:
    for crd in crds().values():
        paths = {path for path, _ in nodes(root(crd))}
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]:
            assert column["jsonPath"] in paths | {".metadata.creationTimestamp"}, column


def test_the_generated_files_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "hack" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, crd in crds().items():
        assert yaml.safe_load((ROOT / "crds" / name).read_text()) == crd
    assert list(yaml.safe_load_all((ROOT / "crds" / "policies.yaml").read_text())) == policies()
