"""The attempts that the worker holds, as its core sees them."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from worker.events import Allocation, Cause, Document, Exited, Grant


class Phase(Enum):
    """The progress of an attempt on this worker."""

    QUEUED = auto()
    """It waits here for resources."""
    SENT = auto()
    """It has a place in a lane; its process may not run yet."""
    RUNNING = auto()
    COLLECTING = auto()
    """It has ended; its output is being read."""
    SYNCING = auto()
    """It has ended; its files are being sent."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt, from its grant to the report of its end. `received` is on the monotonic clock."""

    grant: Grant
    received: float
    phase: Phase = Phase.QUEUED
    cost_seconds: float = 0.0
    """The part of the whole worker's time that it is expected to take, while it is QUEUED."""
    expected_seconds: float | None = None
    """Its expected run time when it got its place in a lane; None: unknown."""
    passed_over_at: float | None = None
    """The time at which it was next for the first time and did not fit, on the monotonic clock."""
    lane: int = 0
    allocation: Allocation | None = None
    pid: int | None = None
    time_started: datetime | None = None
    cause: Cause | None = None
    error: str | None = None
    """The sentence that belongs to the cause, if there is one."""
    took_disk: bool = False
    """It was killed because it took too much of the disk, for whatever other cause it was being ended."""
    term_sent: bool = False
    progress: Document | None = None
    sampled_peak: int = 0
    withdrawn: bool = False
    """Its supervisor has the command to drop it if it had not started."""
    start_reported: bool = False
    exited: Exited | None = None
    """The end of its processes, once they have ended."""
    report: Document | None = None
    """Its end, kept while it is SYNCING."""

    @property
    def silent(self) -> bool:
        """Return whether its end is not reported."""
        return self.cause is not None and self.cause.silent

    @property
    def live(self) -> bool:
        """Return whether its process runs, or may run at any moment."""
        return self.phase in (Phase.SENT, Phase.RUNNING)

    @property
    def over(self) -> bool:
        """Return whether its processes have ended, so that further commands come too late."""
        return self.phase in (Phase.COLLECTING, Phase.SYNCING)
