"""How an attempt ended, in the words of the contract, and who is to blame."""

import os
import signal
from datetime import datetime

from worker.events import Allocation, Cause, Document, Exited, Grant, NotStarted

CANCELLED = "cancelled"
SERVER_UNREACHABLE = "abandoned (server unreachable)"


def exit_status(wait_status: int, cause: Cause | None, *, memory_limit_hit: bool = False) -> str:
    """The exit status of a task that ran.

    `cause` is why the worker ended it, if it did. A task that exits with 0 after it was asked to stop has succeeded,
    unless its time or its memory had run out.
    """
    if cause is Cause.TIMEOUT:
        return "timed out"
    if cause is Cause.MEMORY or memory_limit_hit:
        return "out of memory"
    code = os.waitstatus_to_exitcode(wait_status)
    if code == 0:
        return "success"
    if cause is Cause.CANCEL:
        return CANCELLED
    if cause is Cause.SERVER_LOST:
        return SERVER_UNREACHABLE
    return f"failure ({signal_name(-code)})" if code < 0 else failure(code)


def failure(exit_code: int) -> str:
    """The exit status of a program that ended with this code."""
    return f"failure (exit code {exit_code})"


def worker_failure(reason: str) -> str:
    """The exit status of an attempt that the machine, not the program, brought down."""
    return f"failure (worker: {reason})"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `SIGRT40` for a signal without a name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRT{number}"


def ending(grant: Grant, allocation: Allocation | None, **fields: object) -> Document:
    """The report of an end: what is always said, and `fields` as far as they are set."""
    report: Document = {"execution": grant.execution, "token": grant.token}
    if allocation is not None:
        report["granted_resources"] = allocation.to_document()
        report["directory"] = grant.directory
    return report | {name: value for name, value in fields.items() if value is not None}


def of_exit(grant: Grant, allocation: Allocation | None, event: Exited, cause: Cause | None, peak: int) -> Document:
    """The report of a task that ran; `peak` in bytes."""
    code = os.waitstatus_to_exitcode(event.wait_status)
    status = exit_status(event.wait_status, cause, memory_limit_hit=event.memory_limit_hit)
    if event.collected.get("disk_full") and status.startswith("failure"):
        status = worker_failure("disk full")
    return ending(
        grant,
        allocation,
        exit_status=status,
        exit_code=code if code >= 0 else None,
        signal=signal_name(-code) if code < 0 else None,
        time_started=event.time_started.isoformat(),
        time_terminated=event.time_terminated.isoformat(),
        pid=event.pid,
        peak_memory_bytes=peak,
        cpu_seconds=round(event.cpu_seconds, 6),
        **{name: value for name, value in event.collected.items() if name != "disk_full"},
    )


def of_no_start(grant: Grant, allocation: Allocation | None, event: NotStarted) -> Document:
    """The report of a task that could not be started."""
    code = event.exit_code
    return ending(
        grant,
        allocation,
        exit_status=worker_failure(event.reason) if code is None else failure(code),
        exit_code=code,
        time_terminated=event.time_terminated.isoformat(),
        **({"error": event.reason} | event.collected),
    )


def of_never_started(grant: Grant, exit_status: str, error: str, now: datetime) -> Document:
    """The report of a task that was not even tried."""
    return ending(grant, None, exit_status=exit_status, error=error, time_terminated=now.isoformat())
