"""The attempts that the worker holds, as its core sees them."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from worker.events import Allocation, Cause, Document, Exited, Grant


class Phase(Enum):
    """How far an attempt has come on this worker."""

    QUEUED = auto()
    """Waits here for resources."""
    SENT = auto()
    """Has its place in a lane; its process may not run yet."""
    RUNNING = auto()
    COLLECTING = auto()
    """Has ended; what it left is being read."""
    SYNCING = auto()
    """Has ended; what it wrote is being sent."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt, from its grant to the report of its end. `received` is on the monotonic clock."""

    grant: Grant
    received: float
    phase: Phase = Phase.QUEUED
    cost_seconds: float = 0.0
    """How much of the whole worker's time it is expected to take, while it is QUEUED."""
    expected_seconds: float | None = None
    """How long it was expected to run when it got its place in a lane; None: unknown."""
    passed_over_at: float | None = None
    """When it was its turn first and it did not fit, on the monotonic clock."""
    lane: int = 0
    allocation: Allocation | None = None
    pid: int | None = None
    time_started: datetime | None = None
    cause: Cause | None = None
    error: str | None = None
    """The sentence that goes with the cause, if there is one."""
    took_disk: bool = False
    """It was killed because it took too much of the disk, whatever else it was being ended for."""
    term_sent: bool = False
    progress: Document | None = None
    sampled_peak: int = 0
    withdrawn: bool = False
    """Its supervisor was told to drop it, if it had not started."""
    start_reported: bool = False
    exited: Exited | None = None
    """The end of its processes, once they have ended."""
    report: Document | None = None
    """Its end, kept while it is SYNCING."""

    @property
    def silent(self) -> bool:
        """Whether nothing is told of its end."""
        return self.cause is not None and self.cause.silent

    @property
    def live(self) -> bool:
        """Whether its process runs, or may run at any moment."""
        return self.phase in (Phase.SENT, Phase.RUNNING)

    @property
    def over(self) -> bool:
        """True once its processes have ended: what is asked of it now comes too late."""
        return self.phase in (Phase.COLLECTING, Phase.SYNCING)
