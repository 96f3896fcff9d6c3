"""The checkpoints of a run: when one is due, what is in it, which are kept, and what a run goes on from."""

import logging
import secrets
from pathlib import Path

from rltrainer.api.experiment import ExperimentSpec
from rltrainer.backend.base import Backend
from rltrainer.core.execution import Iteration
from rltrainer.core.types import Tree
from rltrainer.errors import RunError
from rltrainer.networks.parameters import target_state_from
from rltrainer.reporting.progress import Progress
from rltrainer.runs.context import RunContext
from rltrainer.storage import checkpoint as ckpt
from rltrainer.storage import restore
from rltrainer.storage.paths import CHECKPOINTS
from rltrainer.storage.restore import OwnCheckpoints, Restored

log = logging.getLogger(__name__)


class Checkpointer:
    """Writes a run's checkpoints, has them uploaded, deletes those not worth keeping, and goes on from them."""

    def __init__(self, context: RunContext, spec: ExperimentSpec, progress: Progress) -> None:
        self.context, self.spec, self.progress = context, spec, progress
        self.root = context.folder / CHECKPOINTS
        self.newest: Path | None = None
        self.seed = 0
        self.said = False
        """Whether it was logged that environments cannot be saved."""
        self.options: Tree = {}
        """All options of the run, by their names in a document: what checkpoints say that it was trained with."""

    def find(self, seed: int | None) -> OwnCheckpoints:
        """Return the run's own checkpoints, and upload those that its storage lacks from now on.

        Settles the seed: `seed`, else that of the run that goes on, else a new one. Raises RunError where storage does
        not answer, or checkpoints that were written are not there.
        """
        context, store = self.context, self.context.open_storage()
        own = restore.own_checkpoints(context.folder, store, context.await_storage)
        expected = context.expected or restore.noted_checkpoint(context.folder)
        restore.check_expected(own, expected, store.uri if store else str(self.root))
        if store is not None:
            context.await_storage(lambda: restore.continue_files(store, context.folder))
            uploader = context.start_uploads(store, self.spec.checkpoint, own.remote)
            remote = {manifest.iteration for manifest in own.remote}
            for manifest in own.local:
                if manifest.iteration not in remote:
                    uploader.add(self.root / manifest.name)
        self.seed = seed_of(own.newest) if seed is None else seed
        return own

    def origin(self, own: OwnCheckpoints, restore_from: str | None) -> Restored | None:
        """Return what the run goes on from: the newest of its own checkpoints, else what it is to start from, if
        anything.

        Raises RunError, permanent, where its own is of another algorithm or environment.
        """
        if own.newest is not None:
            check_same(own.newest, self.spec)
            return own.newest
        if uri := restore.restore_uri(self.spec, restore_from):
            return restore.fetch_origin(uri, self.spec, self.context.folder / "restored", self.context.await_storage)
        return None

    def restore(self, backend: Backend, own: OwnCheckpoints, origin: Restored) -> None:
        """Go on from `origin`. Raises RunError, permanent, where that does not fit the document."""
        if origin is own.newest:
            self.newest = self.root / origin.manifest.name
            if not origin.tree["workers"]:
                log.warning("the checkpoint has no states of environments: new episodes begin")
            backend.load(fitting(origin.tree, self.spec), generation=origin.manifest.iteration)
            self.progress.load(origin.tree["run"]["progress"])
        else:
            self.adopt(backend, origin)
        log.info("restored from %s, after %s timesteps", origin.origin, f"{origin.manifest.timesteps_total:,}")

    def adopt(self, backend: Backend, origin: Restored, replay: bool = False) -> None:
        """Take over another run's weights, optimizer and statistics, and with `replay` its buffer.

        Counters, environments and random states stay this run's.
        """
        fresh = backend.state(workers=False)
        same_algorithm = origin.tree["run"]["spec"]["run"] == self.spec.run
        policy = origin.tree["policy"]
        if same_algorithm:
            learner = {**origin.tree["learner"], "rng": fresh["learner"]["rng"]}
        else:  # target networks begin as copies of what they follow
            learner = {**fresh["learner"], "targets": target_state_from(policy, fresh["learner"]["targets"])}
        buffer = origin.tree.get("replay", {}) if replay else {}
        backend.load({"policy": policy, "learner": learner, "replay": buffer, "workers": {}}, generation=0)

    def due(self) -> bool:
        """Return whether one is to be written after this iteration."""
        frequency = self.spec.checkpoint.frequency
        return bool(frequency) and self.progress.training_iteration % frequency == 0

    def is_current(self) -> bool:
        """Return whether the newest is of the iteration that the run has come to."""
        return self.newest is not None and self.newest.name == ckpt.folder_name(self.progress.training_iteration)

    def write_last(self, backend: Backend, begun: Iteration | None = None, workers: bool = True) -> None:
        """Write the last checkpoint of the run, where the document asks for one and there is something new in it.

        `begun` are the rounds that have been done of the next iteration.
        """
        if self.spec.checkpoint.at_end and self.progress.training_iteration and not self.is_current():
            self.write(backend, begun, workers)

    def write(self, backend: Backend, begun: Iteration | None = None, workers: bool = True) -> Path:
        """Write a checkpoint of the run as it is, without its workers' states where they are within a fragment."""
        progress = self.progress
        run = {"progress": progress.state(), "begun": begun.state() if begun else None, "spec": self._identity()}
        tree: Tree = {**backend.state(workers), "run": run}
        self._say_what_is_left_out(tree["workers"])
        iteration, timesteps = progress.training_iteration, progress.timesteps_total
        self.newest = ckpt.write(self.root, tree, iteration, timesteps, progress.metrics())
        restore.note_checkpoint(self.newest)
        if self.context.uploader is not None:
            self.context.uploader.add(self.newest)
        self._prune()
        return self.newest

    def _say_what_is_left_out(self, workers: Tree) -> None:
        """Log once if environments cannot be saved."""
        if not self.said and any(worker["envs"] is None for worker in workers.values()):
            self.said = True
            log.warning(
                "the state of %s cannot be saved: a run that goes on from a checkpoint begins new episodes",
                self.spec.env,
            )

    def _prune(self) -> None:
        policy, uploader = self.spec.checkpoint, self.context.uploader
        for manifest in ckpt.to_prune(ckpt.manifests_in(self.root), policy.keep, policy.score_attribute):
            folder = self.root / manifest.name
            if uploader is None or uploader.forget(folder):
                ckpt.delete(folder)

    def _identity(self) -> Tree:
        """Return what a policy needs to act again."""
        spec = self.spec
        return {
            "run": spec.run,
            "env": spec.env,
            "env_config": spec.env_config,
            "config": spec.config,
            "options": self.options,
            "seed": self.seed,
        }


