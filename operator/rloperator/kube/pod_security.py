"""How much a pod template may ask for; pure. Who may write one could otherwise do what only pods' owners may."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from rloperator.config import PodTemplates
from rloperator.kube.merge import merge
from rloperator.kube.pods import RESTRICTED
from rloperator.kube.types import Manifest

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def forbidden(template: Manifest, container: str, allowed: PodTemplates, has_account: bool) -> str | None:
    """Say which part of a pod template is not allowed, and why; None where all of it is.

    It is merged over our `container` first: what that has already need not be said again. `has_account` says whether
    the pod has the run's own service account. The template is not malformed.
    """
    if allowed == "allowed" or not template:
        return None
    if allowed == "refused":
        return "podTemplate is refused by the operator's Helm value podTemplates"
    ours = {"securityContext": {"runAsNonRoot": True, "seccompProfile": RESTRICTED["seccompProfile"]},
            "containers": [{"name": container, "securityContext": RESTRICTED}]}  # fmt: skip
    spec = merge({"spec": ours}, template)["spec"]
    found = next(chain(_identity(spec, has_account), _pod(spec), _containers(spec)), None)
    return found and (
        f"podTemplate.spec.{found}, and the operator's Helm value podTemplates is restricted: Pod Security "
        '"restricted" and the run\'s own service account hold'
    )


def _identity(spec: Manifest, has_account: bool) -> Iterator[str]:
    for field in ("serviceAccountName", "serviceAccount"):
        if spec.get(field):
            yield f"{field} names another identity"
    if has_account:
        return
    if spec.get("automountServiceAccountToken"):
        yield "automountServiceAccountToken asks for the token of another identity"
    for volume in spec.get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or []
        if any("serviceAccountToken" in source for source in sources):
            yield f"volumes: {volume['name']} asks for the token of another identity"


def _pod(spec: Manifest) -> Iterator[str]:
    yield from (f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))
    for volume in spec.get("volumes") or []:
        kinds = {key for key, source in volume.items() if source is not None} - {"name"}
        yield from (f"volumes: {volume['name']} is a {kind}" for kind in sorted(kinds - _VOLUMES))
    context = spec.get("securityContext") or {}
    for sysctl in context.get("sysctls") or []:
        if sysctl.get("name") not in _SYSCTLS:
            yield f"securityContext.sysctls sets {sysctl.get('name')}"
    yield from _context(context, "securityContext")
    if context.get("runAsNonRoot") is not True:
        yield "securityContext.runAsNonRoot must be true"
    if "seccompProfile" not in context:
        yield "securityContext.seccompProfile must be RuntimeDefault or Localhost"


def _containers(spec: Manifest) -> Iterator[str]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            place = f"{kind}: {container['name']}: securityContext"
            context = container.get("securityContext") or {}
            yield from _context(context, place)
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{place}.allowPrivilegeEscalation must be false"
            capabilities = context.get("capabilities") or {}
            if "ALL" not in (capabilities.get("drop") or []):
                yield f"{place}.capabilities.drop must have ALL"
            if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
                yield f"{place}.capabilities.add has more than NET_BIND_SERVICE"
            if context.get("privileged"):
                yield f"{place}.privileged is set"
            if context.get("procMount") not in (None, "Default"):
                yield f"{place}.procMount is not Default"
            if any(port.get("hostPort") for port in container.get("ports") or []):
                yield f"{kind}: {container['name']}: ports has a hostPort"


def _context(context: dict[str, Any], place: str) -> Iterator[str]:
    """Faults of a security context, of a pod and of a container alike."""
    if context.get("runAsNonRoot") is False:
        yield f"{place}.runAsNonRoot is false"
    if context.get("runAsUser") == 0:
        yield f"{place}.runAsUser is 0"
    if "seccompProfile" in context and (context["seccompProfile"] or {}).get("type") not in (
        "RuntimeDefault",
        "Localhost",
    ):
        yield f"{place}.seccompProfile must be RuntimeDefault or Localhost"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{place}.appArmorProfile is Unconfined"
    selinux = context.get("seLinuxOptions") or {}
    if (selinux.get("type") or "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{place}.seLinuxOptions has a user, a role, or a type that is no container's"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{place}.windowsOptions.hostProcess is set"
