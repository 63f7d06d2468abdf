"""The one table of transitions: what happens to a task, and nothing else decides it.

`decide(task, event, now)` answers with the `Change` to write, or raises `IllegalTransition` for what a user
may not ask now and `StaleAttempt` for a report that comes too late. It reads no clock and does no I/O; the
change is then written guarded by the revision that the task was read at.

=====================  =======================================  =====================================
state                  event                                    becomes
=====================  =======================================  =====================================
inactive               Release, Promote                         available; a group: terminated
inactive, available    Cancel                                   cancelled
available              Release                                  unchanged
available              Claim                                    running
available              Due                                      claimable; a group: terminated
running                GiveBack                                 available, uncounted (claimable later if to be edited)
running                Cancel                                   pending_cancellation
running                End with success                         terminated
running                End with a failure, retries left         available, after the retry delay
running                End with a failure, none left            terminated
running                End, too long for the kernel             terminated, whatever retries are left
running                End, abandoned or the machine to blame   available; after the fifth: terminated
running                End, the task filled the worker's disk   the same; the second time is reported as its own
running                End, the model's host process died       as before, but no worker is avoided for it
running                End, the worker lacks the directory      available, uncounted, if another one may have it
running                End, and so do all others that fit       terminated, whatever retries are left
pending_cancellation   End with success                         terminated
pending_cancellation   any other End                            cancelled
pending_cancellation   GiveBack                                 cancelled, uncounted
terminated, cancelled  Retry                                    inactive or available, counts anew
the same, available    Revive                                   inactive, counts anew
=====================  =======================================  =====================================
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.programs import TOO_LONG
from banyan.domain.task import (
    CANCELLED,
    DISK_FILLED,
    ENDED,
    FOR_EDIT,
    HOST_DIED,
    LIVE,
    SUCCESS,
    State,
    Task,
    is_abandoned,
    is_no_directory,
    is_worker_failure,
)
from banyan.errors import IllegalTransition, StaleAttempt

MAX_LOSSES = 5
"""The number of losses after which a task fails: lost workers, and failures of machines."""

EDIT_TIME = timedelta(seconds=5)
"""The time for which no worker gets a task that was recalled for an edit; the edit itself ends it."""

MAX_RETRY_DELAY = 24 * 3600.0
"""The largest retry delay, in seconds: doubling stops here."""

MAX_AVOID_SECONDS = 300.0
"""The longest time for which a worker is avoided for a task after a failure of the worker."""


@dataclass(frozen=True, slots=True)
class Release:
    """The provider requests `available`."""

    pending: bool = False
    """True while a dependency is unsettled."""


@dataclass(frozen=True, slots=True)
class Promote:
    """Every edge to the task is settled and satisfied."""


@dataclass(frozen=True, slots=True)
class Due:
    """Its `not_before` and its `retry_at` have passed, or its hold was cleared."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A user cancels the task, or an edge can no longer be satisfied."""

    cause: Mapping[str, Any]
    """`{"user": name}` or `{"task": parent's id}`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker takes the task."""

    execution: ObjectId
    worker: ObjectId
    request: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The worker returns an attempt that it did not start."""

    execution: ObjectId


@dataclass(frozen=True, slots=True)
class End:
    """The attempt is over: its worker reports it, or the server does when the worker is lost."""

    execution: ObjectId
    exit_status: str
    elsewhere: bool = False
    """True if another worker may have the directory that this one lacks."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The provider requests another run of an ended task."""

    pending: bool = False


@dataclass(frozen=True, slots=True)
class Revive:
    """A parent begins again, and with it each task that was cancelled, waits or ran because of the parent's end."""


_NO_ATTEMPT: dict[str, Any] = {"execution": None, "time_claimed": None, "time_started": None, "progress": None}
LEFT: dict[str, Any] = {"worker": None, "claim_request": None, "recalled": None}
"""The values of the fields that describe a worker's hold once no worker holds the task."""