def begun_in(origin: Restored | None) -> Iteration | None:
    """Return the rounds that a run's own checkpoint has of the iteration after it; older ones have none."""
    begun = None if origin is None else origin.tree["run"].get("begun")
    return Iteration.of(begun) if begun else None


def seed_of(newest: Restored | None) -> int:
    """Return the seed of the run that goes on, or a new one."""
    return int(newest.tree["run"]["spec"]["seed"]) if newest is not None else secrets.randbits(31)


def check_same(origin: Restored, spec: ExperimentSpec) -> None:
    """Raise RunError, permanent, unless the checkpoint is of the same algorithm."""
    before = origin.tree["run"]["spec"]
    if before["run"] != spec.run:
        raise RunError(
            "InvalidOption",
            f"{origin.origin} is of {before['run']} on {before['env']}, and the document says {spec.run} on "
            f"{spec.env}: give the experiment another name, or start anew with --overwrite",
            permanent=True,
        )


def fitting(tree: Tree, spec: ExperimentSpec) -> Tree:
    """Return a run's state without its episodes under way, where the document has another environment now."""
    before = tree["run"]["spec"]
    if (before["env"], before["env_config"]) == (spec.env, spec.env_config):
        return tree
    log.warning("the environment was %s, with %s: episodes begin anew", before["env"], before["env_config"])
    return {**tree, "workers": {}}
