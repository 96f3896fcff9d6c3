"""What the parts of our documents have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

OPEN: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
"""Marks an object whose fields are not ours to know."""

EVALUATED = "evaluation/episode_reward_mean"
"""What an evaluation is judged by: one name in result.json's flat form, in TensorBoard, and in the document."""


def rules(*pairs: tuple[str, str]) -> JsonDict:
    """CEL rules that the API server evaluates, as (expression, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


class Model(BaseModel):
    """A part of a document: camelCase in YAML, no unknown fields, never changed once read."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True)
