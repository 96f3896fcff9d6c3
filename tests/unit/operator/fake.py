"""An API server in memory, with KubeRay and the garbage collector behind it, where the operator dies on demand."""

import copy
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from rloperator.kube import names
from rloperator.kube.client import ConflictError, KubeClient
from rloperator.kube.types import Event, Manifest, format_time

from tests.unit.operator.builders import NOW, READY, made_by


class CrashError(BaseException):
    """The operator dies here. No handler of the operator may catch it."""


class FakeCluster(KubeClient):
    """Holds objects by kind and name. Writes count; after those numbered in `deadly` the operator dies."""

    def __init__(self, deadly: frozenset[int] = frozenset()) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.events: dict[str, tuple[str, str]] = {}
        self.writes = 0
        self.deadly = deadly
        self.now = NOW
        self.made: list[str] = []
        self._serial = 0

    def clock(self) -> datetime:
        return self.now

    def _wrote(self) -> None:
        self.writes += 1
        if self.writes in self.deadly:
            raise CrashError

    def put(self, manifest: Manifest) -> Manifest:
        """As the API server stores it."""
        self._serial += 1
        key = (manifest["kind"], manifest["metadata"]["name"])
        metadata = {"uid": f"uid-{self._serial}", "creationTimestamp": format_time(self.now)} | manifest["metadata"]
        stored = copy.deepcopy(manifest) | {"metadata": metadata | {"resourceVersion": str(self._serial)}}
        self.objects[key] = stored
        return stored

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(
        self, api_version: str, kind: str, namespace: str | None, selector: str = "", fields: str = ""
    ) -> Iterator[Manifest]:
        label, _, value = selector.partition("=")
        for (item_kind, _), item in sorted(self.objects.items()):
            about = f"involvedObject.uid={item.get('involvedObject', {}).get('uid')},"
            is_labeled = item["metadata"].get("labels", {}).get(label) == value
            if item_kind == kind and (about in fields if fields else is_labeled):
                yield copy.deepcopy(item)

    def refusal(self, manifest: Manifest) -> str | None:
        return None

    def apply(self, manifest: Manifest, always: bool = False) -> None:
        self._owned(manifest)
        old = self.objects.get((manifest["kind"], manifest["metadata"]["name"]), {"metadata": {}})
        kept = {key: old["metadata"][key] for key in ("uid", "creationTimestamp") if key in old["metadata"]}
        version = {"resourceVersion": old["metadata"].get("resourceVersion")}
        if old == manifest | {"metadata": manifest["metadata"] | kept | version}:
            return  # it is so already: nothing is written
        self.put(manifest | {"metadata": manifest["metadata"] | kept})
        self._wrote()

    def create(self, manifest: Manifest) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key not in self.objects:
            left = [name for kind, name in self.objects if kind in ("RayJob", "RayCluster", "Pod")]
            assert not left, f"{key[1]} is made while {left} are still there: two trainers could write at once"
            assert key[1] not in self.made, f"{key[1]} is made a second time"
            self.made.append(key[1])
            self.put(manifest)
        self._wrote()

    def patch(self, target: Manifest, operations: tuple[Manifest, ...]) -> None:
        item = self.objects[target["kind"], target["metadata"]["name"]]
        for operation in operations:
            if operation["op"] == "add":
                _add(item, operation["path"].strip("/").split("/"), operation["value"])
        self._wrote()

    def delete(self, target: Manifest) -> None:
        item = self.objects.get((target["kind"], target["metadata"]["name"]))
        if item and item["metadata"]["uid"] == target["metadata"]["uid"]:
            item["metadata"]["deletionTimestamp"] = format_time(self.now)
        self._wrote()

    def apply_status(self, read: Manifest, status: Manifest) -> None:
        item = self.objects[read["kind"], read["metadata"]["name"]]
        if item["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]:
            raise ConflictError(409, "changed")
        theirs = {key: value for key, value in item["status"].items() if key in ("training", "results")}
        self.put(item | {"status": copy.deepcopy(status) | theirs})
        self._wrote()

    def record_event(self, about: Manifest, event: Event) -> None:
        self.events.setdefault(f"{event.reason} {event.dedup_key}", (event.reason, event.message))
        self._wrote()

    def state(self) -> tuple[int, int, int]:
        """Another one after every write and every disappearance."""
        return self._serial, self.writes, len(self.objects)

    # ---- The world outside the operator ---------------------------------------------------------------------------

    def tick(self) -> None:
        """KubeRay and the garbage collector get one step further, and six seconds pass."""
        self.now += timedelta(seconds=6)
        for item in list(self.objects.values()):
            if item["kind"] == "RayJob":
                self._rayjob(item)
        jobs = {item["metadata"]["name"] for item in self.objects.values() if item["kind"] == "RayJob"}
        for key, item in list(self.objects.items()):
            if item["kind"] in ("Pod", "RayCluster") and item["metadata"]["job"] not in jobs:
                self._fade(key, item)

    def _rayjob(self, job: Manifest) -> None:
        name = job["metadata"]["name"]
        if "deletionTimestamp" in job["metadata"]:
            del self.objects["RayJob", name]
        elif "status" not in job:
            cluster = f"{name}-xyz"
            job["status"] = {"jobDeploymentStatus": "Initializing", "rayClusterName": cluster}
            labels = dict(job["metadata"]["labels"])
            made = made_by("RayJob", name, job["metadata"]["uid"])
            containers = [{"name": names.HEAD_CONTAINER}, {"name": names.SUBMITTER_CONTAINER, "env": []}]
            spec = {"headGroupSpec": {"template": {"spec": {"containers": containers}}}, "workerGroupSpecs": []}
            child = {
                "metadata": {
                    "name": cluster,
                    "namespace": "team",
                    "labels": labels,
                    "job": name,
                    "ownerReferences": made,
                }
            }
            self.put({"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": spec, **copy.deepcopy(child)})
            child["metadata"]["labels"]["ray.io/node-type"] = "head"
            self.put({"apiVersion": "v1", "kind": "Pod", "status": {}, **child})

    def _fade(self, key: tuple[str, str], item: Manifest) -> None:
        """A pod takes two steps to go, as with a grace period."""
        if item["kind"] == "RayCluster" or "deletionTimestamp" in item["metadata"]:
            del self.objects[key]
        else:
            item["metadata"]["deletionTimestamp"] = format_time(self.now)

    def report(self, name: str, **training: Any) -> None:
        """The trainer reports."""
        item = self.objects["RLExperiment", name]
        old = item["status"].get("training", {})
        self.put(item | {"status": item["status"] | {"training": old | training}})

    def edit(self, name: str, **spec: Any) -> None:
        """A person edits the document."""
        item = self.objects["RLExperiment", name]
        item["metadata"]["generation"] += 1
        self.put(item | {"spec": item["spec"] | spec})

    def set_job(self, name: str, **state: Any) -> None:
        """KubeRay says how a job stands."""
        self.objects["RayJob", name]["status"].update(state)
        for item in self.objects.values():
            if item["kind"] == "Pod" and item["metadata"]["job"] == name and state.get("jobStatus") == "RUNNING":
                item["status"] = copy.deepcopy(READY)


def _add(item: Any, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        item = item[int(part)] if isinstance(item, list) else item[part]
    if isinstance(item, list):
        item.append(value)
    else:
        item[path[-1]] = value
