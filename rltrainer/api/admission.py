"""The policies by which the API server refuses a document with a field that there is not, generated from the CRDs.

The API server leaves out, without a word, what a CRD's schema does not name, unless the client asks to be told: an
experiment with `num_wrokers` would train without it. So our CRDs keep every field of a spec, and these policies refuse
what is none. Where they are not installed, the operator finds the field that was kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rltrainer.api.base import GROUP, PLURAL, VERSION
from rltrainer.api.crd import Schema, crds

_API = "admissionregistration.k8s.io/v1"


@dataclass(frozen=True)
class _Place:
    """An object of a spec whose fields are known, or each object of a list or map of them."""

    path: str
    """Its fields from the spec on, as `kubectl explain` takes them."""
    many: str
    """What it is part of: "", "list" or "map"."""
    fields: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The name of the variable with the fields that it should not have."""
        return self.path.replace(".", "_")

    @property
    def unknown(self) -> str:
        """A CEL expression: the fields that it should not have; of many objects, one of each that has such."""
        at = f"object.{self.path}"
        is_unknown = f"!(name in {list(self.fields)})"
        found = f"{at}.filter(name, {is_unknown})"
        if self.many == "list":
            bad = f"{at}.filter(one, one.exists(name, {is_unknown}))"
            found = f"{bad}.map(one, one.filter(name, {is_unknown})[0])"
        if self.many == "map":
            bad = f"{at}.filter(key, {at}[key].exists(name, {is_unknown}))"
            found = f"{bad}.map(key, key + '.' + {at}[key].filter(name, {is_unknown})[0])"
        parts = self.path.split(".")
        guard = " && ".join(f"has(object.{'.'.join(parts[:n])})" for n in range(2, len(parts) + 1))
        return f"{guard} ? {found} : []" if guard else found


def _places(schema: Schema, path: str) -> Iterator[_Place]:
    """Yield every object below a schema whose fields are known. Raises ValueError for lists within lists."""
    if "properties" in schema:
        yield _Place(path, "", tuple(schema["properties"]))
    for name, field in schema.get("properties", {}).items():
        yield from _places(field, f"{path}.{name}")
    for key, many in (("items", "list"), ("additionalProperties", "map")):
        inner = schema.get(key)
        if isinstance(inner, dict) and "properties" in inner:
            yield _Place(path, many, tuple(inner["properties"]))
            if len(list(_places(inner, path))) > 1:
                raise ValueError(f"{path}: an object within an object of a {many} is not looked into")


def _policy(kind: str, spec: Schema) -> Schema:
    plural, places = PLURAL[kind], list(_places(spec, "spec"))
    resources = {"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": [plural]}
    return {
        "apiVersion": _API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [resources | {"operations": ["CREATE", "UPDATE"]}]},
            # What is there may still be labeled, and let go.
            "matchConditions": [
                {"name": "new-spec", "expression": "oldObject == null || object.spec != oldObject.spec"}
            ],
            "variables": [{"name": place.variable, "expression": place.unknown} for place in places],
            "validations": [
                {
                    "expression": f"variables.{place.variable}.size() == 0",
                    "messageExpression": f"'{place.path} has no field ' + variables.{place.variable}.join(', ')"
                    f" + ': kubectl explain {plural}.{place.path} lists those that there are'",
                }
                for place in places
            ],
        },
    }


def _binding(name: str) -> Schema:
    spec = {"policyName": name, "validationActions": ["Deny"]}
    return {"apiVersion": _API, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": spec}


def policies() -> list[Schema]:
    """Return a ValidatingAdmissionPolicy for each of our kinds, and its binding."""
    manifests = []
    for crd in crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        policy = _policy(crd["spec"]["names"]["kind"], schema["properties"]["spec"])
        manifests += [policy, _binding(policy["metadata"]["name"])]
    return manifests
