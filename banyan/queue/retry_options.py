"""The options of a retry: the treatment of descendants, new values, parents to do without."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from bson import ObjectId

from banyan.queue.actor import Actor
from banyan.queue.update import Update


class Downstream(StrEnum):
    """The treatment of descendants that have begun or ended because of the end that the retry takes back."""

    REFUSE = "refuse"
    """The retry is refused."""
    RERUN = "rerun"
    """The descendants run again after it."""
    KEEP = "keep"
    """The descendants stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """The options of a retry; the defaults are those of a request without a body."""

    downstream: Downstream = Downstream.REFUSE
    changes: Update = field(default_factory=Update)
    """New values of fields of the tasks themselves, not of their descendants; only `fields` and `check` are used."""
    without: frozenset[ObjectId] = frozenset()
    """Deleted parents that the tasks need, and will need no longer."""
    must_spare: bool = False
    """True to refuse `without` if no task that runs again has any of these parents."""
    actor: Actor | None = None
    """The user whose descendants may run again; None for all of them."""
    uncounted: Collection[ObjectId] = ()
    """Children that wait already, and whose pending dependencies the caller counts: a sweep's barrier."""
    dry_run: bool = False
    """True to compute the outcome only; nothing is changed."""

    def may_rerun(self, owner: str) -> bool:
        """Return whether a descendant that has begun runs again."""
        return self.downstream == Downstream.RERUN and (self.actor is None or self.actor.steers(owner))
