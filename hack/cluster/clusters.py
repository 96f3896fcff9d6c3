"""Which cluster: the one a person names, else kind, else minikube, else one built from source."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import addons, containerd, oci, programs, registry, source
from hack.cluster.builders import Builder, choose_builder
from hack.cluster.console import Failure, run, say, step, succeeds
from hack.cluster.kubectl import Kubectl
from hack.cluster.paths import BUILD, KUBECONFIG

NAME = "rl-local"
_RECORD = BUILD / "cluster"  # the kind that `up` made, for the commands after it; never a cluster of somebody else


class Cluster(Protocol):
    """A cluster that can be made, supplied with images, and removed."""

    @property
    def name(self) -> str: ...

    def up(self) -> None:
        """Make it, or find it running, with its kubeconfig at `.build/kubeconfig`."""

    def down(self) -> None:
        """Remove it, if it is ours."""

    def kubectl(self) -> Kubectl: ...

    def load(self, image: oci.OneFileImage) -> str:
        """Bring one of our small images to its nodes and return the reference there."""

    def reference(self, image: str) -> str:
        """What `name:tag` is called on its nodes."""

    def has(self, image: str) -> bool:
        """Whether `name:tag` was brought there already."""

    def publish(self, builder: Builder, image: str) -> None:
        """Bring the image that was just built as `name:tag` to its nodes."""


class Source:
    """The cluster built from source on this machine; images travel through its own registry."""

    name = "source"

    def up(self) -> None:
        source.up()

    def down(self) -> None:
        source.down()

    def kubectl(self) -> Kubectl:
        return source.kubectl()

    def load(self, image: oci.OneFileImage) -> str:
        return source.load(image)

    def reference(self, image: str) -> str:
        return f"{registry.ADDRESS}/{image}"

    def has(self, image: str) -> bool:
        if not registry.answers():
            raise Failure("the cluster from source does not run: make cluster")
        return registry.has(*image.split(":")) and self.reference(image) in containerd.images()

    def publish(self, builder: Builder, image: str) -> None:
        builder.push(image, self.reference(image), insecure=True)
        containerd.pull(self.reference(image))
        self._forget_old(image)

    def _forget_old(self, image: str) -> None:
        """Keep the newest three, which a running experiment may name: changed dependencies cost gigabytes."""
        repository = image.split(":", maxsplit=1)[0]
        old = registry.tags(repository)[3:]
        for tag in old:
            registry.forget(repository, tag)
        containerd.remove({self.reference(f"{repository}:{tag}") for tag in old} & containerd.images())


@dataclass(frozen=True)
class Kind:
    """A cluster in Docker, by kind."""

    name: str = "kind"

    def up(self) -> None:
        if NAME not in run(["kind", "get", "clusters"]).split():
            with step("kind create cluster"):
                run(["kind", "create", "cluster", "--name", NAME, "--kubeconfig", KUBECONFIG, "--wait", "120s"])
        else:
            KUBECONFIG.write_text(run(["kind", "get", "kubeconfig", "--name", NAME]))

    def down(self) -> None:
        run(["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", KUBECONFIG])

    def kubectl(self) -> Kubectl:
        return Kubectl(KUBECONFIG)

    def load(self, image: oci.OneFileImage) -> str:
        run(["kind", "load", "image-archive", image.archive(), "--name", NAME])
        return image.reference()

    def reference(self, image: str) -> str:
        return f"localhost/{image}"

    def has(self, image: str) -> bool:
        listed = run(["docker", "exec", f"{NAME}-control-plane", "crictl", "images", "--output", "json"])
        return f'"{self.reference(image)}"' in listed

    def publish(self, builder: Builder, image: str) -> None:
        builder.tag(image, self.reference(image))
        run(["kind", "load", "docker-image", self.reference(image), "--name", NAME])


@dataclass(frozen=True)
class Minikube:
    """A cluster by minikube, in a profile of its own."""

    name: str = "minikube"

    def _run(self, *arguments: str | Path) -> str:
        return run(["minikube", "--profile", NAME, *arguments], env={"KUBECONFIG": str(KUBECONFIG)})

    def up(self) -> None:
        with step("minikube start"):
            self._run("start")

    def down(self) -> None:
        self._run("delete")

    def kubectl(self) -> Kubectl:
        return Kubectl(KUBECONFIG)

    def load(self, image: oci.OneFileImage) -> str:
        self._run("image", "load", image.archive())
        return image.reference()

    def reference(self, image: str) -> str:
        return f"localhost/{image}"

    def has(self, image: str) -> bool:
        return self.reference(image) in self._run("image", "ls").split()

    def publish(self, builder: Builder, image: str) -> None:
        builder.tag(image, self.reference(image))
        archive = BUILD / "image.tar"
        builder.save(self.reference(image), archive)
        self._run("image", "load", archive)
        archive.unlink()


@dataclass(frozen=True)
class Existing:
    """The cluster of the person's own current context; its images go to the registry that RL_REGISTRY names."""

    name: str = "existing"

    def up(self) -> None:
        if not os.environ.get("KUBECONFIG"):
            raise Failure("RL_CLUSTER=existing needs KUBECONFIG to name the cluster to use")
        context = self.kubectl()("config", "current-context").strip()
        say(f"Using the context {context} of KUBECONFIG={os.environ['KUBECONFIG']}")

    def down(self) -> None:
        raise Failure("RL_CLUSTER=existing: this cluster was not made here, and is not removed here")

    def kubectl(self) -> Kubectl:
        return Kubectl(None)

    def load(self, image: oci.OneFileImage) -> str:
        builder, name = choose_builder(), f"{image.name}:{image.digest()}"
        builder.load(image.archive(), image.reference())
        builder.push(image.reference(), self.reference(name), insecure=False)
        return self.reference(name)

    def reference(self, image: str) -> str:
        if "RL_REGISTRY" not in os.environ:
            raise Failure("RL_CLUSTER=existing needs RL_REGISTRY: where images are pushed that the cluster can pull")
        return f"{os.environ['RL_REGISTRY'].rstrip('/')}/{image}"

    def has(self, image: str) -> bool:
        return False  # a push of layers that are there already is short

    def publish(self, builder: Builder, image: str) -> None:
        builder.push(image, self.reference(image), insecure=False)


