"""The events that the core of the worker receives; plain values without behaviour. Its output is in `actions`.

`now` in the core is a monotonic clock; `time_*` fields are UTC dates for people and the server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from banyan.domain.resources import Resources

Document = dict[str, Any]


class Cause(StrEnum):
    """The reason for which the worker ended a task before it ended by itself."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    SCRATCH = "scratch"
    DISK = "disk"
    SERVER_LOST = "server lost"
    STOP = "stop"
    """The worker stops, and does not report the end: the server counts the attempt as lost."""
    ABANDON = "abandon"
    """The same at once, without grace: another worker may have the task by now."""

    @property
    def silent(self) -> bool:
        """Return whether the end is not reported."""
        return self in (Cause.STOP, Cause.ABANDON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A task that the server granted, with the token of the attempt."""

    execution: str
    task: str
    token: str
    task_class: str
    attempt: int
    resources: Resources
    document: Document
    queue: str = ""
    priority: float = 0.0
    order: str = ""
    """Its place among tasks of the same queue and priority: texts are compared by characters."""
    weight: float = 1.0
    """The share of its queue."""
    memory_limit_bytes: int | None = None
    """The explicit memory request, which is therefore enforced."""
    scratch_limit_bytes: int | None = None
    timeout_seconds: float | None = None
    grace_seconds: float = 30.0
    estimated_seconds: float | None = None
    host_deaths: int = 0
    """The number of times that the host process of a model died while it ran this task."""
    disk_fills: int = 0
    """The number of times that it filled the disk of a worker."""
    directory: Mapping[str, str | None] = field(default_factory=dict)
    """Its `logs` and its `work` directory (None: it has none), relative to the worker's root."""

    @property
    def keeps_work(self) -> bool:
        """Return whether its work directory survives retries."""
        return self.document.get("workdir") == "task"

    @classmethod
    def from_document(cls, document: Document) -> "Grant":
        """Return a grant from the document that the server sends."""
        wanted = document.get("requested_resources") or {}
        attempt = int(document.get("attempt") or 1)
        logs = f"{document['_id']}/{attempt}"
        work = {"attempt": f"{logs}/work", "task": f"{document['_id']}/work"}
        return cls(
            execution=document["execution"],
            task=document["_id"],
            token=document["token"],
            task_class=document.get("class") or "",
            attempt=attempt,
            resources=Resources.from_document({"cores": 1} | wanted),
            document=document,
            queue=document.get("queue") or "",
            priority=document.get("priority") or 0.0,
            order=str(document.get("order") or ""),
            weight=document.get("weight") or 1.0,
            memory_limit_bytes=wanted.get("memory"),
            scratch_limit_bytes=wanted.get("scratch"),
            timeout_seconds=document.get("timeout"),
            grace_seconds=float(document.get("max_shutdown_time", 30.0)),
            estimated_seconds=document.get("estimated_runtime"),
            host_deaths=int(document.get("host_deaths") or 0),
            disk_fills=int(document.get("disk_fills") or 0),
            directory={"logs": logs, "work": work.get(document.get("workdir", "attempt"))},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The resources that a running task holds."""

    resources: Resources
    gpu_indexes: tuple[int, ...] = ()

    @property
    def threads(self) -> int:
        """Return how many threads may compute at once: whole cores, at least one."""
        return max(1, self.resources.millicores // 1000)

    def to_document(self) -> Document:
        """Return it as `granted_resources` in the attempt's record."""
        return self.resources.to_document() | ({"gpu_indexes": list(self.gpu_indexes)} if self.gpu_indexes else {})


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The server has registered the worker, under a fresh id."""

    worker: str
    wait_seconds: float
    """The time for which a claim may stay open."""
    uploads: bool
    """True if the server does not see our disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The response to a claim."""

    request: str
    grants: Sequence[Grant] = ()
    cancel: Sequence[str] = ()
    take_back: Sequence[str] = ()
    """The attempts that the queue wants back if they have not begun."""
    drain: bool = False
    forget: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Directories that the server wanted removed are gone."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A claim that a newer one replaced was given up without a response."""

    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The response to a batch of reports."""

    accepted: Sequence[str] = ()
    stale: Sequence[str] = ()
    cancel: Sequence[str] = ()
    take_back: Sequence[str] = ()
    forget: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The server counts the worker as lost or closed (`worker` is the id in that request)."""

    worker: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The server does not admit the worker, or the worker does not trust it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reached:
    """The server has responded."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """The server has not responded."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first process of a task runs."""

    execution: str
    pid: int
    time_started: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A task's processes are all gone; `Collected` follows."""

    execution: str
    pid: int
    time_started: datetime
    time_terminated: datetime
    wait_status: int
    peak_memory_bytes: int
    peak_is_exact: bool
    """False: the program was smaller than the process that spawned it, whose size this is."""
    cpu_seconds: float
    alone: bool = False
    """It was one process; else the peak is that of the largest of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The output of an ended task has been read: tails, sizes, result, marks."""

    execution: str
    collected: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """A task could not be started: the machine's fault (`reason`), or its own (`exit_code`).

    `exit_status` is given where these do not suffice.
    """

    execution: str
    time_terminated: datetime
    reason: str
    exit_code: int | None = None
    exit_status: str | None = None
    collected: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A task that was sent to a lane was taken back before it started."""

    execution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The memory and CPU of all processes of a task."""

    execution: str
    time: datetime
    resident_memory_bytes: int
    virtual_memory_bytes: int
    cpu_percent: float
    gpu_memory_bytes: int | None = None
    kept: bool = True
    """False: measured only for its limit, and not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """A task takes more of the disk than it may: than it asked for (SCRATCH), or than there is (DISK)."""

    execution: str
    cause: Cause
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """A task wrote another progress."""

    execution: str
    progress: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """The files of an ended task are on the server, except `excess` (bytes not kept, by stream or path)."""

    execution: str
    excess: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """The capacity of this machine now, and the indexes of its GPUs."""

    capacity: Resources
    gpu_indexes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SupervisorLost:
    """A process that ran tasks died, and these attempts with it."""

    executions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more tasks, finish the running ones, then leave."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave now."""


Event = (
    Registered
    | Claimed
    | Forgotten
    | Unanswered
    | Reported
    | Refused
    | TurnedAway
    | Reached
    | Unreached
    | Started
    | Exited
    | Collected
    | NotStarted
    | Dropped
    | Sample
    | Exceeded
    | Progressed
    | Synced
    | Measured
    | SupervisorLost
    | Drain
    | Stop
)