Event = Release | Promote | Due | Cancel | Claim | GiveBack | End | Retry | Revive


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The write: the new state, other fields (None clears one), and the consequences."""

    state: State
    fields: Mapping[str, Any] = field(default_factory=dict)
    claimable: bool = False
    """True if workers may take it now."""
    wake_at: datetime | None = None
    """The time at which it becomes claimable, if not now and not at its `not_before`."""
    ended: bool = False
    """True if it has just ended: its continuations must be settled."""


def decide(task: Task, event: Event, now: datetime) -> Change | None:
    """The change that `event` makes to `task`; None when the task stays as it is.

    Raises `IllegalTransition` for a request that the state does not allow, `StaleAttempt` for the report of an attempt
    that is no longer the task's own.
    """
    row = _TABLE.get((task.state, type(event)))
    if row is None:
        raise _refusal(task, event)
    if isinstance(event, (GiveBack, End)) and event.execution != task.execution:
        raise StaleAttempt(f"execution {event.execution}: it is no longer the attempt of task {task.id}")
    change = row(task, event, now)
    if change is not None and change.ended and task.avoid:
        return replace(change, fields={**change.fields, "avoid_until": None})
    return change


def _release(task: Task, event: Release, now: datetime) -> Change | None:
    if event.pending:
        raise IllegalTransition(
            {"state": f"task {task.id} still waits for a parent; it becomes available by itself when all have ended"}
        )
    return _available(task, now)


def _promote(task: Task, event: Event, now: datetime) -> Change | None:
    return None if task.hold else _available(task, now)


def _available(task: Task, now: datetime, **fields: Any) -> Change:
    claimable = not task.hold and task.due(now)
    if task.is_group and claimable:
        ended = {"exit_status": SUCCESS, "time_available": now, "time_terminated": now}
        return Change(state=State.TERMINATED, fields=fields | ended, ended=True)
    return Change(state=State.AVAILABLE, fields={"time_available": now} | fields, claimable=claimable)


def _due(task: Task, event: Event, now: datetime) -> Change | None:
    return _available(task, now) if not task.hold and task.due(now) else None


def _unchanged(task: Task, event: Event, now: datetime) -> None:
    return None


def _cancel(task: Task, event: Cancel, now: datetime) -> Change:
    return _cancelled(now, cancelled_by=dict(event.cause))


def _cancelled(now: datetime, **fields: Any) -> Change:
    ended = {"exit_status": CANCELLED, "time_terminated": now} | LEFT
    return Change(state=State.CANCELLED, fields=ended | fields, ended=True)


def _ask_to_cancel(task: Task, event: Cancel, now: datetime) -> Change:
    return Change(state=State.PENDING_CANCELLATION, fields={"cancelled_by": dict(event.cause)})


def _claim(task: Task, event: Claim, now: datetime) -> Change:
    fields = {
        "execution": event.execution,
        "worker": event.worker,
        "claim_request": event.request,
        "attempt_count": task.attempt_count + 1,
        "time_claimed": now,
        "time_started": None,
    }
    return Change(state=State.RUNNING, fields=fields)


def _give_back(task: Task, event: GiveBack, now: datetime) -> Change:
    change = _again(task, now, attempt_count=task.attempt_count - 1)
    if task.recalled == FOR_EDIT and change.claimable:
        return replace(change, claimable=False, wake_at=now + EDIT_TIME)
    return change


def _again(task: Task, now: datetime, **fields: Any) -> Change:
    left = LEFT | _NO_ATTEMPT
    due = replace(task, retry_at=fields.get("retry_at", task.retry_at)).due(now)
    return Change(
        state=State.AVAILABLE, fields=left | {"time_available": now} | fields, claimable=due and not task.hold
    )


def _end(task: Task, event: End, now: datetime) -> Change:
    if is_worker_failure(event.exit_status) or is_abandoned(event.exit_status):
        return _lose(task, event, now)
    if is_no_directory(event.exit_status):
        return _lack_directory(task, event, now)
    if event.exit_status in (SUCCESS, TOO_LONG) or task.retry_count >= task.max_retry_count:
        return _terminated(event.exit_status, now)
    again: dict[str, Any] = {"retry_count": task.retry_count + 1}
    if task.retry_delay > 0:
        delay = retry_delay(task.retry_delay, task.retry_count, random.random())
        again["retry_at"] = now + timedelta(seconds=delay)
    return _again(task, now, **again)


def retry_delay(first: float, retry_count: int, chance: float) -> float:
    """Seconds until the next attempt: `first` doubled `retry_count` times, less up to a quarter by `chance`."""
    return float(min(first * 2.0 ** min(retry_count, 60), MAX_RETRY_DELAY)) * (1 - chance / 4)


def _terminated(exit_status: str, now: datetime, **fields: Any) -> Change:
    ended = {"exit_status": exit_status, "time_terminated": now} | LEFT
    return Change(state=State.TERMINATED, fields=ended | fields, ended=True)


def _lose(task: Task, event: End, now: datetime) -> Change:
    losses: dict[str, Any] = {"abandoned_count": task.abandoned_count + 1}
    if event.exit_status == HOST_DIED:
        losses["host_deaths"] = task.host_deaths + 1
    if event.exit_status == DISK_FILLED:
        losses["disk_fills"] = task.disk_fills + 1
    if losses["abandoned_count"] >= MAX_LOSSES:
        return _terminated(event.exit_status, now, **losses)
    if is_worker_failure(event.exit_status) and event.exit_status != HOST_DIED:
        losses |= _avoiding(task)
    return _again(task, now, **losses)


def _avoiding(task: Task) -> dict[str, Any]:
    """The field `avoid` with the task's worker added at the end."""
    if task.worker is None:
        return {}
    return {"avoid": [*(worker for worker in task.avoid if worker != task.worker), task.worker]}


