"""What a retry may ask for besides the tasks: what becomes of descendants, new values, parents to do without."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from bson import ObjectId

from banyan.queue.actor import Actor
from banyan.queue.update import Update


class Downstream(StrEnum):
    """What a retry does about descendants that have begun, or ended, on the strength of the end that it takes back."""

    REFUSE = "refuse"
    """It is refused."""
    RERUN = "rerun"
    """They run again after it."""
    KEEP = "keep"
    """They stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How tasks are retried; the defaults are those of a request without a body."""

    downstream: Downstream = Downstream.REFUSE
    changes: Update = field(default_factory=Update)
    """New values of fields of the tasks themselves, not of their descendants; `fields` and `check` count."""
    without: frozenset[ObjectId] = frozenset()
    """Deleted parents that the tasks need, and shall need no longer."""
    must_spare: bool = False
    """Refuse `without` where nothing that runs again has any of these parents."""
    actor: Actor | None = None
    """The user whose descendants may run again; None for all of them."""
    uncounted: Collection[ObjectId] = ()
    """Children that wait already, and whose pending dependencies the caller counts: a sweep's barrier."""
    dry_run: bool = False
    """Only find out what would become of it; nothing is changed."""

    def may_rerun(self, owner: str) -> bool:
        """Whether a descendant that has begun runs again."""
        return self.downstream == Downstream.RERUN and (self.actor is None or self.actor.steers(owner))
