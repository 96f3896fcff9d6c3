"""How an object's checks come to a decision, and a decision to its status: once for both kinds; pure.

A check is a fact about a view, and says what follows where the fact holds. The first one that holds decides; what a
check may rely on is that none above it held.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from rloperator.config import Settings
from rloperator.kube.pods import Owner
from rloperator.kube.types import Condition, Event, Manifest, Observed, Outcome, Patch, conditions_of, parse_time
from rltrainer.api.experiment import ExperimentSpec, Storage
from rltrainer.api.options import complaint
from rltrainer.api.rollout import RolloutSpec
from rltrainer.api.status import Phase

SOON = 2.0
"""Seconds until the next look where something is about to happen in pods, which are not watched."""

_SOON_FOR = timedelta(seconds=90)
"""How long something is looked at as often as that; then the sweep is often enough."""

SpecT = TypeVar("SpecT", ExperimentSpec, RolloutSpec)


def soon(since: str | None, now: datetime) -> float | None:
    """Seconds until the next look at what has been under way `since` then; None, for the sweep, where that is long."""
    return SOON if since is None or now - parse_time(since) < _SOON_FOR else None


@dataclass(frozen=True)
class Rejection:
    """Why a document cannot be run."""

    reason: str
    message: str


def parse(model: type[SpecT], spec: Manifest) -> SpecT | Rejection:
    """A document's spec, or why it is none."""
    try:
        return model.model_validate(spec)
    except ValidationError as error:
        return Rejection("InvalidDocument", complaint(error, "spec", model))


def refused(observed: Observed) -> Rejection | None:
    """That the API server does not take what the document asks for."""
    return Rejection("RefusedByCluster", f"The API server refuses it: {observed.refusal}") if observed.refusal else None


def waited_for(source: Manifest | None) -> str | None:
    """The experiment for whose checkpoint another one waits, as long as it has none itself."""
    if source is None or ((source.get("status") or {}).get("training") or {}).get("checkpoint"):
        return None
    name: str | None = ((source.get("spec") or {}).get("restoreFrom") or {}).get("experiment")
    return name


def source_state(source: Manifest | None) -> str:
    """Say what keeps an experiment from ever having the checkpoint that is waited for; nothing where nothing does."""
    phase = ((source or {}).get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Invalid", "Suspended"):
        return f". It is {phase} without one, and has none before it trains again"
    other = waited_for(source)
    return f', which itself waits for one of "{other}"' if other else ""


@dataclass(frozen=True)
class Decision:
    """How an object stands, and what is to be done about it."""

    phase: Phase
    reason: str
    message: str
    conditions: tuple[Condition, ...] = ()
    """Those that the decision changes from what they are without an attempt or a Job under way."""
    fields: Manifest = field(default_factory=dict)
    """Further fields of the status that the decision changes."""
    tried: tuple[Manifest, ...] = ()
    """Manifests that are made later, and must be possible before anything is ended for them."""
    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    patch: tuple[Patch, ...] = ()
    delete: tuple[Manifest, ...] = ()
    requeue_after: float | None = None

    def with_condition(self, kind: str, status: Literal["True", "False"]) -> "Decision":
        """This decision and a condition, for the decision's own reason."""
        return replace(self, conditions=(*self.conditions, Condition(kind, status, self.reason, self.message)))


@dataclass(frozen=True)
class View(ABC, Generic[SpecT]):
    """An object of either kind as its checks see it: observed, parsed and validated once for all of them."""

    observed: Observed
    settings: Settings
    now: datetime
    """When it was observed."""
    spec: SpecT | None
    """None where the document cannot be read at all."""
    storage: Storage | None
    """Of the document, or what holds where it names none."""
    rejection: Rejection | None
    """Why the document cannot be run."""
    spec_hash: str | None
    """Of what an attempt or a Job cannot change once it is made."""

    @property
    def document(self) -> SpecT:
        """The spec, where the document is not rejected."""
        assert self.spec is not None  # noqa: S101 - for the type checker: a rejected document is never rendered
        return self.spec

    @property
    def owner(self) -> Owner:
        """The object, for rendering."""
        return Owner(self.observed.object)

    @property
    @abstractmethod
    def fields(self) -> Manifest:
        """Fields of its status beside phase, message and conditions, where the decision changes none of them."""


ViewT = TypeVar("ViewT", bound="View[Any]")


def first_decision(checks: tuple[Callable[[ViewT], Decision | None], ...], view: ViewT) -> Decision:
    """The decision of the first check that holds. The last check holds always."""
    return next(decision for check in checks if (decision := check(view)))


def status_of(view: View[Any], decision: Decision, defaults: tuple[Condition, ...]) -> Manifest:
    """The operator's whole status; `defaults` are all conditions as they are where the decision changes none."""
    observed = view.observed
    conditions = {condition.type: condition for condition in (*defaults, *decision.conditions)}
    updated = conditions_of(observed.status).updated(tuple(conditions.values()), observed.generation, view.now)
    status = {
        "phase": decision.phase,
        "message": decision.message,
        "observedGeneration": observed.generation,
        **view.fields,
        **decision.fields,
        "conditions": list(updated),
    }
    return {key: value for key, value in status.items() if value not in (None, [])}


def outcome_of(view: View[Any], decision: Decision, status: Manifest, events: tuple[Event, ...]) -> Outcome:
    """Put together what there is to do. A status that stands as it should is not written again."""
    return Outcome(
        tried=(*decision.tried, *decision.create),
        apply=decision.apply,
        create=decision.create,
        patch=decision.patch,
        events=events,
        status=status if status != view.observed.own_status else None,
        delete=decision.delete,
        requeue_after=decision.requeue_after,
    )