CLUSTERS: dict[str, Cluster] = {
    "existing": Existing(),
    "kind": Kind(),
    "minikube": Minikube(),
    "source": Source(),
}


def chosen() -> Cluster:
    """The cluster that RL_CLUSTER names, the one that was made here, or the first that this machine can have."""
    name = os.environ.get("RL_CLUSTER") or (_RECORD.read_text() if _RECORD.exists() else _offered())
    if name not in CLUSTERS:
        raise Failure(f"RL_CLUSTER={name} is not one of {', '.join(CLUSTERS)}")
    if name == "source":
        source.refuse_elsewhere()
    return CLUSTERS[name]


def _offered() -> str:
    if shutil.which("kind") and succeeds(["docker", "info"]):
        return "kind"
    return "minikube" if shutil.which("minikube") else "source"


def up() -> None:
    """Make the cluster with everything that belongs on it, and say how to use it."""
    cluster = chosen()
    say(f"Cluster: {cluster.name}")
    programs.link_tools(BUILD)
    cluster.up()
    addons.install(cluster.kubectl(), cluster.load)
    if cluster.name == "existing":
        say("The cluster is ready.")
    else:
        _RECORD.write_text(cluster.name)
        say(f"The cluster is ready: export KUBECONFIG={KUBECONFIG} PATH={BUILD / 'bin'}:$PATH")


def down() -> None:
    """Remove the cluster; doing so twice is no error."""
    chosen().down()
    KUBECONFIG.unlink(missing_ok=True)
    _RECORD.unlink(missing_ok=True)


def status() -> None:
    """Say which cluster it would be, and for the one from source how it is."""
    cluster = chosen()
    say(f"Cluster: {cluster.name}")
    for line in source.status() if cluster.name == "source" else ():
        say(f"  {line}")
