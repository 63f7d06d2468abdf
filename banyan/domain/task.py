"""A task as the rules see it: its states and the few fields that decide its transitions."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands import the states without a database driver
    from bson import ObjectId


class State(StrEnum):
    """The state of a task; `transitions` defines the moves."""

    INACTIVE = "inactive"
    AVAILABLE = "available"
    RUNNING = "running"
    PENDING_CANCELLATION = "pending_cancellation"
    TERMINATED = "terminated"
    CANCELLED = "cancelled"


FOR_EDIT = "edit"
FOR_WORK = "work"
"""The reasons to recall a task from a worker that has not begun it: an edit, or a start at another place or time."""

ENDED = frozenset({State.TERMINATED, State.CANCELLED})
"""States in which nothing more happens unless a user requests a retry."""

LIVE = frozenset({State.RUNNING, State.PENDING_CANCELLATION})
"""States in which a worker holds an attempt."""

STATE_WORDS = {
    **dict.fromkeys(("pending", "blocked", "held"), "inactive"),
    **dict.fromkeys(("queued", "waiting", "ready", "submitted"), "available"),
    **dict.fromkeys(("assigned", "claimed", "started", "executing", "active"), "running"),
    **dict.fromkeys(("done", "finished", "completed", "ended", "succeeded", "success", "failed"), "terminated"),
    **dict.fromkeys(("aborted", "killed", "revoked"), "cancelled"),
}
"""Common words for states, and the state here that each one means."""

SUCCESS = "success"
CANCELLED = "cancelled"
WORKER_UNREACHABLE = "abandoned (worker unreachable)"
SERVER_UNREACHABLE = "abandoned (server unreachable)"
HOST_DIED = "failure (worker: model host died)"
"""The exit status after the death of a model's process; neither the machine nor, for certain, the model is to blame."""
DISK_FILLED = "failure (worker: disk filled by this task)"
"""The task took the last room on its worker's disk: the machine is sound, and another one may have more room."""


NO_DIRECTORY = "failure (no directory: "
"""The start of the exit status when the worker lacks the task's directory; the path follows."""


def is_no_directory(exit_status: str) -> bool:
    """Return whether the attempt ended because its worker lacks the task's directory."""
    return exit_status.startswith(NO_DIRECTORY)


def is_worker_failure(exit_status: str) -> bool:
    """Return whether the machine, not the program, caused this end of an attempt."""
    return exit_status.startswith("failure (worker:")


def is_abandoned(exit_status: str) -> bool:
    """Return whether worker and server lost contact, so that the true end of the attempt is unknown."""
    return exit_status in (WORKER_UNREACHABLE, SERVER_UNREACHABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The fields that `transitions.decide` reads, and the revision at which they were read.

    `task_class` is the key of its class (see `matching`); `has_continuations` is true if edges to children exist,
    `pending` is the displayed number of parents that it waits for; `avoid` are workers whose machines have failed it or
    lack its directory, `host_deaths` counts the processes that died with it, `disk_fills` how often it filled a disk;
    times are UTC, durations seconds.
    """

    id: "ObjectId"
    revision: str
    state: State
    owner: str = ""
    queue: str = ""
    is_group: bool = False
    hold: bool = False
    not_before: datetime | None = None
    """The date that its user set."""
    retry_at: datetime | None = None
    """The end of the delay after its last failure."""
    retry_count: int = 0
    max_retry_count: int = 0
    retry_delay: float = 0.0
    abandoned_count: int = 0
    host_deaths: int = 0
    disk_fills: int = 0
    attempt_count: int = 0
    execution: "ObjectId | None" = None
    worker: "ObjectId | None" = None
    exit_status: str | None = None
    cancelled_by: dict[str, Any] | None = None
    has_continuations: bool = False
    unsettled: bool = False
    pending: int = 0
    leaving: bool = False
    """True while it is being deleted: no other transition is possible."""
    priority: float = 0
    recalled: str | None = None
    """The reason why the queue recalls it from a worker that has not begun it, if it does: an edit, or other work."""
    task_class: str = ""
    avoid: "tuple[ObjectId, ...]" = ()

    @property
    def ended(self) -> bool:
        """Return whether it stays as it is without a user's request."""
        return self.state in ENDED

    @property
    def earliest(self) -> datetime | None:
        """The date before which no worker may take it: the later one of `not_before` and `retry_at`."""
        return max(filter(None, (self.not_before, self.retry_at)), default=None)

    def due(self, now: datetime) -> bool:
        """Return whether both its `not_before` and its `retry_at` have passed."""
        return self.earliest is None or self.earliest <= now
