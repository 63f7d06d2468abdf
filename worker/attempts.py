"""The attempts that the worker holds, as its core sees them."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from worker.events import Allocation, Cause, Document, Grant


class Phase(Enum):
    """How far an attempt has come on this worker."""

    QUEUED = auto()
    """Waits here for resources."""
    SENT = auto()
    """Has its place in a lane; its process may not run yet."""
    RUNNING = auto()
    SYNCING = auto()
    """Has ended; what it wrote is being sent."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt, from its grant to the report of its end. `received` is on the monotonic clock."""

    grant: Grant
    received: float
    phase: Phase = Phase.QUEUED
    lane: int = 0
    allocation: Allocation | None = None
    pid: int | None = None
    time_started: datetime | None = None
    cause: Cause | None = None
    term_sent: bool = False
    progress: Document | None = None
    sampled_peak: int = 0
    report: Document | None = None
    """Its end, kept while it is SYNCING."""

    @property
    def live(self) -> bool:
        """Whether its process runs, or may run at any moment."""
        return self.phase in (Phase.SENT, Phase.RUNNING)
