"""The Go programs, built from source once for each content of their inputs."""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.console import Failure, run, step
from hack.cluster.paths import LOGS, PROGRAMS, SOURCES, program

KUBERNETES = "v1.34.4"
KUBERAY = "v1.6.2"

_VERSION = "k8s.io/component-base/version"
_LINK = f"-s -w -X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34"
_FLAGS = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True)
class Program:
    """One binary. `module` is a folder under go/; without one, `package` is fetched at `version`."""

    name: str
    package: str
    module: str = ""
    version: str = ""
    extra: str = ""  # a folder of the package's own module that is kept beside the binary
    minutes: float = 1  # on two cores, nothing cached; as the progress line says


KUBE = Program("kube", "./kube", module="kube", minutes=5)
KUBECTL = Program("kubectl", "./kubectl", module="kube")
ETCD = Program("etcd", ".", module="etcd", minutes=0.5)
KUBERAY_OPERATOR = Program(
    "kuberay", "github.com/ray-project/kuberay/ray-operator", module="kuberay", extra="config", minutes=2
)
HELM = Program("helm", "helm.sh/helm/v3/cmd/helm", version="v3.22.0", minutes=1.5)
REGISTRY = Program("registry", "github.com/distribution/distribution/v3/cmd/registry", version="v3.1.2")
COREDNS = Program("coredns", "github.com/coredns/coredns", version="v1.14.7", minutes=3)
MINIO = Program("minio", "github.com/minio/minio", version="v0.0.0-20260212201848-7aac2a2c5b7c", minutes=3)
KWOK = Program("kwok", "sigs.k8s.io/kwok/cmd/kwok", version="v0.8.0", minutes=2)
KUBE_ROUTER = Program(
    "kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", version="v2.1.0", minutes=2
)

TOOLS = (KUBECTL, HELM, MINIO, KWOK)
NODE = (KUBE, ETCD, REGISTRY, COREDNS, KUBE_ROUTER)


def digest(spec: Program) -> str:
    """The hash of everything that decides the binary's content, the Go release apart."""
    named = (spec.name, spec.package, spec.version, spec.extra)
    inputs = hashlib.sha256(repr((named, _FLAGS, _LINK)).encode())
    for path in sorted((SOURCES / "go" / spec.module).rglob("*")) if spec.module else ():
        if path.is_file():
            inputs.update(path.name.encode() + path.read_bytes())
    return inputs.hexdigest()[:12]


def folder(spec: Program) -> Path:
    return PROGRAMS / f"{spec.name}-{digest(spec)}"


def ensure(spec: Program) -> Path:
    """Build the program unless the cache has it, and return its stable path."""
    target = folder(spec)
    if not target.is_dir():
        with step(f"building {spec.name} from source (about {spec.minutes:g} min on two cores)"):
            _build(spec, target)
    _link(target / spec.name, program(spec.name))
    return program(spec.name)


def _build(spec: Program, target: Path) -> None:
    _require_go()
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{spec.name}-", dir=PROGRAMS))
    fresh.chmod(0o755)
    # Static: some of these binaries are the only file of their image.
    env = {"CGO_ENABLED": "0", "GOBIN": str(fresh), "GOFLAGS": ""}
    log = LOGS / f"build-{spec.name}.log"
    if spec.module:
        command = ["go", "build", *_FLAGS, "-ldflags", _LINK, "-o", str(fresh / spec.name), spec.package]
        run(command, env=env, cwd=SOURCES / "go" / spec.module, log=log)
    else:
        run(
            ["go", "install", *_FLAGS, "-ldflags", _LINK, f"{spec.package}@{spec.version}"],
            env=env,
            cwd=fresh,
            log=log,
        )
    if spec.extra:
        _keep_extra(spec, fresh)
    for old in PROGRAMS.glob(f"{spec.name}-????????????"):
        shutil.rmtree(old)
    fresh.rename(target)


def _keep_extra(spec: Program, fresh: Path) -> None:
    sources = SOURCES / "go" / spec.module
    module = run(["go", "list", "-m", "-f", "{{.Dir}}", spec.package], cwd=sources).strip()
    shutil.copytree(Path(module) / spec.extra, fresh / spec.extra, copy_function=shutil.copyfile)


def _require_go() -> None:
    if shutil.which("go") is None:
        raise Failure(
            "Go is needed to build the cluster from source, and `go` is not on PATH: install Go 1.25 or later"
        )
    release = run(["go", "env", "GOVERSION"]).strip()
    version = re.match(r"go1\.(\d+)", release)
    if version and int(version[1]) < 25:
        raise Failure(f"Go 1.25 or later is needed to build the cluster from source; this is {release}")


def _link(binary: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == binary:
        return
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.symlink_to(binary)
    fresh.replace(link)


def link_tools(build: Path) -> None:
    """Build what the checks and tests run by name, and link it into the checkout's .build/bin, for PATH."""
    for tool in TOOLS:
        _link(ensure(tool), build / "bin" / tool.name)