def _lack_directory(task: Task, event: End, now: datetime) -> Change:
    if not event.elsewhere:
        return _terminated(event.exit_status, now)
    change = _again(task, now, **_avoiding(task))
    # `time_available` stays: workers whose directories were checked since then need no second check
    return replace(change, fields={name: value for name, value in change.fields.items() if name != "time_available"})


def avoid_seconds(first: float, losses: int) -> float:
    """Seconds until a worker that failed a task by its own fault may get it again: doubled with each loss."""
    return float(min(first * 2.0 ** min(losses - 1, 60), max(first, MAX_AVOID_SECONDS)))


def _end_cancelled(task: Task, event: End, now: datetime) -> Change:
    return _terminated(SUCCESS, now) if event.exit_status == SUCCESS else _cancelled(now)


def _give_back_cancelled(task: Task, event: Event, now: datetime) -> Change:
    return _cancelled(now, attempt_count=task.attempt_count - 1, **_NO_ATTEMPT)


FRESH: Mapping[str, Any] = {
    "retry_count": 0,
    "abandoned_count": 0,
    "host_deaths": None,
    "disk_fills": None,
    "exit_status": None,
    "execution": None,
    "avoid": None,
    "retry_at": None,
    "avoid_until": None,
    "progress": None,
    "result": None,
    "result_file": None,
    "cancelled_by": None,
    "peak_memory_bytes": None,
    "peak_memory_source": None,
    "cpu_seconds": None,
    "time_available": None,
    "time_claimed": None,
    "time_started": None,
    "time_terminated": None,
    "unsettled": None,
}
"""The values of the fields when a task starts its life again; attempts keep their numbering."""


def _retry(task: Task, event: Retry, now: datetime) -> Change:
    if event.pending:
        return Change(state=State.INACTIVE, fields=FRESH)
    change = _available(replace(task, retry_at=None), now)
    return replace(change, fields={**FRESH, **change.fields})


def _revive(task: Task, event: Event, now: datetime) -> Change:
    return Change(state=State.INACTIVE, fields=FRESH)


_TABLE: dict[tuple[State, type], Callable[..., Change | None]] = {
    (State.INACTIVE, Release): _release,
    (State.INACTIVE, Promote): _promote,
    (State.INACTIVE, Cancel): _cancel,
    (State.AVAILABLE, Release): _unchanged,
    (State.AVAILABLE, Due): _due,
    (State.AVAILABLE, Cancel): _cancel,
    (State.AVAILABLE, Claim): _claim,
    (State.RUNNING, Cancel): _ask_to_cancel,
    (State.RUNNING, GiveBack): _give_back,
    (State.RUNNING, End): _end,
    (State.PENDING_CANCELLATION, Cancel): _unchanged,
    (State.PENDING_CANCELLATION, GiveBack): _give_back_cancelled,
    (State.PENDING_CANCELLATION, End): _end_cancelled,
    (State.TERMINATED, Cancel): _unchanged,
    (State.CANCELLED, Cancel): _unchanged,
    (State.TERMINATED, Retry): _retry,
    (State.CANCELLED, Retry): _retry,
    (State.CANCELLED, Revive): _revive,
    (State.TERMINATED, Revive): _revive,
    (State.AVAILABLE, Revive): _revive,
}

_ASKED = {
    Release: "available",
    Claim: "running",
    GiveBack: "given back",
    End: "terminated",
    Retry: "retried",
}
_ALLOWED = {
    State.INACTIVE: "available or cancelled",
    State.AVAILABLE: "cancelled (or running, for a worker that claims it)",
    State.RUNNING: "cancelled (or terminated, or given back, for the worker that holds it)",
    State.PENDING_CANCELLATION: "terminated or cancelled, for the worker that holds it",
    State.TERMINATED: "a retry",
    State.CANCELLED: "a retry",
}


def _refusal(task: Task, event: Event) -> Exception:
    if isinstance(event, (GiveBack, End)) and task.state not in LIVE:
        return StaleAttempt(f"execution {event.execution}: task {task.id} is {task.state}; it has no attempt now")
    asked = _ASKED.get(type(event), type(event).__name__.lower())
    hint = " (only an ended task can be retried)" if isinstance(event, Retry) and task.state not in ENDED else ""
    text = f"task {task.id} is {task.state} and cannot be {asked}{hint}; allowed now: {_ALLOWED[task.state]}"
    return IllegalTransition({"state": text})
