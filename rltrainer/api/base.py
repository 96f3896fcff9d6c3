"""What the parts of our documents have in common."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

GROUP = "rltrainer.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURAL = {"RLExperiment": "rlexperiments", "RLRollout": "rlrollouts"}
"""The name of each kind in URLs, rights and CRDs."""
MAX_NAME = 40
"""Characters of an experiment's name. KubeRay allows a RayJob 47, and attempt N is named `<name>-a<N>`."""
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else value),
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
        max_length=32,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
]
"""An amount as Kubernetes writes it: 4, "500m", 16Gi."""
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=MAX_NAME)]


def without_parents(uri: str) -> str:
    """Return `uri`. Raises ValueError where a part of it is `..`, which stores read in ways of their own."""
    if ".." in uri.split("/"):
        raise ValueError("no part of it may be ..: name the folder itself")
    return uri


S3Uri = Annotated[
    str,
    Field(pattern=r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/.*)?$", max_length=1024),
    AfterValidator(without_parents),
]
"""A folder in a bucket. Empty parts and `.` in it are left out where a key is made of it: see storage/paths."""
MAX_TEXT = 4096
"""Characters of a text in a status."""
Text = Annotated[str, Field(max_length=MAX_TEXT)]
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
Natural = Annotated[int, Field(ge=0, le=INT64_MAX)]
Deadline = Annotated[int, Field(ge=1, le=INT32_MAX)]
Seconds32 = Annotated[int, Field(ge=0, le=INT32_MAX)]
"""Seconds in a field of somebody's that has 32 bits."""

OPEN: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
"""Mark of an object whose fields are not ours to know."""

REWARD_WINDOW = 100
"""Episodes that the mean return of training is taken over."""
EVALUATED = "evaluation/episode_reward_mean"
"""The metric of an evaluation: one name in result.json's flat form, in TensorBoard, and in the document."""


def rules(*pairs: tuple[str, str]) -> JsonDict:
    """Mark a schema with CEL rules that the API server evaluates, as (expression, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


class Model(BaseModel):
    """A part of a document: camelCase in YAML, no unknown fields, never changed once read."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True)


class Metadata(BaseModel):
    """Name and place of a document. What else Kubernetes keeps there is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name = Field(description="Name of the experiment.")
    namespace: str | None = Field(None, description="Namespace in a cluster.")
    uid: str | None = Field(None, description="Set by the API server.")


class DocumentError(ValueError):
    """A document that cannot be run, with a message for whoever wrote it."""
